"""`kdbench export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli import options
from kdbench.cli.app import app
from kdbench.wording import counted


@app.command(epilog=options.examples("export results appendix.csv", "export mine.yaml mine.parquet --curves"))
def export(
    source: Annotated[
        str, typer.Argument(metavar="DIR|SUITE", help="A results folder: then all of its records. Or a suite: then its students.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write. It ends with .parquet or .csv.")],
    curves: Annotated[bool, typer.Option("--curves", help="Add a column with every epoch of each trial.")] = False,
    results: options.TrialsFolderOption = None,
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
) -> None:
    """Write results into one file, for an appendix or a leaderboard.

    `kdbench report FILE` and `kdbench.load_results(FILE)` read it again. The page "Results folder" of the documentation describes
    the columns. Weights are not part of it.
    """
    from kdbench.errors import KdbenchError
    from kdbench.paths import expanded
    from kdbench.results.export import write_export
    from kdbench.results.frames import load_curves
    from kdbench.runner.frame import load_results

    if is_folder := expanded(source).is_dir():
        if results or plugin:
            raise KdbenchError("--results and --plugin have no effect on a results folder. Give a suite with them.")
        root, frame = expanded(source), load_results(source)
    else:
        root = expanded(results or Path("results"))
        frame = load_results(root, suite=source, plugins=plugin)
    epochs = load_curves(root, frame["trial"]) if curves else None
    write_export(frame, expanded(file), curves=epochs)
    print(f"{file}: {counted(len(frame), 'trial')} of {source}{'' if is_folder else f' in {root}'}")
