"""The marks of methods that differ from the baseline beyond chance, and what they mean."""

from __future__ import annotations

from collections.abc import Iterable

from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.gains import paired_gain
from kdbench.report.table import Cell

BETTER, WORSE = "*", "†"


def mark_of(comparison: Comparison, pair: PairTrials, label: str) -> str:
    """The mark of a method that is better or worse than the baseline in every value of its interval, where marks are asked for."""
    if not comparison.options.significance or label == comparison.baseline:
        return ""
    gain = paired_gain(pair, label, over=comparison.baseline)
    if gain is None or gain.bounds is None:
        return ""
    low, high = gain.bounds
    return BETTER if low > 0 else WORSE if high < 0 else ""


def mark_notes(comparison: Comparison, cells: Iterable[Cell]) -> list[str]:
    """What the marks of these cells mean; that there are none, where they are asked for."""
    if not comparison.options.significance:
        return []
    found, baseline = {cell.mark for cell in cells}, comparison.baseline
    meanings = [f"{mark} {word} than {baseline}" for mark, word in ((BETTER, "better"), (WORSE, "worse")) if mark in found]
    if not meanings:
        return [f"No method differs from {baseline} beyond chance: every 95 % interval of a gain has 0 in it."]
    return [f"{', '.join(meanings)} beyond chance: the 95 % interval of the gain leaves out 0. The table of gains gives it."]
