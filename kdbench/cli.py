"""The command line. Heavy imports stand inside the commands, so that `--help` is instant."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kdbench import __version__
from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from kdbench.plan import Plan, Planned

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
MethodsOption = Annotated[str, typer.Option("--methods", metavar="NAMES", help="Only these, such as ft,kd.")]
SeedsOption = Annotated[str, typer.Option("--seeds", metavar="NUMBERS", help="These instead of the suite's, such as 0,1,2.")]
PluginOption = Annotated[list[Path], typer.Option("--plugin", metavar="PATH", help="A method's file, or a folder of them.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """The entry point: a user's mistake is one line on standard error and exit status 2."""
    logging.basicConfig(format="kdbench: %(message)s")
    try:
        app()
    except KdbenchError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(BAD_USAGE)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last whole epoch.", file=sys.stderr)
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
    suite: SuiteArgument,
    results: ResultsOption = Path("results"),
    methods: MethodsOption = "",
    seeds: SeedsOption = "",
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:INDEX.")] = "auto",
    lanes: Annotated[int, typer.Option(min=0, help="How many students train at once; 0 for all of a cohort.")] = 0,
    stop_after: Annotated[str, typer.Option(metavar="TIME", help="Stop at the end of the epoch after 90s, 9m or 2h.")] = "",
    rerun: Annotated[Literal["missing", "failed", "all"], typer.Option(help="Which trials to take up.")] = "missing",
    plugin: PluginOption = [],  # noqa: B006  # typer reads it, nobody changes it
) -> None:
    """Train what a suite still needs, then print its tables and write its report."""
    limit = seconds(stop_after) if stop_after else None
    from kdbench.plan import Rerun, Status, make_plan
    from kdbench.progress import for_stream
    from kdbench.run import Options, execute

    loaded, store = _open(suite, results, methods, seeds, plugin)
    options = Options(device=device, lanes=lanes, stop_after_s=limit, rerun=Rerun(rerun))
    progress = for_stream()
    try:
        finished = execute(loaded, store, options=options, progress=progress)
    finally:
        progress.end()
    plan = make_plan(loaded, store)
    if any(planned.record for planned in plan.students):
        _report(plan, results, formats=ALL_FORMATS)
    failed = [planned for planned in (*plan.teachers, *plan.students) if planned.status is Status.FAILED]
    if not finished:
        print("stopped before the end; the same command goes on.")
        raise typer.Exit(STOPPED)
    if failed:
        print(f"{len(failed)} failed: see the reasons above; `--rerun failed` tries them again.")
        raise typer.Exit(TRIAL_FAILED)


@app.command()
def plan(
    suite: SuiteArgument,
    results: ResultsOption = Path("results"),
    methods: MethodsOption = "",
    seeds: SeedsOption = "",
    plugin: PluginOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Say what a suite would run and what is done; trains nothing."""
    from kdbench.plan import make_plan

    loaded, store = _open(suite, results, methods, seeds, plugin)
    _print_plan(make_plan(loaded, store), as_json)


ALL_FORMATS = ("md", "tex", "csv", "png", "pdf")


@app.command()
def report(
    suite: Annotated[str, typer.Argument(metavar="SUITE|DIR", help="A suite, or a results directory for all of its records.")],
    results: ResultsOption = Path("results"),
    methods: MethodsOption = "",
    seeds: SeedsOption = "",
    formats: Annotated[str, typer.Option("--format", metavar="NAMES", help="Of md,tex,csv,png,pdf.")] = ",".join(ALL_FORMATS),
    plugin: PluginOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Print the tables of what is recorded, and write them and the plots."""
    chosen = tuple(name for name in formats.split(",") if name)
    if Path(suite).is_dir():
        from kdbench.report import report_directory

        report_directory(Path(suite), formats=chosen, as_json=as_json)
        return
    from kdbench.plan import make_plan

    loaded, store = _open(suite, results, methods, seeds, plugin)
    _report(make_plan(loaded, store), results, formats=chosen)


def seconds(text: str) -> float:
    """Seconds of `90s`, `9m`, `2h` or `1.5h`.

    Raises:
        KdbenchError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise KdbenchError(f"--stop-after: '{text}' is not a time. Give seconds, minutes or hours, such as 90s, 9m or 2h.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
