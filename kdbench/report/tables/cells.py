"""Cells, rows and words that several tables share."""

from __future__ import annotations

import math

import pandas as pd

from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.tables.table import NONE, Cell, Row


def on_data(comparison: Comparison, *, with_pair: bool = False) -> str:
    """What a title adds where there is one data set, and one pair."""
    dataset = f" on {comparison.datasets[0]}" if len(comparison.datasets) == 1 else ""
    return dataset + (f", {comparison.pairs[0].name}" if with_pair and len(comparison.pairs) == 1 else "")


def mean_and_std(values: pd.Series[float], planned: int, *, decimals: int) -> Cell:
    """Mean ± sample standard deviation of the finished ones of `planned` trials."""
    if not len(values):
        return Cell(NONE, values={"n": 0})
    spread = f" ± {values.std(ddof=1):.{decimals}f}" if len(values) > 1 else ""
    return mean_cell(values, planned, spread=spread, decimals=decimals)


def mean_cell(values: pd.Series[float], planned: int, *, spread: str, decimals: int) -> Cell:
    """The mean of the finished ones of `planned` trials, of which there are some, and what is written behind it."""
    n = len(values)
    numbers = {"mean": float(values.mean()), "std": float(values.std(ddof=1)), "n": n}
    return Cell(f"{numbers['mean']:.{decimals}f}{spread}" + (f" ({n}/{planned})" if n < planned else ""), values=numbers)


def short_count(count: float) -> str:
    """`0.27M`, `40.8M`, `1.08G`: three digits, or two decimals; counts below 10,000 in full."""
    if count < 10_000:
        return f"{count:,.0f}"
    scaled, unit = (count / 1e9, "G") if count >= 1e9 else (count / 1e6, "M")
    return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{unit}"


def pair_heading(comparison: Comparison) -> tuple[str, ...]:
    """The first column's heading where there are several pairs."""
    return ("Pair",) if len(comparison.pairs) > 1 else ()


def method_row(comparison: Comparison, pair: PairTrials, cells: tuple[Cell, ...], *, first: bool, **keys: str) -> Row:
    """A row that opens with the name of its pair where it is the `first` of several pairs' rows; the method is its first cell."""
    name = (Cell(pair.name if first else ""),) if len(comparison.pairs) > 1 else ()
    keys = {"dataset": pair.dataset, "teacher": pair.teacher, "student": pair.student, "method": cells[0].text, **keys}
    return Row((*name, *cells), keys, opens_group=first and pair is not comparison.pairs[0])


def percent(share: float) -> Cell:
    """A share in percent; nothing where it is not known."""
    return Cell(NONE) if math.isnan(share) else Cell(f"{share:.1f}", values={"share_pct": float(share)})


def held_out_notes(trials: pd.DataFrame, short: str = "error") -> list[str]:
    """What one held-out image is in points of the error, or of what else `short` names; none where that is not known."""
    notes = []
    for images in trials["validation_images"].dropna().unique():
        points = 100 / images
        told = f"{points:.2f}" if points > 0.1 else f"{points:.1g}"
        notes.append(f"One of {images:,.0f} held-out images is {told} points of the {short} with one seed.")
    return notes
