"""How much better each method is than the baseline, seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from kdbench.report.compare import Comparison
from kdbench.report.differences import gains_over_baseline, share_of_teachers
from kdbench.report.notes import not_done, shared_stages
from kdbench.report.statistics.comparisons import MIN_SEEDS, Comparisons, Difference
from kdbench.report.statistics.quantiles import sidak
from kdbench.report.tables.cells import method_row, on_data, pair_heading
from kdbench.report.tables.table import NONE, Cell, Row, Table
from kdbench.spec.metrics import Metric


class Interval(NamedTuple):
    """A mean of n values and its 95 % confidence interval, None where n is too small for one."""

    mean: float
    bounds: tuple[float, float] | None
    n: int


def confidence_interval(values: pd.Series[float]) -> Interval:
    """Mean and 95 % interval by Student's t, of at least one value."""
    n, mean = len(values), float(values.mean())
    if n < MIN_SEEDS:
        return Interval(mean, None, n)
    half = float(sidak(n - 1, 1)) * float(values.std(ddof=1)) / n**0.5
    return Interval(mean, (mean - half, mean + half), n)


def gain_table(comparison: Comparison) -> Table | None:
    """Each method's gain over the baseline in points of the metric, paired by seed; positive is better.

    The intervals of a pair hold together: over new seeds, and, where it is known which images were wrong, over new test images too.
    Pairs without a trial of the baseline have no rows; None where no pair has one.
    """
    metric, baseline = comparison.metric, comparison.baseline
    found = {pair.name: gains_over_baseline(comparison, pair) for pair in comparison.pairs if pair.has(baseline)}
    if not found:
        return None
    images = has_image_intervals(found.values())
    rows: list[Row] = []
    for pair in comparison.pairs:
        labels = [label for label in comparison.labels if label != baseline and pair.has(label) and pair.name in found]
        for label in labels:
            cells = (Cell(label), *gain_cells(found[pair.name].find(label, baseline), metric, images=images))
            rows.append(method_row(comparison, pair, cells, first=label == labels[0]))
    if not rows:
        return None
    first = f"{baseline} minus that of the method" if metric.lower_is_better else f"the method minus that of {baseline}"
    notes = (
        f"Gain: {metric.noun} of {first}, last epoch, over the n seeds that both have; positive is better.",
        *procedures(found),
        *images_note(comparison, found.values()),
        *by_pair({pair.name: share_of_teachers(comparison, pair) for pair in comparison.pairs}),
        *shared_stages(comparison.results),
        *not_done(comparison.results),
    )
    columns = (*pair_heading(comparison), "Method", f"Gain ({metric.points})", *interval_headings(images=images), "n")
    title = f"Gain over {baseline}{on_data(comparison, with_pair=True)}, paired by seed"
    return Table("gain", title, columns, tuple(rows), notes, naming=columns.index("Method") + 1)


def has_image_intervals(found: Iterable[Comparisons]) -> bool:
    """Whether any of the differences has an interval over new test images."""
    return any(difference.bounds_with_images for comparisons in found for difference in comparisons.differences)


def interval_headings(*, images: bool) -> tuple[str, ...]:
    """Of the columns between the gain and n."""
    return ("95 % interval,\nnew seeds", "95 % interval,\nnew seeds and images") if images else ("95 % interval",)


def gain_cells(gain: Difference | None, metric: Metric, *, images: bool) -> tuple[Cell, ...]:
    """The gain, its interval over new seeds, that over new seeds and images where a column has it, and n."""
    if gain is None:
        intervals = [Cell("n too small"), Cell(NONE)]
        return Cell(NONE, values={"n": 0}), *intervals[: 1 + images], Cell("0", sort_by=0)
    values, intervals = {"mean": gain.gain}, []
    for bounds, suffix, none in ((gain.bounds, "", "n too small"), (gain.bounds_with_images, "_with_images", NONE)):
        if bounds:
            values |= {f"low{suffix}": bounds[0], f"high{suffix}": bounds[1]}
        intervals.append(Cell(metric.interval(bounds), sort_by=bounds[0]) if bounds else Cell(none))
    of_gain = Cell(metric.difference(gain.gain), values=values | {"n": gain.n})
    return of_gain, *intervals[: 1 + images], Cell(str(gain.n), sort_by=gain.n)


def procedures(found: Mapping[str, Comparisons]) -> list[str]:
    """How the intervals of each pair were computed; one sentence for all pairs of which the same is to be said."""
    told = by_pair({name: [comparisons.procedure] for name, comparisons in found.items() if comparisons.differences})
    known = any(difference.bounds for comparisons in found.values() for difference in comparisons.differences)
    return [
        *told,
        *(["Each pair has a family of its own: intervals hold together within a pair."] if known and len(found) > 1 else []),
    ]


def by_pair(sentences: Mapping[str, Sequence[str]]) -> list[str]:
    """What is to be said of pairs: with their names in front, unless it is the same of all."""
    pairs: dict[str, list[str]] = {}
    for name, said in sentences.items():
        for sentence in said:
            pairs.setdefault(sentence, []).append(name)
    return [sentence if len(names) == len(sentences) else f"{', '.join(names)}: {sentence}" for sentence, names in pairs.items()]


def images_note(comparison: Comparison, found: Iterable[Comparisons]) -> list[str]:
    """What the two intervals are over, or why there is one alone."""
    intervals = [difference for comparisons in found for difference in comparisons.differences if difference.bounds]
    if not intervals:
        return []
    if comparison.metric.column != "test_error_pct":
        return ["The intervals are over new seeds and the same test images."]
    trials = comparison.results.loc[comparison.results["status"] == "done", "trial"]
    lacking = len(trials) - int(trials.isin(list(comparison.outcomes)).sum())
    of_some = f"of {lacking} of {len(trials)} trials " if lacking < len(trials) else ""
    if not any(difference.bounds_with_images for difference in intervals):
        why = f": {of_some}it is not known which images were wrong" if lacking else ""
        return [f"The intervals are over new seeds and the same test images{why}."]
    kinds = "New seeds: with the same test images. New seeds and images: with another test set of the same size and kind, too."
    return [kinds, *([f"{of_some.capitalize()}it is not known which images were wrong."] if lacking else [])]
