"""How much better each method is than the baseline, seed by seed."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from scipy.special import stdtrit

from kdbench.report.cells import method_row, on_data, pair_heading
from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.notes import not_done, shared_stages
from kdbench.report.table import NONE, Cell, Row, Table

MIN_PAIRS = 3
"""With fewer values a confidence interval is not worth its name."""


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
    """How much better `label` is than `over` in the metric, over the seeds that both have; None where they share none."""
    gains = pair.metric.gain(pair.by_seed(label), over=pair.by_seed(over)).dropna()
    return confidence_interval(gains, choices=choices) if len(gains) else None


def gain_table(comparison: Comparison) -> Table | None:
    """Each method's gain over the baseline in points of the metric, paired by seed; positive is better.

    Pairs without a trial of the baseline have no rows; None where no pair has one.
    """
    metric, baseline = comparison.metric, comparison.baseline
    rows: list[Row] = []
    too_few_seeds = False
    for pair in comparison.pairs:
        if not pair.has(baseline):
            continue
        labels = [label for label in comparison.labels if label != baseline and pair.has(label)]
        for label in labels:
            gain = paired_gain(pair, label, over=baseline)
            too_few_seeds |= gain is None or gain.bounds is None
            cells = (Cell(label), *_gain_cells(gain))
            rows.append(method_row(comparison, pair, cells, first=label == labels[0]))
    if not rows:
        return None
    first = f"{baseline} minus that of the method" if metric.lower_is_better else f"the method minus that of {baseline}"
    notes = (
        f"Gain: {metric.noun} of {first}, last epoch, over the n seeds that both have; positive is better.",
        "Intervals: Student's t on the paired differences, each method by itself, without correction for the number of methods.",
        *([f"n too small: fewer than {MIN_PAIRS} seeds in common."] if too_few_seeds else []),
        *shared_stages(comparison.results),
        *not_done(comparison.results),
    )
    columns = (*pair_heading(comparison), "Method", f"Gain ({metric.points})", "95 % interval", "n")
    title = f"Gain over {baseline}{on_data(comparison, with_pair=True)}, paired by seed"
    return Table("gain", title, columns, tuple(rows), notes, naming=columns.index("Method") + 1)


def _gain_cells(gain: Interval | None) -> tuple[Cell, Cell, Cell]:
    if gain is None:
        return Cell(NONE, values={"n": 0}), Cell("n too small"), Cell("0")
    values = {"mean": gain.mean}
    interval = "n too small"
    if gain.bounds is not None:
        values |= {"low": gain.bounds[0], "high": gain.bounds[1]}
        interval = "{:+.2f} to {:+.2f}".format(*gain.bounds)
    return Cell(f"{gain.mean:+.2f}", values=values | {"n": gain.n}), Cell(interval), Cell(str(gain.n))
