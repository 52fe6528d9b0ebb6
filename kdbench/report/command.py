"""What `kdbench report` does, and `kdbench run` at its end: tables on the terminal and a report in files, made from records."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from kdbench.errors import KdbenchError
from kdbench.paths import expanded
from kdbench.report import FORMATS, ReportOptions, Sources, compare, terminal_tables, write_report
from kdbench.report.output_folder import ReportIdentity, choose_folder, write_into
from kdbench.report.page.sources import NO_SOURCES
from kdbench.results.export import is_export, read_export
from kdbench.results.frames import load_curves, read_records
from kdbench.results.store import Store
from kdbench.runner.frame import plan_frame
from kdbench.spec.record import PROTOCOL
from kdbench.spec.report_options import DEFAULT
from kdbench.suite.shipped import is_shipped

if TYPE_CHECKING:
    from kdbench.runner.plan import Plan
    from kdbench.suite.resolve import Suite

FILE_WIDTH = 160
"""Characters in a line of tables that go to a file or another program."""


@dataclass(frozen=True)
class Report:
    """What a report is made of; it is written below `reports` unless another directory is asked for."""

    title: str
    results: pd.DataFrame
    curves: pd.DataFrame
    pairs: Sequence[tuple[str, str]]
    methods: Sequence[str]
    reports: Path
    identity: ReportIdentity
    sources: Sources
    options: ReportOptions = DEFAULT


def suite_report(plan: Plan, store: Store) -> Report:
    """The trials of a suite, those that are not done among them."""
    results = plan_frame(plan)
    return Report(
        title=f"{plan.suite.title} ({plan.suite.selection})" if plan.suite.selection else plan.suite.title,
        results=results,
        curves=load_curves(store.root, results["trial"]),
        pairs=plan.suite.pairs,
        methods=plan.suite.methods,
        reports=store.root / "reports",
        identity=_identity(plan.suite),
        sources=_sources_of_suite(plan),
        options=plan.suite.report,
    )


def directory_report(root: Path) -> Report:
    """All records of a results directory, or of a file of `kdbench export`; teachers without students of their own are left out.

    Raises:
        KdbenchError: there are none, or they are of another protocol.
    """
    root = expanded(root)
    if is_export(root):
        results, curves = read_export(root)
        return _all_trials(results, curves, root, ReportIdentity(root.stem, suite=str(root), place="file"))
    Store(root, protocol=PROTOCOL).refuse_foreign_protocols()
    results = read_records(root)
    return _all_trials(
        results, load_curves(root, results["trial"]), root, ReportIdentity("all", suite="all trials", place="trials")
    )


def _all_trials(results: pd.DataFrame, curves: pd.DataFrame, root: Path, identity: ReportIdentity) -> Report:
    """Of a directory or a file."""
    results = results[results["epochs"] > 0]  # a teacher that was used as it was is no student, even under a student's name
    results = results.sort_values(["dataset", "teacher", "student", "method", "method_params", "seed"], kind="stable")
    taught = results[results["teacher"].notna()]
    return Report(
        title=f"All trials under {root}",
        results=results[results["teacher"].notna() | results["student"].isin(taught["student"])].reset_index(drop=True),
        curves=curves,
        pairs=list(dict.fromkeys(zip(taught["teacher"], taught["student"], strict=True))),
        methods=sorted(results["method"].unique(), key=lambda method: (method != "scratch", method.count("+"), method)),
        reports=(root.parent if is_export(root) else root) / "reports",
        identity=identity,
        sources=NO_SOURCES if is_export(root) else _sources_of_directory(root),
    )


def _sources_of_suite(plan: Plan) -> Sources:
    suite = plan.suite
    name = suite.name if is_shipped(suite.file) else suite.file.name
    of_these = f"  # of it: {suite.selection}" if suite.selection else ""
    return Sources(
        specs={planned.spec.id: planned.spec.model_dump(mode="json") for planned in plan.students},
        environments={planned.spec.id: planned.record.environment.model_dump() for planned in plan.students if planned.record},
        suite_name=suite.file.name,
        suite_text=suite.file.read_text(encoding="utf-8"),
        commands=f"kdbench run {name}{of_these}",
    )


def _sources_of_directory(root: Path) -> Sources:
    records = list(Store(root, protocol=PROTOCOL).records())
    return Sources(
        specs={record.trial: record.spec for record in records},
        environments={record.trial: record.environment.model_dump() for record in records},
    )


def _identity(suite: Suite) -> ReportIdentity:
    ships = is_shipped(suite.file)
    text = f"the suite {suite.name} that ships with kdbench" if ships else str(suite.file)
    place = "shipped" if ships else suite.file.parent.name
    return ReportIdentity(suite.name, suite=text, place=place, content=suite.content, selection=suite.selection)


def print_and_write(
    report: Report, *, directory: Path | None = None, formats: Sequence[str] = (), published: pd.DataFrame | None = None
) -> None:
    """Print the tables, those beside `published` numbers too where they are given, write the report, and say where its files are.

    Raises:
        KdbenchError: no trial is done, they are not comparable, an unknown format, or a directory that cannot be written.
    """
    if not (report.results["status"] == "done").any():
        counts = ", ".join(f"{n} {status}" for status, n in report.results["status"].value_counts().items())
        raise KdbenchError(f"there is nothing to report: no trial is done ({counts}). Start them with `kdbench run`.")
    folder, elsewhere = (expanded(directory), "") if directory else choose_folder(report.reports, report.identity)
    comparison = compare(report.results, pairs=report.pairs, methods=report.methods, options=report.options)
    write = partial(
        write_report,
        comparison,
        report.curves,
        title=report.title,
        formats=formats or FORMATS,
        published=published,
        sources=report.sources,
    )
    try:
        files, removed = write_into(folder, report.identity, lambda staged: write(directory=staged), chosen_by_user=bool(directory))
    except OSError as problem:
        raise KdbenchError(f"the report cannot be written to {folder} ({problem.strerror}). Choose --output.") from None
    # What is no terminal has no width: nothing is cut off in a file.
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    console.print(
        terminal_tables(
            comparison,
            title=report.title,
            published=published,
            width=min(console.width, shutil.get_terminal_size().columns),
        )
    )
    if elsewhere:
        print(elsewhere)
    if removed:
        print(f"removed, from the earlier report: {', '.join(file.name for file in removed)}")
    for file in files:
        print(file)
