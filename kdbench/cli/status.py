"""`kdbench status`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdbench import signals
from kdbench.cli import options
from kdbench.cli.app import app, print_json
from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from kdbench.catalogue.status import Status

WATCH_S = 2.0
"""From one look to the next."""


@app.command(epilog=options.examples("status", "status quick --watch", "status mine.yaml --results /scratch/me --json"))
def status(
    context: typer.Context,
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE", help="The suite, as you gave it to `run`. Unless given: all suites that have runs in the folder."
        ),
    ] = None,
    results: options.ResultsOption = Path("results"),
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Look again every two seconds until no run is active; wait for the first one. Ctrl-C ends no run.",
        ),
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Say how far the runs of a suite are, while they go on and after.

    It only reads, and works from another terminal, machine or user.
    """
    if watch and as_json:
        raise KdbenchError("--watch shows text. Leave it out, and ask for --json as often as you need.")
    from kdbench.catalogue.status import status_as_json, status_as_text, statuses_as_text

    if not suite:
        if watch:
            raise KdbenchError("--watch looks at one suite. Name it, as in `kdbench status SUITE --watch`.")
        every = _look_at_all(results)
        if as_json:
            print_json([*map(status_as_json, every)])
        else:
            print(statuses_as_text(every, results))
        return
    found = _look(suite, results)
    if as_json:
        print_json(status_as_json(found))
    elif watch and not _over(found):
        with context.ensure_object(signals.Stop).ends():  # who watches has seen enough; the runs go on
            (_redraw if sys.stdout.isatty() else _tell)(suite, results)
    else:
        print(status_as_text(found))


def _look(suite: str, results: Path) -> Status:
    from kdbench.catalogue.status import Status
    from kdbench.paths import expanded
    from kdbench.results.runs import find_runs
    from kdbench.suite.shipped import find_suite

    root = expanded(results)
    found = Status.of(Path(suite).stem, root, find_runs(root))
    if not found.runs:
        find_suite(suite)
    return found


def _look_at_all(results: Path) -> list[Status]:
    """Each suite that has runs, the one that began last at the end."""
    from kdbench.catalogue.status import Status
    from kdbench.paths import expanded
    from kdbench.results.runs import find_runs

    root = expanded(results)
    runs = find_runs(root)
    last_of_each = dict.fromkeys(run.now.suite for run in reversed(runs))
    return [Status.of(suite, root, runs) for suite in reversed(last_of_each)]


def _over(found: Status) -> bool:
    """Whether there were runs, and none goes on."""
    return bool(found.runs) and not found.going_on


def _watched(found: Status, told: Callable[[Status], str]) -> str:
    """What is told of the runs, or that none has come yet."""
    return told(found) if found.runs else f"waiting for a run of {found.suite} in {found.root} (Ctrl-C ends)"


def _redraw(suite: str, results: Path) -> None:
    """Show the whole text again and again."""
    from rich.live import Live
    from rich.text import Text

    from kdbench.catalogue.status import status_as_text

    with Live(auto_refresh=False) as live:
        while True:
            found = _look(suite, results)
            live.update(Text(_watched(found, status_as_text), no_wrap=True, overflow="ellipsis"), refresh=True)
            if _over(found):
                return
            time.sleep(WATCH_S)


def _tell(suite: str, results: Path) -> None:
    """Print a line at every change, and in the end all."""
    from kdbench.catalogue.status import status_as_line, status_as_text

    last = ""
    while not _over(found := _look(suite, results)):
        if (line := _watched(found, status_as_line)) != last:
            print(line, flush=True)
        last = line
        time.sleep(WATCH_S)
    print(status_as_text(found))
