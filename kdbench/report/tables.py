"""The tables of a comparison, as values that know nothing of Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd
from scipy.special import stdtrit

from kdbench.report.compare import Comparison, PairTrials, compare
from kdbench.report.notes import footnotes, not_done, shared_stages

MIN_PAIRS = 3
"""With fewer values a confidence interval is not worth its name."""

NONE = "—"


@dataclass(frozen=True)
class Cell:
    """`text` is for readers; `values` are the numbers behind it, unrounded, for machines."""

    text: str
    bold: bool = False
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One cell for each column; `keys` name the row for machines; `opens_group` asks for a line above it."""

    cells: tuple[Cell, ...]
    keys: Mapping[str, str] = field(default_factory=dict)
    opens_group: bool = False


@dataclass(frozen=True)
class Table:
    """`name` serves as a file name and a label; `notes` belong under the table; the first `naming` columns name their row."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    naming: int = 1

    def turned(self) -> Table:
        """Rows as columns, for a table that is too wide to print."""
        head, *body = zip(self.columns, *([cell for cell in row.cells] for row in self.rows), strict=True)
        columns = tuple(cell.text if isinstance(cell, Cell) else cell for cell in head)
        rows = tuple(Row(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)) for cells in body)
        return Table(self.name, self.title, columns, rows, self.notes)


class Interval(NamedTuple):
    """A mean of n values and its 95 % confidence interval, None where n is too small for one."""

    mean: float
    bounds: tuple[float, float] | None
    n: int


def confidence_interval(values: pd.Series[float], *, choices: int = 1) -> Interval:
    """Mean and 95 % interval by Student's t, of at least one value; by Bonferroni for what was chosen among so many `choices`."""
    n, mean = len(values), float(values.mean())
    if n < MIN_PAIRS:
        return Interval(mean, None, n)
    half = float(stdtrit(n - 1, 1 - 0.025 / choices)) * float(values.std(ddof=1)) / n**0.5
    return Interval(mean, (mean - half, mean + half), n)


def paired_gain(pair: PairTrials, label: str, *, over: str, choices: int = 1) -> Interval | None:
    """Test error of `over` minus that of `label`, percentage points, over the seeds that both have; None where they share none."""
    gains = (pair.by_seed(over) - pair.by_seed(label)).dropna()
    return confidence_interval(gains, choices=choices) if len(gains) else None


def error_table(results: pd.DataFrame, *, pairs: Sequence[tuple[str, str]], methods: Sequence[str] = ()) -> Table:
    """Test error of the last epoch in percent, mean ± sample standard deviation over seeds; the lowest mean of a row in bold.

    Raises:
        KdbenchError: the trials are not comparable, or a pair has none.
    """
    comparison = compare(results, pairs=pairs, methods=methods)
    return _errors(comparison, "test_error_pct", "test_error", "Test error (%) of the last epoch")


def best_epoch_table(results: pd.DataFrame, *, pairs: Sequence[tuple[str, str]], methods: Sequence[str] = ()) -> Table:
    """As `error_table`, of the epoch that is best *on the test set*: for comparison with papers that report it, never a result.

    Raises:
        KdbenchError: the trials are not comparable, or a pair has none.
    """
    comparison = compare(results, pairs=pairs, methods=methods)
    title = "Test error (%) of the best test epoch (not a valid selection)"
    return _errors(comparison, "best_test_error_pct", "best_test_epoch_not_a_valid_selection", title)


def _errors(comparison: Comparison, column: str, name: str, title: str) -> Table:
    several = len(comparison.datasets) > 1
    rows, partial, weak = [], False, []
    for pair in comparison.pairs:
        planned = pair.trials["seed"].nunique()
        ranked = pair.ranked(column).round(2)
        cells = [mean_and_std(pair.by_seed(label, column), planned) for label in comparison.labels]
        lowest = set(ranked.index[ranked == ranked.min()]) if len(ranked) > 1 else set()
        errors = [replace(cell, bold=label in lowest) for label, cell in zip(comparison.labels, cells, strict=True)]
        partial |= any(0 < cell.values["n"] < planned for cell in errors)
        about = [pair.dataset] if several else []
        about += [pair.teacher, pair.student, _both(pair, "params"), _both(pair, "macs")]
        teacher = pair.teacher_errors
        if teacher.mean() > pair.by_seed("scratch").mean():
            weak.append(pair.name)
        whole = (*map(Cell, about), mean_and_std(teacher, len(teacher)), *errors)
        rows.append(Row(whole, {"dataset": pair.dataset, "teacher": pair.teacher, "student": pair.student}))
    notes = footnotes(comparison.results)
    if partial:
        notes.insert(1, "(k/n): only k of n seeds are done. Methods are ranked over the seeds that most of them share.")
    if weak:
        notes.append(f"The teacher has a higher test error than the student from scratch: {', '.join(weak)}.")
    notes += _without_gains(comparison)
    if any(cell.bold for row in rows for cell in row.cells):
        notes.insert(0, "Bold marks the lowest mean of each pair. The difference from the other methods may be chance.")
    columns = ("Teacher", "Student", "Parameters (T / S)", "MACs (T / S)", "Teacher error", *comparison.labels)
    if several:
        columns = ("Dataset", *columns)
    title = f"{title}{on_data(comparison)}, mean ± standard deviation over seeds"
    return Table(name, title, columns, tuple(rows), tuple(notes), naming=columns.index("Student") + 1)


