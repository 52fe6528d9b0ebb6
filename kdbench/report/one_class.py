"""Which networks are no better than one that always answers the same class: ranks among these say nothing."""

from __future__ import annotations

import math

from kdbench.report.compare import Comparison, PairTrials

_ROUNDING = 1e-9
"""By how much the mean of equal floating-point numbers may differ from them."""


def one_class(pair: PairTrials) -> float:
    """The test error of always answering the class with the most test images, or its accuracy; NaN where that is not known, or
    another metric is compared."""
    metric = pair.metric
    return float(metric.of(pair.done["one_class_error_pct"].max())) if metric.column == "test_error_pct" else math.nan


def _is_no_better(pair: PairTrials, mean: float) -> bool:
    return pair.metric.gain(mean, over=one_class(pair)) < _ROUNDING


def no_better_clause(pair: PairTrials, mean: float) -> str:
    """What a sentence adds behind a mean that is no better; empty for others."""
    told = f", which is no better than always answering one class ({pair.metric.text(one_class(pair))})"
    return told if _is_no_better(pair, mean) else ""


def no_better_notes(comparison: Comparison) -> list[str]:
    """Sentences that name the teachers and methods of each pair that are no better; none where there are none."""
    found: dict[str, list[str]] = {}
    for pair in comparison.pairs:
        means = {"the teacher": pair.of_teacher.mean(), **{label: pair.by_seed(label).mean() for label in comparison.labels}}
        if names := ", ".join(name for name, mean in means.items() if _is_no_better(pair, mean)):
            named = f"{pair.name} ({names})" if len(comparison.pairs) > 1 else names
            found.setdefault(pair.metric.text(one_class(pair)), []).append(named)
    advice = "What has learnt nothing can be neither ranked nor learnt from: train longer, or lower the learning rate"
    return [f"No better than always answering one class ({level}): {', '.join(named)}. {advice}." for level, named in found.items()]
