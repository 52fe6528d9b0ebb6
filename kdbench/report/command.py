"""What `kdbench report` does, and `kdbench run` at its end: tables on the terminal and a report in files, made from records."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import wrap
from urllib.parse import quote

import pandas as pd
from rich.console import Console

from kdbench.errors import KdbenchError, listed
from kdbench.paths import expanded, found
from kdbench.report import FORMATS, compare, terminal_tables, write_report
from kdbench.report.added_seeds import listed_seeds
from kdbench.report.contents import Report
from kdbench.report.output_folder import choose_folder, write_into
from kdbench.results.layout import record_files
from kdbench.wording import counted, plural

FILE_WIDTH = 160
"""Characters in a line of tables that go to a file or another program."""


def _pages_of_suites(report: Report, folder: Path) -> dict[str, str]:
    """By suite that trained some of the trials, its page as seen from the folder of this report, where it has another one."""
    pages = {str(suite): report.reports / str(suite) / "report.html" for suite in report.results["suite"].unique()}
    there = {suite: page for suite, page in pages.items() if page.exists() and page.parent != folder}
    return {suite: quote(os.path.relpath(page, folder)) for suite, page in there.items()}


def print_and_write(
    report: Report, *, directory: Path | None = None, formats: Sequence[str] = (), published: pd.DataFrame | None = None
) -> None:
    """Print the tables, those beside `published` numbers too where they are given, write the report, and say where its files are.

    Raises:
        KdbenchError: no trial is done, they are not comparable, an unknown format, or a directory that cannot be written.
    """
    if not (report.results["status"] == "done").any():
        counts = ", ".join(f"{n} {status}" for status, n in report.results["status"].value_counts().items())
        raise KdbenchError(f"there is nothing to report: no trial is done ({counts}). {_fix(report)}")
    folder, elsewhere = (expanded(directory), "") if directory else choose_folder(report.reports, report.identity)
    comparison = compare(report.results, pairs=report.pairs, methods=report.methods, options=report.options)
    comparison = comparison.with_outcomes(report.outcomes).with_tuning(report.tuning)
    write = partial(
        write_report,
        comparison,
        report.curves,
        title=report.title,
        name=folder.absolute().name,
        formats=formats or FORMATS,
        published=published,
        sources=replace(report.sources, suite_pages=_pages_of_suites(report, folder)),
    )
    # What is no terminal has no width: nothing is cut off in a file.
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    tables = terminal_tables(
        comparison,
        title=report.title,
        published=published,
        width=min(console.width, shutil.get_terminal_size().columns),
    )
    # Figures take seconds; the line goes when the tables come.
    shown = console.status("writing the report", spinner="line") if sys.stdout.isatty() else nullcontext()
    try:
        with shown:
            files, removed = write_into(
                folder,
                report.identity,
                lambda staged: write(directory=staged),
                results=report.state,
                chosen_by_user=bool(directory),
            )
    except OSError as problem:
        console.print(tables)  # whoever may only read the results has at least those
        text = f"the report cannot be written to {folder} ({problem.strerror})"
        raise KdbenchError(f"{text}. Choose another folder with `kdbench report --output DIR`.") from None
    console.print(tables)
    if further := report.further_seeds:
        seeds = f"{plural('seed', len(further))} {listed_seeds(further)}"
        print(f"not shown: the folder also has {seeds} of these trials, which the suite does not list under `seeds`.")
    if others := report.further_settings:
        settings = f"{counted(len(others), 'other setting')} of these methods, {listed(others)},"
        print(f"not shown: the folder also has {settings} which the suite does not list under `methods`.")
    if elsewhere:
        print(elsewhere)
    if removed:
        print(f"removed, from the earlier report: {', '.join(file.name for file in removed)}")
    print("\n".join(_files_as_lines(folder, files, console.width)))


def _fix(report: Report) -> str:
    """What to do where no trial is done."""
    root = report.reports.parent
    if not found(root):
        return f"There is no folder {root}: start them with `kdbench run`, or give their folder with --results."
    if (report.results["status"] == "missing").all() and (others := len(record_files(root))):
        return f"{root} has {counted(others, 'trial')} of other suites: `kdbench report {root}` shows them."
    return "Start them with `kdbench run`."


def _files_as_lines(folder: Path, files: Sequence[Path], width: int) -> list[str]:
    """The names in a paragraph, then what one opens first, each by its path."""
    first = [file for file in files if file.name in ("report.html", "report.md")]
    others = [file.name for file in files if file not in first]
    names = f"{' '.join(others)} ({counted(len(others), 'file')})"
    paragraph = wrap(
        names, width, initial_indent=f"{folder}: ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return [*(paragraph if others else []), *map(str, first)]
