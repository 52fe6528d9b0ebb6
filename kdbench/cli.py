"""The command line. Heavy imports stand inside the commands, so that `--help` is instant."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdbench import __version__, arguments, options, signals
from kdbench.errors import KdbenchError, system_error

if TYPE_CHECKING:
    from kdbench.results.store import Store
    from kdbench.suite.resolve import Suite

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compare knowledge-transfer methods, teacher to student.",
    epilog="Exit status: 0 all done, 1 a trial failed, 2 bad usage or suite, 3 stopped before the end.",
)

ALL_DONE, TRIAL_FAILED, BAD_USAGE, STOPPED = range(4)


def main() -> None:
    """The entry point: a user's mistake is one line on standard error and exit status 2, and a signal that asks to stop is 3."""
    logging.basicConfig(format="kdbench: %(message)s")
    stop = signals.Stop()
    stop.listen()
    try:
        app(prog_name="kdbench", obj=stop)
    except (KdbenchError, OSError) as problem:
        print(f"error: {system_error(problem) if isinstance(problem, OSError) else problem}", file=sys.stderr)
        sys.exit(BAD_USAGE)
    except signals.Interrupted as interruption:
        with suppress(OSError):  # the terminal may be gone
            print(interruption, file=sys.stderr)
        sys.exit(STOPPED)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if show:
        print(f"kdbench {__version__}")
        raise typer.Exit


@app.command(
    epilog=options.examples("run quick --methods scratch,kd,ft --seeds 0-2", "run mine.yaml --results elsewhere --stop-after 1h")
)
def run(
    context: typer.Context,
    suite: options.SuiteArgument,
    results: options.ResultsOption = Path("results"),
    methods: options.MethodsOption = None,
    seeds: options.SeedsOption = None,
    device: options.DeviceOption = "auto",
    lanes: options.LanesOption = 0,
    stop_after: options.StopAfterOption = "",
    rerun: options.RerunOption = "missing",
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
) -> None:
    """Train what a suite still needs, then write its report.

    If you stop a run, the same command continues it.
    """
    limit = arguments.seconds(stop_after) if stop_after else None
    from kdbench.report.command import print_and_write, suite_report
    from kdbench.runner.plan import Rerun, Status, make_plan
    from kdbench.runner.progress import for_stream, outcome_text
    from kdbench.runner.run import Options, execute

    loaded, store = _open(suite, results, methods, seeds, plugin)
    progress, stop = for_stream(), context.ensure_object(signals.Stop)
    again = "the same command, without --rerun,"
    with (
        signals.on_stop(f"stopped; {again} goes on from the last whole epoch."),
        stop.warned("stopping at the end of this epoch; another signal stops at once."),
    ):
        wanted = Options(device=device, lanes=lanes, stop_after_s=limit, stop=lambda: stop.asked, rerun=Rerun(rerun))
        try:
            finished = execute(loaded, store, options=wanted, progress=progress)
        finally:
            progress.end()
    left = f"every trial has ended, and {again} makes the report." if finished else f"{again} goes on."
    with signals.on_stop(f"stopped while the report was made; {left}"):
        planned = make_plan(loaded, store)
        if any(trial.status is Status.DONE for trial in planned.students):
            print_and_write(suite_report(planned, store))
    if not finished:
        print(f"stopped before the end; the same command{' without --rerun' if rerun == 'all' else ''} goes on.")
        raise typer.Exit(STOPPED)
    if without_weights := planned.without_weights_text:
        print(without_weights)
    if failed := [trial.record for trial in (*planned.teachers, *planned.students) if trial.record and trial.record.reason]:
        print("\n".join(map(outcome_text, failed)))
        print(f"{len(failed)} failed; `--rerun failed` tries again.")
        raise typer.Exit(TRIAL_FAILED)


