"""`kdbench merge`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from kdbench.cli import options
from kdbench.cli.app import app


@app.command(epilog=options.examples("merge results machine2 --dry-run", "merge results machine2 machine3"))
def merge(
    into: Annotated[Path, typer.Argument(metavar="INTO", help="The results folder that gets the trials. It need not exist.")],
    sources: Annotated[list[Path], typer.Argument(metavar="FROM", help="Results folders to take trials from. They are only read.")],
    keep: Annotated[
        Literal["into", "from"] | None,
        typer.Option(
            "--keep",
            help="Where INTO and FROM have different results of one trial: into leaves INTO's, from takes FROM's. Unless given, "
            "such trials are listed and nothing is merged.",
        ),
    ] = None,
    dry_run: options.DryRunOption = False,
) -> None:
    """Copy the trials of other results folders into one.

    Use --dry-run first: it prints what would happen and writes nothing.

    A trial that both have with the same result is one. A finished trial takes the place of one that failed or is not finished, and
    never the other way round. If you stop a merge, the same command continues it.
    """
    from kdbench.catalogue.merge import merge_as_text, refuse_clashes
    from kdbench.results import merge as merging
    from kdbench.results.store import Store
    from kdbench.spec.record import PROTOCOL

    planned = merging.plan_merge(into, sources, keep=keep)
    print(merge_as_text(planned))
    if dry_run:
        print("Nothing was written.")
        return
    refuse_clashes(planned)
    with Store(into, protocol=PROTOCOL).writing():
        planned = merging.plan_merge(into, sources, keep=keep)  # again, now that nobody else can change what is there
        refuse_clashes(planned)
        merging.merge(planned)
    print(f"Merged. `kdbench report SUITE --results {quote(str(into))}` makes the report of a suite.")
