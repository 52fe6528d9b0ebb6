"""The command line. Heavy imports stand inside the commands, so that `--help` is instant."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kdbench import __version__, arguments, signals
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

SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="A shipped suite's name, or a path to a YAML file.")]
ResultsOption = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where trials are kept.")]
MethodsOption = Annotated[
    str | None, typer.Option("--methods", metavar="NAMES", help="These instead of the suite's, and in this order, such as ft,kd.")
]
SeedsOption = Annotated[
    str | None, typer.Option("--seeds", metavar="NUMBERS", help="These instead of the suite's, such as 0,1,2 or 0-2.")
]
PluginOption = Annotated[
    list[Path], typer.Option("--plugin", metavar="PATH", help="A file with methods, models or data sets of your own, or a folder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
    except signals.Interrupted as told:
        with suppress(OSError):  # the terminal may be gone
            print(told, file=sys.stderr)
        sys.exit(STOPPED)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if show:
        print(f"kdbench {__version__}")
        raise typer.Exit


@app.command()
def run(
    context: typer.Context,
    suite: SuiteArgument,
    results: ResultsOption = Path("results"),
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:INDEX.")] = "auto",
    lanes: Annotated[int, typer.Option(min=0, help="How many students train at once; 0 for all of a cohort.")] = 0,
    stop_after: Annotated[str, typer.Option(metavar="TIME", help="Stop at the end of the epoch after 90s, 9m or 1h30m.")] = "",
    rerun: Annotated[
        Literal["missing", "failed", "weights", "all"],
        typer.Option(
            help="Which trials to take up: what is not done; that and what failed; that and finished students without the weights "
            "that `keep_students` asks for; every student anew."
        ),
    ] = "missing",
    plugin: PluginOption = [],  # noqa: B006  # typer copies it
) -> None:
    """Train what a suite still needs, then print its tables and write its report."""
    limit = arguments.seconds(stop_after) if stop_after else None
    from kdbench.report import present
    from kdbench.runner.plan import Rerun, Status, make_plan
    from kdbench.runner.progress import for_stream, told
    from kdbench.runner.run import Options, execute

    loaded, store = _open(suite, results, methods, seeds, plugin)
    progress, stop = for_stream(), context.ensure_object(signals.Stop)
    again = "the same command, without --rerun,"
    with (
        signals.on_stop(f"stopped; {again} goes on from the last whole epoch."),
        stop.warned("stopping at the end of this epoch; another signal stops at once."),
    ):
        options = Options(device=device, lanes=lanes, stop_after_s=limit, stop=lambda: stop.asked, rerun=Rerun(rerun))
        try:
            finished = execute(loaded, store, options=options, progress=progress)
        finally:
            progress.end()
    trained = "every trial has ended, and " if finished else ""
    with signals.on_stop(f"stopped while the report was made; {trained}{again} {'makes it' if finished else 'goes on'}."):
        planned = make_plan(loaded, store)
        if any(trial.status is Status.DONE for trial in planned.students):
            present.show(present.of_plan(planned, store))
    if not finished:
        print(f"stopped before the end; the same command{' without --rerun' if rerun == 'all' else ''} goes on.")
        raise typer.Exit(STOPPED)
    if told_of_weights := planned.without_weights_text:
        print(told_of_weights)
    if failed := [trial.record for trial in (*planned.teachers, *planned.students) if trial.record and trial.record.reason]:
        print("\n".join(map(told, failed)))
        print(f"{len(failed)} failed; `--rerun failed` tries again.")
        raise typer.Exit(TRIAL_FAILED)


@app.command()
def plan(
    suite: SuiteArgument,
    results: ResultsOption = Path("results"),
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    plugin: PluginOption = [],  # noqa: B006  # typer copies it
    check: Annotated[
        bool, typer.Option("--check", help="Also build every network, weights file and pair, and tell all that `run` would refuse.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a suite would run, what is done and how long the rest will take; train nothing."""
    from kdbench.catalogue import plan as view
    from kdbench.runner.cost import costs
    from kdbench.runner.plan import Rerun, make_plan

    loaded, store = _open(suite, results, methods, seeds, plugin)
    planned = make_plan(loaded, store)
    estimates, contents = costs(planned, store), view.contents_of(loaded, store)
    if as_json:
        _print_json(view.plan_as_json(planned, estimates, contents))
    else:
        print(view.plan_as_text(planned, estimates, contents))
    if check:
        from kdbench.runner.preflight import preflight
        from kdbench.training.device import choose_device

        preflight(planned, planned.todo(Rerun.MISSING), cache=store.cache, device=choose_device("auto"), download=False)
        if not as_json:
            print("checked: networks, weights and pairs are as `kdbench run` needs them. Images were listed and not decoded.")


