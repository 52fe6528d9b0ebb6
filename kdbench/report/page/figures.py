"""What the figures of the page draw: numbers of a comparison, by pair and method."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.differences import gains_over_baseline
from kdbench.report.figures.cost_front import pareto_front, time_unit
from kdbench.report.figures.looks import looks_of
from kdbench.report.tables.selection import tested
from kdbench.report.timing import stacked

MOST_POINTS = 100
"""Epochs of a curve that the page holds; of a longer training they are evenly spread, the first and the last among them."""

_SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "<": "triangle-left",
    ">": "triangle-right",
}
"""Vega's names of matplotlib's markers."""


def looks(comparison: Comparison) -> list[dict[str, Any]]:
    """How each method is drawn, as in all figures."""
    return [
        {"label": label, "colour": look.colour, "shape": _SHAPES[look.marker], "dashes": look.dashes}
        for label, look in looks_of(comparison).items()
    ]


def pair_data(comparison: Comparison, pair: PairTrials, curves: pd.DataFrame) -> dict[str, Any]:
    """The numbers of one pair: the seeds of each method, the gains, the mean curves, and the cost."""
    teacher = pair.of_teacher
    return {
        "name": pair.name,
        "teacher": float(teacher.mean()) if len(teacher) else None,
        "results": [_seeds(pair, label) for label in comparison.labels if len(pair.by_seed(label))],
        "gains": _gains(comparison, pair),
        "curves": _mean_curves(pair, curves),
        "cost": _cost(pair),
    }


def _seeds(pair: PairTrials, label: str) -> dict[str, Any]:
    values = pair.by_seed(label)
    seeds = [list(seen) for seen in zip(values.index.tolist(), values.tolist(), strict=True)]
    return {"method": label, "seeds": seeds, "mean": float(values.mean()), "n": len(values)}


def _gains(comparison: Comparison, pair: PairTrials) -> list[dict[str, Any]]:
    """What each method gains over the baseline, with the intervals of the table of gains."""
    return [
        {"method": one.method, "gain": one.gain, "seeds": one.bounds, "images": one.bounds_with_images, "n": one.n}
        for one in gains_over_baseline(comparison, pair).differences
    ]


def _mean_curves(pair: PairTrials, curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds at each epoch that was tested."""
    if curves.empty:
        return []
    main = curves[(curves["stage"] == "main") & curves["test_error_pct"].notna()]
    main = main.assign(value=tested(pair.metric).of(main["test_error_pct"]))
    found = []
    for label, rows in main.merge(pair.done[["trial", "label"]], on="trial").groupby("label", sort=False):
        over_seeds = rows.groupby("epoch")["value"].agg(["mean", "std", "count"])
        thin = over_seeds.iloc[spread(len(over_seeds))]
        found.append(
            {
                "method": label,
                "epochs": thin.index.tolist(),
                "mean": thin["mean"].round(4).tolist(),
                "std": thin["std"].fillna(0).round(4).tolist(),
                "n": thin["count"].tolist(),
            }
        )
    return found


def spread(count: int) -> list[int]:
    """At most `MOST_POINTS` places of a sequence, evenly spread from the first to the last."""
    points = min(count, MOST_POINTS)
    return sorted({round(i * (count - 1) / max(points - 1, 1)) for i in range(points)})


def _cost(pair: PairTrials) -> dict[str, Any]:
    """The time of training and the metric by method, of the environment in which most of the pair's trials ran.

    There are no points where students were stacked: their times are not what each costs alone.
    """
    if pair.done.empty or stacked(pair.done):
        return {"unit": "seconds", "environment": "", "points": [], "front": []}
    environment = pair.done["environment"].mode().iloc[0]
    trials = pair.done[pair.done["environment"] == environment]
    valued = trials.assign(value=pair.metric.of(trials[pair.metric.column]))
    points = valued.groupby("label", sort=False).agg(cost=("train_s", "median"), value=("value", "mean"), std=("value", "std"))
    points = points.dropna(subset=["cost", "value"])
    size, unit = time_unit(points["cost"].max())
    return {
        "unit": unit,
        "environment": environment,
        "front": pareto_front(points, pair.metric),
        "points": [
            {
                "method": label,
                "cost": row["cost"] / size,
                "value": row["value"],
                "std": 0.0 if math.isnan(row["std"]) else row["std"],
            }
            for label, row in points.iterrows()
        ],
    }
