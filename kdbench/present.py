"""From records to what a person reads: tables on the terminal, a report in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import rich

from kdbench.plan import Plan
from kdbench.report import FORMATS, terminal_tables, write_report
from kdbench.results import frame, load_curves, load_results, row_without_record
from kdbench.store import Store


@dataclass(frozen=True)
class Comparison:
    """What a report is made of; `directory` is where it goes unless another is asked for."""

    title: str
    results: pd.DataFrame
    curves: pd.DataFrame
    pairs: Sequence[tuple[str, str]]
    methods: Sequence[str]
    directory: Path


def of_plan(plan: Plan, store: Store) -> Comparison:
    """The trials of a suite, those that are not done among them."""
    results = frame([planned.record for planned in plan.students if planned.record])
    missing = [row_without_record(planned.spec, plan.suite.name) for planned in plan.students if not planned.record]
    results = pd.concat([results, pd.DataFrame(missing, columns=results.columns)]) if missing else results
    return Comparison(
        title=plan.suite.title,
        results=results.reset_index(drop=True),
        curves=load_curves(store.root, results["trial"]),
        pairs=plan.suite.pairs,
        methods=plan.suite.methods,
        directory=store.root / "reports" / plan.suite.name,
    )


def of_directory(root: Path) -> Comparison:
    """All records of a results directory; teachers without students of their own are left out.

    Raises:
        KdbenchError: there are none.
    """
    results = load_results(root)
    taught = results[results["teacher"].notna()]
    return Comparison(
        title=f"All trials under {root.name}",
        results=results[results["teacher"].notna() | results["student"].isin(taught["student"])].reset_index(drop=True),
        curves=load_curves(root, results["trial"]),
        pairs=list(dict.fromkeys(zip(taught["teacher"], taught["student"], strict=True))),
        methods=(),
        directory=root / "reports" / "all",
    )


def show(comparison: Comparison, *, directory: Path | None = None, formats: Sequence[str] = ()) -> None:
    """Print the tables, write the report, and say where its files are.

    Raises:
        KdbenchError: trials that are not comparable, or an unknown format.
    """
    files = write_report(
        comparison.results,
        comparison.curves,
        title=comparison.title,
        directory=directory or comparison.directory,
        formats=formats or FORMATS,
        pairs=comparison.pairs,
        methods=comparison.methods,
    )
    rich.print(terminal_tables(comparison.results, pairs=comparison.pairs, title=comparison.title, methods=comparison.methods))
    for file in files:
        print(file)