@app.command(epilog=options.examples("plan quick", "plan mine.yaml --check"))
def plan(
    suite: options.SuiteArgument,
    results: options.ResultsOption = Path("results"),
    methods: options.MethodsOption = None,
    seeds: options.SeedsOption = None,
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    check: Annotated[
        bool, typer.Option("--check", help="Also build every network, weights file and pair, and say all that `run` would refuse.")
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Say what a suite would train, and how long it would take.

    It trains nothing.
    """
    from kdbench.catalogue import plan as view
    from kdbench.catalogue.images import contents_of
    from kdbench.runner.cost import costs
    from kdbench.runner.plan import Rerun, make_plan

    loaded, store = _open(suite, results, methods, seeds, plugin)
    planned = make_plan(loaded, store)
    estimates, contents = costs(planned, store), contents_of(loaded.source, cache=store.cache)
    if as_json:
        _print_json(view.plan_as_json(planned, estimates, contents))
    else:
        print(view.plan_as_text(planned, estimates, contents))
    if check:
        from kdbench.runner.preflight import preflight
        from kdbench.training.device import choose_device

        preflight(planned, planned.todo(Rerun.MISSING), cache=store.cache, device=choose_device("auto"), download=False)
        if not as_json:
            print("checked: `kdbench run` can use these networks, weights and pairs. Images were listed, not decoded.")


@app.command(epilog=options.examples("report quick --format md,tex --output paper", "report results"))
def report(
    suite: Annotated[str, typer.Argument(metavar="SUITE|DIR", help="A suite, or a results folder: then all that is done in it.")],
    results: options.ResultsOption = Path("results"),
    methods: options.MethodsOption = None,
    seeds: options.SeedsOption = None,
    formats: options.FormatsOption = "",
    output: options.OutputOption = None,
    published: options.PublishedOption = False,
    published_csv: options.PublishedFilesOption = [],  # noqa: B006  # typer copies it
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
) -> None:
    """Print the tables of what is done; write them and the plots.

    It trains nothing.
    """
    from kdbench.paths import expanded
    from kdbench.report.command import directory_report, print_and_write, suite_report
    from kdbench.suite.shipped import suite_names

    chosen = tuple(name.strip() for name in formats.split(",")) if formats else ()
    if expanded(suite).is_dir() and suite not in suite_names():
        if methods is not None or seeds is not None or plugin:
            raise KdbenchError(
                "--methods, --seeds and --plugin have no effect on the report of a directory. Give a suite with them."
            )
        found = directory_report(Path(suite))
    else:
        from kdbench.runner.plan import make_plan

        loaded, store = _open(suite, results, methods, seeds, plugin)
        found = suite_report(make_plan(loaded, store), store)
    numbers = None
    if published or published_csv:
        from kdbench.report.published_numbers import read_published, shipped_numbers
        from kdbench.suite.plugins import load_shipped

        load_shipped()  # published numbers name methods and networks
        numbers = read_published([*([shipped_numbers()] if published else []), *published_csv])
    print_and_write(found, directory=output, formats=chosen, published=numbers)


@app.command("list", epilog=options.examples("list methods", "list trials mine.yaml"))
def list_(
    what: Annotated[options.Listed, options.what_argument(options.Listed, help="What to list.")],
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Of trials: the suite that they belong to.")] = "",
    results: options.TrialsFolderOption = None,
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    as_json: options.JsonOption = False,
) -> None:
    """List what there is, one line each."""
    if what != "trials" and (suite or results):
        raise KdbenchError(f"a suite and --results have no effect on the list of {what}. Leave them out.")
    if what == "trials":
        if not suite:
            raise KdbenchError("name the suite whose trials to list, such as `kdbench list trials mine.yaml`.")
        from kdbench.catalogue import trials
        from kdbench.runner.plan import make_plan

        planned = make_plan(*_open(suite, results or Path("results"), None, None, plugin))
        if as_json:
            _print_json(trials.trials_as_json(planned))
        else:
            print(trials.trials_as_text(planned))
        return
    from kdbench.catalogue.listing import listing
    from kdbench.suite.plugins import load_plugins

    load_plugins(plugin)
    entries = listing(what)
    if as_json:
        _print_json(entries)
    else:
        width = max(len(entry["name"]) for entry in entries)
        for entry in entries:
            print(f"{entry['name']:<{width}}  {entry['about']}")


@app.command(
    epilog=options.examples("show method ft", "show suite quick", "show dataset imagefolder", "show model timm/resnet18 --modules")
)
def show(
    what: Annotated[options.Shown, options.what_argument(options.Shown, help="What to show.")],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="As `kdbench list` has it. Also a suite's YAML file, or a folder of images as a dataset."
        ),
    ],
    image: options.ImageOption = "",
    classes: options.ClassesOption = None,
    hook: options.HookOption = [],  # noqa: B006  # typer copies it
    modules: options.ModulesOption = False,
    results: options.TrialsFolderOption = None,
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    as_json: options.JsonOption = False,
) -> None:
    """Show one thing in full, with every default.

    A method: formula, paper and parameters. A model: hook points and size. A dataset: keys, images and classes. A suite and a
    recipe: YAML that can be copied. An example: its text. A trial: its record.
    """
    from kdbench.suite.plugins import load_plugins

    load_plugins(plugin)
    if what != "model" and (image or classes or hook or modules):
        raise KdbenchError(f"--input, --classes, --hook and --modules have no effect on a {what}. Leave them out.")
    if what != "trial" and results:
        raise KdbenchError(f"--results has no effect on a {what}. Leave it out.")
    value: object
    if what == "model":
        value, text = _model(name, image, classes, hook, modules)
    elif what == "trial":
        from kdbench.catalogue import trials

        value = described = trials.describe_trial(name, results or Path("results"))
        text = trials.trial_as_text(described)
    else:
        from kdbench.catalogue.show import shown

        value, text = shown(what, name)
    if as_json:
        _print_json(value)
    else:
        print(text)


def _model(name: str, image: str, classes: int | None, hook: Sequence[str], modules: bool) -> tuple[object, str]:
    from kdbench.catalogue import model

    shape = arguments.image_shape(image) if image else model.usual_shape(name)
    if not modules:
        described = model.describe_model(name, image_shape=shape, num_classes=classes or 10, hooks=hook)
        return described, model.model_as_text(described)
    if hook:
        raise KdbenchError("--hook has no effect on --modules. Leave one of them out.")
    names = model.modules_of(name, image_shape=shape, num_classes=classes or 10)
    return names, model.modules_as_text(name, names)


@app.command(epilog=options.examples("check my_method.py", "check ft"))
def check(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A method's name, or the Python file that registers it.")],
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    as_json: options.JsonOption = False,
) -> None:
    """Test a method against what kdbench promises of every method.

    It takes seconds, and says how to fix what fails.
    """
    from kdbench import conformance
    from kdbench.suite.plugins import load_plugins

    load_plugins(plugin)
    checks = conformance.check(name)
    if as_json:
        _print_json(conformance.as_json(checks))
    else:
        print(conformance.as_text(checks))
    if any(found.status == "fail" for found in checks):
        raise typer.Exit(TRIAL_FAILED)


@app.command(epilog=options.examples("new suite mine", "new method my_method", "new examples"))
def new(
    what: Annotated[options.Written, options.what_argument(options.Written, help="What to write.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a method or a suite: what to call it.")] = "",
) -> None:
    """Write a method, a suite or the examples into this folder.

    A method comes with its test. Both the method and the suite work as they are, and say what to change.
    """
    from kdbench.conformance.scaffold import new_method
    from kdbench.suite.scaffold import new_examples, new_suite

    if (what == "examples") == bool(name):
        raise KdbenchError(
            "the examples need no name: they go into the folder examples. Leave it out."
            if name
            else f"give the {what} a name, such as `kdbench new {what} my_{what}`."
        )
    try:
        if what == "method":
            files, then = new_method(name, Path()), f"kdbench check {name}.py"
        elif what == "suite":
            files = new_suite(name, Path())
            then = f"kdbench plan {files[0]}"
        else:
            files, then = new_examples(Path("examples")), "kdbench plan examples/suite.yaml --plugin examples/cosine.py"
    except OSError as problem:
        raise KdbenchError(f"nothing can be written here ({problem.strerror}). Change to a folder of your own.") from None
    for file in files:
        print(f"wrote {file}")
    print(f"next: {then}")


def _open(suite: str, results: Path, methods: str | None, seeds: str | None, plugins: Sequence[Path]) -> tuple[Suite, Store]:
    from kdbench.results.store import Store
    from kdbench.spec.record import PROTOCOL
    from kdbench.suite.plugins import load_plugins
    from kdbench.suite.resolve import load_suite

    load_plugins(plugins)
    names = [] if methods is None else arguments.method_names(methods)
    numbers = [] if seeds is None else arguments.seed_numbers(seeds)
    return load_suite(suite, methods=names, seeds=numbers), Store(results, protocol=PROTOCOL)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1))