def _without_gains(comparison: Comparison) -> list[str]:
    """A sentence on the pairs for which no gain over scratch can be given."""
    without = [pair.name for pair in comparison.pairs if not pair.has("scratch")]
    if not without:
        return []
    where = "" if len(without) == len(comparison.pairs) else f" for {', '.join(without)}"
    return [f"No gain over scratch is given{where}, because scratch is not among the methods."]


def on_data(comparison: Comparison, *, with_pair: bool = False) -> str:
    """What a title adds where there is one data set, and one pair."""
    dataset = f" on {comparison.datasets[0]}" if len(comparison.datasets) == 1 else ""
    return dataset + (f", {comparison.pairs[0].name}" if with_pair and len(comparison.pairs) == 1 else "")


def mean_and_std(errors: pd.Series[float], planned: int) -> Cell:
    """Mean ± sample standard deviation of the finished ones of `planned` trials."""
    n = len(errors)
    if not n:
        return Cell(NONE, values={"n": 0})
    values = {"mean": float(errors.mean()), "std": float(errors.std(ddof=1)), "n": n}
    spread = f" ± {values['std']:.2f}" if n > 1 else ""
    return Cell(f"{values['mean']:.2f}{spread}" + (f" ({n}/{planned})" if n < planned else ""), values=values)


def _both(pair: PairTrials, quantity: str) -> str:
    return " / ".join(_usual_count(pair.trials[f"{role}_{quantity}"]) for role in ("teacher", "student"))


def _usual_count(counts: pd.Series[float]) -> str:
    """The commonest count, since a method may deploy a student of another size."""
    usual = counts.dropna().mode()
    return short_count(float(usual.iloc[0])) if len(usual) else NONE


def short_count(count: float) -> str:
    """`0.27M`, `40.8M`, `1.08G`: three digits, or two decimals; counts below 10,000 in full."""
    if count < 10_000:
        return f"{count:,.0f}"
    scaled, unit = (count / 1e9, "G") if count >= 1e9 else (count / 1e6, "M")
    return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{unit}"


def gain_table(results: pd.DataFrame, *, pairs: Sequence[tuple[str, str]], methods: Sequence[str] = ()) -> Table | None:
    """Each method's gain over scratch in percentage points of test error, paired by seed; positive is better.

    Pairs without a trial of scratch have no rows; None where no pair has one.

    Raises:
        KdbenchError: the trials are not comparable, or a pair has none.
    """
    comparison = compare(results, pairs=pairs, methods=methods)
    rows: list[Row] = []
    too_few_seeds = False
    for pair in comparison.pairs:
        if not pair.has("scratch"):
            continue
        labels = [label for label in comparison.labels if label != "scratch" and pair.has(label)]
        for label in labels:
            gain = paired_gain(pair, label, over="scratch")
            too_few_seeds |= gain is None or gain.bounds is None
            cells = (Cell(label), *_gain_cells(gain))
            rows.append(method_row(comparison, pair, cells, first=label == labels[0]))
    if not rows:
        return None
    notes = (
        "Gain: test error of scratch minus that of the method, last epoch, over the n seeds that both have; positive is better.",
        "Intervals: Student's t on the paired differences, each method by itself, without correction for the number of methods.",
        *([f"n too small: fewer than {MIN_PAIRS} seeds in common."] if too_few_seeds else []),
        *shared_stages(comparison.results),
        *not_done(comparison.results),
    )
    columns = (*pair_heading(comparison), "Method", "Gain (points)", "95 % interval", "n")
    title = f"Gain over scratch{on_data(comparison, with_pair=True)}, paired by seed"
    return Table("gain", title, columns, tuple(rows), notes, naming=columns.index("Method") + 1)


