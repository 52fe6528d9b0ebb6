"""The application that commands add themselves to, and what several of them do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdbench import __version__
from kdbench.cli import arguments

if TYPE_CHECKING:
    from kdbench.results.store import Store
    from kdbench.suite.suite import Suite

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compare knowledge-transfer methods, teacher to student.",
    epilog="Exit status: 0 all done, 1 a trial failed or a GPU hangs, 2 bad usage or suite, 3 stopped before the end.",
)

ALL_DONE, TRIAL_FAILED, BAD_USAGE, STOPPED = range(4)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if show:
        print(f"kdbench {__version__}")
        raise typer.Exit


def open_suite(suite: str, results: Path, methods: str | None, seeds: str | None, plugins: Sequence[Path]) -> tuple[Suite, Store]:
    """A suite with the methods and seeds of the command line, and the results directory."""
    from kdbench.results.store import Store
    from kdbench.spec.record import PROTOCOL
    from kdbench.suite.plugins import load_plugins
    from kdbench.suite.resolve import load_suite

    load_plugins(plugins)
    names = [] if methods is None else arguments.method_names(methods)
    numbers = [] if seeds is None else arguments.seed_numbers(seeds)
    return load_suite(suite, methods=names, seeds=numbers), Store(results, protocol=PROTOCOL)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=1))
