"""`kdbench export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdbench.cli import options
from kdbench.cli.app import app
from kdbench.wording import counted

if TYPE_CHECKING:
    import pandas as pd


@app.command(epilog=options.examples("export results appendix.csv", "export mine.yaml mine.parquet --curves"))
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|SUITE", help="A results folder: all records in it. Or a suite: its students and their teachers."
        ),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write. It ends with .parquet or .csv.")],
    no_outcomes: Annotated[
        bool,
        typer.Option(
            "--no-outcomes",
            help="Leave out which test images were wrong. Reports of the file then have no intervals over new images.",
        ),
    ] = False,
    curves: Annotated[bool, typer.Option("--curves", help="Add a column with every epoch of each trial.")] = False,
    results: options.TrialsFolderOption = None,
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
) -> None:
    """Write results into one file, for an appendix or a leaderboard.

    `kdbench report FILE` and `kdbench.load_results(FILE)` read it again. The page "Results folder" of the documentation describes
    the columns. Weights are not part of it.
    """
    import pandas as pd

    from kdbench.errors import KdbenchError
    from kdbench.paths import expanded
    from kdbench.results.export import write_export
    from kdbench.results.frames import load_curves
    from kdbench.results.outcomes import load_outcomes
    from kdbench.runner.frame import load_results
    from kdbench.suite.shipped import suite_names

    if is_folder := expanded(source).is_dir() and source not in suite_names():
        if results or plugin:
            raise KdbenchError("--results and --plugin have no effect on a results folder. Give a suite with them.")
        root, frame = expanded(source), load_results(source)
    else:
        root = expanded(results or Path("results"))
        frame = load_results(root, suite=source, plugins=plugin)
        frame = pd.concat([frame, _teachers(root, frame)], ignore_index=True)
    trials = frame["trial"].tolist()
    write_export(
        frame,
        expanded(file),
        curves=load_curves(root, trials) if curves else None,
        outcomes=None if no_outcomes else load_outcomes(root, trials),
    )
    print(f"{file}: {counted(len(frame), 'trial')} of {source}{'' if is_folder else f' in {root}'}")


def _teachers(root: Path, students: pd.DataFrame) -> pd.DataFrame:
    """The teachers of some students, and those teachers' own."""
    from kdbench.results.frames import read_records
    from kdbench.results.trial_folder import trial_folders

    folders, found = trial_folders(root), set[str]()
    left = [*students["teacher_trial"].dropna(), *students["trial"]]
    while left:
        if (trial := left.pop()) in folders and trial not in found:
            found.add(trial)
            left += folders[trial].teachers
    if found <= {*students["trial"]}:
        return students.iloc[:0]
    records = read_records(root)
    return records[records["trial"].isin(found) & ~records["trial"].isin(students["trial"])]