def pair_heading(comparison: Comparison) -> tuple[str, ...]:
    """The first column's heading where there are several pairs."""
    return ("Pair",) if len(comparison.pairs) > 1 else ()


def method_row(comparison: Comparison, pair: PairTrials, cells: tuple[Cell, ...], *, first: bool, **keys: str) -> Row:
    """A row that opens with the name of its pair where it is the `first` of several pairs' rows; the method is its first cell."""
    name = (Cell(pair.name if first else ""),) if len(comparison.pairs) > 1 else ()
    keys = {"dataset": pair.dataset, "teacher": pair.teacher, "student": pair.student, "method": cells[0].text, **keys}
    return Row((*name, *cells), keys, opens_group=first and pair is not comparison.pairs[0])


def _gain_cells(gain: Interval | None) -> tuple[Cell, Cell, Cell]:
    if gain is None:
        return Cell(NONE, values={"n": 0}), Cell("n too small"), Cell("0")
    values = {"mean": gain.mean}
    interval = "n too small"
    if gain.bounds is not None:
        values |= {"low": gain.bounds[0], "high": gain.bounds[1]}
        interval = "{:+.2f} to {:+.2f}".format(*gain.bounds)
    return Cell(f"{gain.mean:+.2f}", values=values | {"n": gain.n}), Cell(interval), Cell(str(gain.n))


def claims(results: pd.DataFrame, *, pairs: Sequence[tuple[str, str]], methods: Sequence[str] = ()) -> list[str]:
    """For each pair the method with the lowest mean error, its gain over scratch and over the next, and how sure these are.

    Methods are ranked over the same seeds, and the intervals are Bonferroni's for the best of so many methods.

    Raises:
        KdbenchError: the trials are not comparable, or a pair has none.
    """
    comparison = compare(results, pairs=pairs, methods=methods)
    return [f"{pair.name}{on_data(comparison)}: {_claim(comparison, pair)}" for pair in comparison.pairs]


def _claim(comparison: Comparison, pair: PairTrials) -> str:
    done = {label: errors.mean() for label in comparison.labels if len(errors := pair.by_seed(label))}
    if not done:
        return "no trial is done."
    means = pair.ranked().sort_values(kind="stable")
    if len(means) < 2:
        alone = "there is no other method" if len(done) == 1 else "no other method is done for the same seeds"
        return f"{means.index[0]} has a mean test error of {means.iloc[0]:.2f} %, and {alone}."
    first = [label for label, mean in means.items() if round(mean, 2) == round(means.iloc[0], 2)]
    best, level = str(first[0]), f"the lowest mean test error of {len(means)} methods, {means.iloc[0]:.2f} %."
    unbeaten, tie = first == ["scratch"], len(first) > 1
    shared = f"{', '.join(map(str, first[:-1]))} and {first[-1]} share"
    sentences = [f"{shared if tie else 'No method beat scratch, which has' if unbeaten else f'{best} has'} {level}"]
    named = (*means.index[len(first) :][:1], "scratch")
    rivals = dict.fromkeys(str(label) for label in named if label in done and label not in first)
    choices = len({*means.index, *rivals}) - 1
    for rival in rivals:
        name = rival if rival == "scratch" else f"{rival}, the next"
        gain = paired_gain(pair, best, over=rival, choices=choices)
        mean, of = means.get(rival, done[rival]), f" of {best}" if tie else ""
        sentences.append(
            f"{'Lead' if unbeaten else 'Gain'}{of} over {name} ({mean:.2f} %): {_how_sure(gain, methods=choices + 1)}."
        )
    chosen = pair.ranked("validation_error_pct").round(2)
    lowest = [str(label) for label in chosen.index[chosen == chosen.min()]] if len(chosen) > 1 else []
    if lowest and not set(lowest) & set(first):
        best_validated = ", ".join(f"{label} (test error {means.get(label, done[label]):.2f} %)" for label in lowest)
        sentences.append(f"The lowest mean validation error: {best_validated}.")
    if unranked := [label for label in done if label not in means]:
        sentences.append(f"Not ranked, since seeds are missing: {', '.join(unranked)}.")
    return " ".join(sentences)


def _how_sure(gain: Interval | None, *, methods: int) -> str:
    if gain is None:
        return "no seed in common"
    if gain.bounds is None:
        return f"{gain.mean:+.2f} points, n = {gain.n}, too small to tell it from chance"
    low, high = gain.bounds
    doubt = "" if low > 0 else ", which may be chance"
    chosen = f" for the best of {methods}" if methods > 2 else ""
    return f"{gain.mean:+.2f} points, 95 % interval{chosen} {low:+.2f} to {high:+.2f}, n = {gain.n}{doubt}"
