"""The application that commands add themselves to, and what several of them do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument, TyperGroup

from kdbench import __version__
from kdbench.cli import arguments
from kdbench.errors import KdbenchError
from kdbench.runner.slow import told_if_slow

if TYPE_CHECKING:
    from kdbench.results.store import Store
    from kdbench.suite.suite import Suite

ELSEWHERE = {
    "tune": "To tune methods, write `tune` in the suite; `kdbench run` then does it.",
    "train": "`kdbench run SUITE` trains.",
    "resume": "The same `kdbench run` continues where it stopped.",
}
"""What users look for as a command, and where it is."""


class Group(TyperGroup):
    """Commands whose help names arguments without their types: newer versions of typer add `<str>` to `SUITE`."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        for parameter in command.params if command else ():
            if isinstance(parameter, TyperArgument):
                vars(parameter)["display_type_rich"] = lambda ctx: None
        return command


class Commands(Group):
    """The commands; what some expect under another name is answered with where it is."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in ELSEWHERE:
            raise KdbenchError(f"there is no command '{args[0]}'. {ELSEWHERE[args[0]]}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
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


@contextmanager
def loading(then: str) -> Iterator[None]:
    """Around imports that take seconds: say so on standard error where they do, and what comes then."""
    if "torch" in sys.modules:
        yield
        return
    with told_if_slow(to_stderr, f"loading PyTorch; then {then}"):
        yield


def to_stderr(text: str) -> None:
    """A line for people beside what a command answers."""
    print(text, file=sys.stderr, flush=True)


def open_suite(
    suite: str, results: Path, methods: str | None, seeds: str | None, plugins: Sequence[Path], *, read_only: bool = True
) -> tuple[Suite, Store]:
    """A suite with the methods and seeds of the command line, and the results directory."""
    from kdbench.results.store import Store
    from kdbench.spec.record import PROTOCOL
    from kdbench.suite.plugins import load_plugins
    from kdbench.suite.resolve import load_suite

    load_plugins(plugins)
    names = [] if methods is None else arguments.method_names(methods)
    numbers = [] if seeds is None else arguments.seed_numbers(seeds)
    return load_suite(suite, methods=names, seeds=numbers), Store(results, protocol=PROTOCOL, read_only=read_only)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=1))
