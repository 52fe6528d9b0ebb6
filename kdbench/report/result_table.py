"""The table of the metric by pair and method, and that of the best test epoch."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from kdbench.report.cells import mean_and_std, on_data, short_count
from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.notes import footnotes
from kdbench.report.selection import tested
from kdbench.report.table import NONE, Cell, Row, Table


def result_table(comparison: Comparison) -> Table:
    """The metric at the last epoch, mean ± sample standard deviation over seeds; the best mean of a row in bold."""
    metric = comparison.metric
    return _table(comparison, f"test_{metric.name}", f"{metric.heading} of the last epoch")


def best_epoch_table(comparison: Comparison) -> Table:
    """As `result_table`, of the epoch that is best *on the test set*: for comparison with papers that report it, never a result.

    It tells the error, or the accuracy where that is compared.
    """
    metric = tested(comparison.metric)
    at_best = comparison.of(replace(metric, column="best_test_error_pct"))
    title = f"{metric.heading} of the best test epoch (not a valid selection)"
    return _table(at_best, "best_test_epoch_not_a_valid_selection", title)


def _table(comparison: Comparison, name: str, title: str) -> Table:
    metric = comparison.metric
    several = len(comparison.datasets) > 1
    rows, partial, weak = [], False, []
    for pair in comparison.pairs:
        planned = pair.trials["seed"].nunique()
        cells = [mean_and_std(pair.by_seed(label), planned) for label in comparison.labels]
        best = pair.best()
        cells = [replace(cell, bold=label in best) for label, cell in zip(comparison.labels, cells, strict=True)]
        partial |= any(0 < cell.values["n"] < planned for cell in cells)
        about = [pair.dataset] if several else []
        about += [pair.teacher, pair.student, _both(pair, "params"), _both(pair, "macs")]
        teacher = pair.of_teacher
        if metric.gain(teacher.mean(), over=pair.by_seed("scratch").mean()) < 0:
            weak.append(pair.name)
        whole = (*map(Cell, about), mean_and_std(teacher, len(teacher)), *cells)
        rows.append(Row(whole, {"dataset": pair.dataset, "teacher": pair.teacher, "student": pair.student}))
    notes = footnotes(comparison.results)
    if partial:
        notes.insert(1, "(k/n): only k of n seeds are done. Methods are ranked over the seeds that most of them share.")
    if weak:
        notes.append(f"The teacher has a {metric.worse} {metric.noun} than the student from scratch: {', '.join(weak)}.")
    notes += _without_gains(comparison)
    if any(cell.bold for row in rows for cell in row.cells):
        notes.insert(0, f"Bold marks the {metric.best} mean of each pair. The difference from the other methods may be chance.")
    columns = ("Teacher", "Student", "Parameters (T / S)", "MACs (T / S)", f"Teacher {metric.short}", *comparison.labels)
    if several:
        columns = ("Dataset", *columns)
    title = f"{title}{on_data(comparison)}, mean ± standard deviation over seeds"
    return Table(name, title, columns, tuple(rows), tuple(notes), naming=columns.index("Student") + 1)


def _without_gains(comparison: Comparison) -> list[str]:
    """A sentence on the pairs for which no gain over the baseline can be given."""
    baseline = comparison.baseline
    without = [pair.name for pair in comparison.pairs if not pair.has(baseline)]
    if not without:
        return []
    where = "" if len(without) == len(comparison.pairs) else f" for {', '.join(without)}"
    return [f"No gain over {baseline} is given{where}, because {baseline} is not among the methods."]


def _both(pair: PairTrials, quantity: str) -> str:
    return " / ".join(_usual_count(pair.trials[f"{role}_{quantity}"]) for role in ("teacher", "student"))


def _usual_count(counts: pd.Series[float]) -> str:
    """The commonest count, since a method may deploy a student of another size."""
    usual = counts.dropna().mode()
    return short_count(float(usual.iloc[0])) if len(usual) else NONE
