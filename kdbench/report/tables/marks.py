"""The marks of methods that differ from the baseline beyond chance, and what they mean."""

from __future__ import annotations

from collections.abc import Iterable

from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.differences import gains_over_baseline
from kdbench.report.tables.table import Cell

BETTER, WORSE = "*", "†"


def marks(comparison: Comparison, pair: PairTrials) -> dict[str, str]:
    """The mark of each method whose interval says that it is better or worse than the baseline, where marks are asked for."""
    if not comparison.options.significance:
        return {}
    gains = gains_over_baseline(comparison, pair).differences
    return {gain.method: BETTER if gain.gain > 0 else WORSE for gain in gains if gain.beyond_chance}


def mark_notes(comparison: Comparison, cells: Iterable[Cell]) -> list[str]:
    """What the marks of these cells mean; that there are none, where they are asked for."""
    if not comparison.options.significance:
        return []
    found, baseline = {cell.mark for cell in cells}, comparison.baseline
    meanings = [f"{mark} {word} than {baseline}" for mark, word in ((BETTER, "better"), (WORSE, "worse")) if mark in found]
    if not meanings:
        return [_why_none(comparison)]
    return [f"{', '.join(meanings)} beyond chance: the 95 % interval of the gain leaves out 0. The table of gains gives it."]


def _why_none(comparison: Comparison) -> str:
    """Why no cell is marked: no gain is beyond chance, or that cannot be said."""
    baseline = comparison.baseline
    gains = [gain for pair in comparison.pairs for gain in gains_over_baseline(comparison, pair).differences]
    small = sum(gain.bounds is None for gain in gains)
    if not gains:
        return f"No method is marked, because there is no gain over {baseline}."
    if small == len(gains):
        return f"No method is marked, because n is too small to tell a gain over {baseline} from chance."
    if small:
        unsure = f"For {small} of {len(gains)} gains over {baseline}, n is too small to tell them from chance."
        return f"No method is marked. {unsure} Every other 95 % interval of a gain has 0 in it."
    return f"No method differs from {baseline} beyond chance: every 95 % interval of a gain has 0 in it."