@app.command()
def report(
    suite: Annotated[str, typer.Argument(metavar="SUITE|DIR", help="A suite, or a results directory for all of its records.")],
    results: ResultsOption = Path("results"),
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    formats: Annotated[str, typer.Option("--format", metavar="NAMES", help="Of md,tex,csv,png,pdf; all unless given.")] = "",
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write; RESULTS/reports/SUITE unless given.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Add a table beside the published numbers that ship.")] = False,
    published_csv: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Add a table beside published numbers of your own.")
    ] = [],  # noqa: B006  # typer copies it
    plugin: PluginOption = [],  # noqa: B006  # typer copies it
) -> None:
    """Print the tables of what is done, and write them and the plots."""
    from kdbench.paths import expanded
    from kdbench.report import present
    from kdbench.suite.shipped import suite_names

    chosen = tuple(name.strip() for name in formats.split(",")) if formats else ()
    if expanded(suite).is_dir() and suite not in suite_names():
        if methods is not None or seeds is not None or plugin:
            raise KdbenchError(
                "--methods, --seeds and --plugin have no effect on the report of a directory. Give a suite with them."
            )
        comparison = present.of_directory(Path(suite))
    else:
        from kdbench.runner.plan import make_plan

        loaded, store = _open(suite, results, methods, seeds, plugin)
        comparison = present.of_plan(make_plan(loaded, store), store)
    beside = None
    if published or published_csv:
        from kdbench.report.published import read_published, shipped_numbers
        from kdbench.suite.plugins import load_shipped

        load_shipped()  # published numbers name methods and networks
        beside = read_published([*([shipped_numbers()] if published else []), *published_csv])
    present.show(comparison, directory=output, formats=chosen, published=beside)


@app.command("list")
def list_(
    what: Annotated[Literal["methods", "models", "datasets", "suites"], typer.Argument()],
    plugin: PluginOption = [],  # noqa: B006  # typer copies it
    as_json: JsonOption = False,
) -> None:
    """List what there is, one line each."""
    from kdbench.catalogue import listing as catalogue
    from kdbench.suite.plugins import load_plugins

    load_plugins(plugin)
    entries = catalogue.listing(what)
    if as_json:
        _print_json(entries)
    else:
        width = max(len(entry["name"]) for entry in entries)
        for entry in entries:
            print(f"{entry['name']:<{width}}  {entry['about']}")


@app.command()
def show(
    what: Annotated[Literal["method", "model"], typer.Argument()],
    name: Annotated[str, typer.Argument()],
    image: Annotated[str, typer.Option("--input", metavar="CxHxW", help="Of a model: the images, such as 3x224x224.")] = "",
    classes: Annotated[int, typer.Option(min=0, help="Of a model: how many classes; 10 unless given.")] = 0,
    hook: Annotated[
        list[str], typer.Option(metavar="NAME", help="Of a model: a module with which a group ends; several, shallow to deep.")
    ] = [],  # noqa: B006  # typer copies it
    modules: Annotated[
        bool, typer.Option("--modules", help="Of a model: list its modules that give maps, of which a suite's `hooks` name some.")
    ] = False,
    plugin: PluginOption = [],  # noqa: B006  # typer copies it
    as_json: JsonOption = False,
) -> None:
    """Show a method's formula, paper and parameters with their defaults, or a model's hook points and size."""
    from kdbench.catalogue import model as catalogue_model
    from kdbench.catalogue.method import method_as_text
    from kdbench.method.description import describe_method
    from kdbench.suite.plugins import load_plugins

    load_plugins(plugin)
    value: object
    if what == "method":
        if image or classes or hook or modules:
            raise KdbenchError("--input, --classes, --hook and --modules have no effect on a method. Leave them out.")
        value = method = describe_method(name)
        text = method_as_text(method)
    else:
        shape = arguments.image_shape(image) if image else catalogue_model.usual_shape(name)
        if modules:
            if hook:
                raise KdbenchError("--hook has no effect on --modules. Leave one of them out.")
            value = names = catalogue_model.modules_of(name, image_shape=shape, num_classes=classes or 10)
            text = catalogue_model.modules_as_text(name, names)
        else:
            value = model = catalogue_model.describe_model(name, image_shape=shape, num_classes=classes or 10, hooks=hook)
            text = catalogue_model.model_as_text(model)
    if as_json:
        _print_json(value)
    else:
        print(text)


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A method's name, or the file that registers it.")],
    plugin: PluginOption = [],  # noqa: B006  # typer copies it
    as_json: JsonOption = False,
) -> None:
    """Test a method against what kdbench promises of every method."""
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


@app.command()
def new(what: Annotated[Literal["method"], typer.Argument()], name: Annotated[str, typer.Argument()]) -> None:
    """Write a working method and its test into the current folder."""
    from kdbench.conformance.scaffold import new_method

    try:
        files = new_method(name, Path())
    except OSError as problem:
        raise KdbenchError(f"nothing can be written here ({problem.strerror}). Change to a folder of your own.") from None
    for file in files:
        print(f"wrote {file}")
    print(f"next: kdbench check {name}.py")


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
