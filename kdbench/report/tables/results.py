"""The table of the metric by pair and method, and that of the best test epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.report.compare import Comparison, PairTrials, ranked_at
from kdbench.report.differences import means_of_pairs
from kdbench.report.notes import footnotes
from kdbench.report.one_class import no_better_notes
from kdbench.report.tables.cells import mean_and_std, mean_cell, on_data, short_count
from kdbench.report.tables.gains import confidence_interval
from kdbench.report.tables.marks import mark_notes, marks
from kdbench.report.tables.selection import tested
from kdbench.report.tables.table import NONE, Cell, Row, Table
from kdbench.report.tables.tuning import tuning_notes

_SPREAD = {
    "std": "mean ± standard deviation over seeds",
    "interval": "mean and 95 % interval over seeds",
    "none": "mean over seeds",
}
_TURN = {"fit": None, "pairs": False, "methods": True}


def result_table(comparison: Comparison) -> Table:
    """The metric at the last epoch, mean ± sample standard deviation over seeds; the best mean of a row in bold.

    Raises:
        KdbenchError: a mean over pairs is asked for, and there is one pair.
    """
    metric = comparison.metric
    table = _table(comparison, f"test_{metric.name}", f"{metric.heading} of the last epoch")
    return replace(table, title=comparison.options.caption or table.title)


def best_epoch_table(comparison: Comparison) -> Table:
    """As `result_table`, of the epoch that is best *on the test set*: for comparison with papers that report it, never a result.

    It tells the error, or the accuracy where that is compared.
    """
    metric = tested(comparison.metric)
    at_best = comparison.of(replace(metric, column="best_test_error_pct"))
    at_best = replace(at_best, options=comparison.options.model_copy(update={"significance": False}))  # a choice by test images
    title = f"{metric.heading} of the best test epoch (not a valid selection)"
    return _table(at_best, "best_test_epoch_not_a_valid_selection", title)


def _table(comparison: Comparison, name: str, title: str) -> Table:
    metric, options, labels = comparison.metric, comparison.options, comparison.labels
    rows, partial, weak, heading = [], False, [], ""
    for pair in comparison.pairs:
        planned = pair.trials["seed"].nunique()
        found = marks(comparison, pair)
        cells = [replace(_with_spread(pair.by_seed(label), planned, comparison), mark=found.get(label, "")) for label in labels]
        cells = _ranked(cells, comparison, [pair.best(rank=rank) for rank in (1, 2)])
        partial |= any(0 < cell.values["n"] < planned for cell in cells)
        teacher = pair.of_teacher
        if metric.gain(teacher.mean(), over=pair.by_seed(comparison.scratch).mean()) < 0:
            weak.append(pair.name)
        of_teacher = [_with_spread(teacher, len(teacher), comparison)] if metric.teacher_column else []
        whole = (*_about(comparison, pair), *of_teacher, *cells)
        keys = {"dataset": pair.dataset, "teacher": pair.teacher, "student": pair.student}
        rows.append(Row(whole, keys, heading=pair.heading if pair.heading != heading else ""))
        heading = pair.heading
    notes = footnotes(comparison.results)
    if partial:
        notes.insert(1, "(k/n): only k of n seeds are done. Methods are ranked over the seeds that most of them share.")
    if options.mean:
        rows.append(_mean_row(comparison, rows))
        over = ". In a pair it is over the seeds that most of the methods share" if partial else ""
        notes.insert(1, f"Mean: over the {len(comparison.pairs)} pairs, each of which counts the same{over}.")
    if weak:
        student = "the student from scratch" if comparison.scratch == "scratch" else comparison.scratch
        notes.append(f"The teacher has a {metric.worse} {metric.noun} than {student}: {', '.join(weak)}.")
    notes += [*no_better_notes(comparison), *_without_gains(comparison)]
    every = [cell for row in rows for cell in row.cells]
    if any(cell.bold for cell in every):
        second = ", and an underlined number the second best" if any(cell.underlined for cell in every) else ""
        each = " of each pair" if len(comparison.pairs) > 1 else ""
        notes.insert(0, f"Bold marks the {metric.best} mean{each}{second}. It says nothing of chance.")
    notes += [*mark_notes(comparison, every), *tuning_notes(comparison)]
    alone = max((cell.values.get("n", 0) for cell in every), default=0) == 1
    about = (*(["Dataset"] if len(comparison.datasets) > 1 else []), "Teacher", "Student")
    sizes = ("Parameters (T / S)", "MACs (T / S)") if options.sizes else ()
    heading_of_teacher = (options.names.get("teacher", f"Teacher {metric.short}"),) if metric.teacher_column else ()
    columns = (*about, *sizes, *heading_of_teacher, *labels)
    before = len(columns) - len(labels)
    return Table(
        name,
        f"{title}{on_data(comparison)}, {'one seed' if alone else _SPREAD[options.spread]}",
        columns,
        tuple(rows),
        tuple(notes),
        naming=len(about),
        groups=(*[""] * before, *(comparison.headings[label] for label in labels)) if any(comparison.headings.values()) else (),
        parts=(before + (labels[0] == comparison.scratch),) if len(labels) > 2 else (),  # of two, a line would part nothing
        turn=_TURN[options.rows],
    )


def _about(comparison: Comparison, pair: PairTrials) -> list[Cell]:
    dataset = [pair.dataset] if len(comparison.datasets) > 1 else []
    sizes = [_both(pair, "params"), _both(pair, "macs")] if comparison.options.sizes else []
    return [Cell(text) for text in (*dataset, pair.teacher, pair.student, *sizes)]


def _with_spread(values: pd.Series[float], planned: int, comparison: Comparison) -> Cell:
    decimals, spread = comparison.metric.decimals, ""
    if comparison.options.spread == "std" or values.empty:
        return mean_and_std(values, planned, decimals=decimals)
    if comparison.options.spread == "interval" and (bounds := confidence_interval(values).bounds):
        spread = f" ({bounds[0]:.{decimals}f} to {bounds[1]:.{decimals}f})"
    return mean_cell(values, planned, spread=spread, decimals=decimals)


def _ranked(cells: Sequence[Cell], comparison: Comparison, places: Sequence[Sequence[str]]) -> list[Cell]:
    """The cells of the methods, with those marked that are best, and second best where that is asked for."""
    best, second = places
    return [
        replace(cell, bold=label in best, underlined=comparison.options.second_best and label in second)
        for label, cell in zip(comparison.labels, cells, strict=True)
    ]


def _mean_row(comparison: Comparison, rows: Sequence[Row]) -> Row:
    """The means over pairs, of the teacher and of each method that every pair has."""
    if len(comparison.pairs) < 2:
        raise KdbenchError("mean: there is one pair, and a mean over pairs needs several. Leave the option out.")
    teachers = 1 if comparison.metric.teacher_column else 0
    measured = len(comparison.labels) + teachers
    of_teachers = [[row.cells[-measured].values.get("mean", math.nan) for row in rows]] * teachers
    columns = [*of_teachers, *means_of_pairs(comparison).T.to_numpy().tolist()]
    means = [math.fsum(column) / len(rows) for column in columns]
    cells = [
        Cell(NONE) if math.isnan(mean) else Cell(f"{mean:.{comparison.metric.decimals}f}", values={"mean": mean}) for mean in means
    ]
    by_method = pd.Series(means[teachers:], comparison.labels)
    places = [ranked_at(by_method, rank, comparison.metric) for rank in (1, 2)]
    about = [Cell("Mean"), *[Cell("")] * (len(rows[0].cells) - measured - 1)]
    keys = {**dict.fromkeys(rows[0].keys, ""), "teacher": "mean over pairs"}
    return Row((*about, *cells[:teachers], *_ranked(cells[teachers:], comparison, places)), keys, opens_group=True)


def _without_gains(comparison: Comparison) -> list[str]:
    """A sentence on the pairs for which no gain over the baseline can be given."""
    baseline = comparison.baseline
    without = [pair for pair in comparison.pairs if not pair.has(baseline)]
    if not without:
        return []
    where = "" if len(without) == len(comparison.pairs) else f" for {', '.join(pair.name for pair in without)}"
    there = any((pair.trials["label"] == baseline).any() for pair in without)
    lacks = f"has no {comparison.metric.noun}" if there else "is not among the methods"
    return [f"No gain over {baseline} is given{where}, because {baseline} {lacks}."]


def _both(pair: PairTrials, quantity: str) -> str:
    return " / ".join(_usual_count(pair.trials[f"{role}_{quantity}"]) for role in ("teacher", "student"))


def _usual_count(counts: pd.Series[float]) -> str:
    """The commonest count, since a method may deploy a student of another size."""
    usual = counts.dropna().mode()
    return short_count(float(usual.iloc[0])) if len(usual) else NONE
