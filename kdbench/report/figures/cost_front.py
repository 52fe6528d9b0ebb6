"""The metric against the time of training, with the methods that no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from kdbench.report.compare import Comparison
from kdbench.report.figures.far import Extent, far_text, shown_range
from kdbench.report.figures.looks import Look, looks_of
from kdbench.report.figures.name_places import name_points
from kdbench.report.figures.sheet import GREY, Need, NothingToDrawError, font_pt, sheet
from kdbench.report.tables.cells import on_data
from kdbench.report.timing import stacked
from kdbench.spec.metrics import Metric

MOST_NAMED = 10
"""Methods whose points all have names beside them. With more, a legend has the names, and those on the front stand there, too."""

MOST_IN_LEGEND = 15
"""With more methods nobody finds a point in a legend: those on the front, those far off and the baseline alone have names."""

_FRONT = (0, (1.5, 1))

_OTHER = Look("#999999", "o", ())

_UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))


def cost(comparison: Comparison) -> Figure:
    """The metric at the last epoch against the time of training, as each method would cost alone; a panel for each pair.

    A point is a median time and a mean of the metric, its bar one standard deviation over seeds. The stepped line is the Pareto
    front: no method is both cheaper and better than one on it. Times of several environments stand in panels of their own.

    Raises:
        KdbenchError: no trial is done, students were stacked, or the figure does not fit its size.
    """
    if stacked(comparison.results.query("status == 'done'")):
        raise NothingToDrawError(
            "the figure `cost` cannot be drawn, since the times of stacked students are not what each costs alone. Leave it out."
        )
    metric = comparison.metric
    looks = looks_of(comparison)
    measured = [
        (pair.name, str(environment), _points(trials, metric))
        for pair in comparison.pairs
        for environment, trials in pair.done.groupby("environment", sort=False)
    ]
    names = [name for name, _, _ in measured]
    if len({environment for _, environment, _ in measured}) > 1:
        names = [f"{name} on {environment}" if len(comparison.pairs) > 1 else environment for name, environment, _ in measured]
    longest = max((float(points["cost"].max()) for _, _, points in measured), default=0.0)
    seconds, unit = time_unit(longest)
    few = only_front_named(comparison)
    in_legend = not few and (len(looks) > MOST_NAMED or len(measured) > 1)
    need = Need(
        lines=16,
        letters=30,
        across=f"training of one student ({unit}) ←",
        up=f"{metric.axis} {metric.arrow}",
        ticks=6,
        legend=[
            Line2D([], [], color=GREY, linestyle=_FRONT, linewidth=1, label="Pareto front"),
            *([look.mark(label=label) for label, look in looks.items()] if in_legend else []),
        ],
    )
    with sheet(f"{metric.title} and training time{on_data(comparison)}", comparison, names, need) as (figure, panels):
        drawn = [
            _draw(axes, points.assign(cost=points["cost"] / seconds), looks, metric, always=[comparison.baseline] if few else looks)
            for axes, (_, _, points) in zip(panels, measured, strict=True)
        ]
        figure.draw_without_rendering()
        for axes, panel in zip(panels, drawn, strict=True):
            first = [*panel.front, *panel.far]
            named = first if in_legend else list(dict.fromkeys([*first, *panel.coloured]))
            texts = {label: f"{label} {panel.far[label]}" if label in panel.far else label for label in named}
            name_points(axes, panel.points, texts, {label: look.colour for label, look in looks.items()}, avoid=panel.lines)
    return figure


def only_front_named(comparison: Comparison) -> bool:
    """Whether there are too many methods for each to have a name."""
    return len(comparison.labels) > MOST_IN_LEGEND


def time_unit(longest: float) -> tuple[int, str]:
    """The unit for times of which the longest has so many seconds: how many seconds it has, and its name."""
    return next(((seconds, unit) for seconds, unit in _UNITS if longest >= 2 * seconds), _UNITS[-1])


def pareto_front(points: pd.DataFrame, metric: Metric) -> list[str]:
    """Of points with `cost` and `value`, those that no other equals or beats in both and beats in one; the cheapest first."""
    loss = points["value"] * (1 if metric.lower_is_better else -1)
    front: list[str] = []
    cheapest, best = math.nan, math.inf
    for label, point in points.assign(loss=loss).sort_values(["cost", "loss"], kind="stable").iterrows():
        if point["loss"] < best or (point["loss"] == best and point["cost"] == cheapest):
            front.append(str(label))
            cheapest, best = point["cost"], point["loss"]
    return front


def _points(trials: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """By method, the median `cost` in seconds, and mean and standard deviation of the metric: `value`, `std`."""
    valued = trials.assign(value=metric.of(trials[metric.column]))
    points = valued.groupby("label", sort=False).agg(cost=("train_s", "median"), value=("value", "mean"), std=("value", "std"))
    return points.dropna(subset=["cost", "value"])


class _Panel(NamedTuple):
    """What was drawn: `points` by method, with `cost` and `value`; those with a look of their own; the front; the corners of the
    lines, which are the front's and the spreads'; and the means of those far off, with an arrow."""

    points: pd.DataFrame
    coloured: list[str]
    front: list[str]
    lines: list[NDArray[np.float64]]
    far: dict[str, str]


def _draw(axes: Axes, points: pd.DataFrame, looks: Mapping[str, Look], metric: Metric, *, always: Collection[str]) -> _Panel:
    """Points with their spread, and the front as a stepped line; a method far off is a hollow point at the edge.

    Those on the front, far off, and of `always` have their own looks; the others are grey dots.
    """
    size, front = font_pt(axes), pareto_front(points, metric)
    reach = points["std"].fillna(0)
    extents = zip(points["value"] - reach, points["value"] + reach, points["value"], strict=True)
    low, high, far = shown_range({str(label): Extent(*extent) for label, extent in zip(points.index, extents, strict=True)})
    cheapest, dearest = points["cost"].min(), points["cost"].max()
    across, up = 0.12 * (dearest - cheapest or 1), 0.12 * (high - low or 1)
    axes.set(xlim=(cheapest - across, dearest + across), ylim=(low - up, high + up))
    shown = points.assign(value=points["value"].clip(low, high))
    lines = []
    coloured = [str(label) for label in points.index if label in front or label in far or label in always]
    for label, point in shown.iterrows():
        own = label in coloured
        look = looks[str(label)] if own else _OTHER
        if own and label not in far:
            axes.errorbar(point["cost"], point["value"], point["std"], color=look.colour, linewidth=size / 10, alpha=0.45)
            ends = point["value"] + np.array([-1, 1]) * np.nan_to_num(point["std"])
            lines.append(np.stack([np.repeat(point["cost"], 2), ends], axis=1))
        mark = look.mark(label=str(label))
        mark.set(data=([point["cost"]], [point["value"]]), markersize=size * (0.6 if own else 0.35), zorder=4 if own else 3)
        mark.set_markerfacecolor("white" if label in far else look.colour)
        axes.add_line(mark)
    worst = axes.get_ylim()[1 if metric.lower_is_better else 0]
    steps = shown.loc[front, ["cost", "value"]]
    corners = [*steps["cost"].repeat(2), axes.get_xlim()[1]], [worst, *steps["value"].repeat(2)]
    lines.append(np.array(corners, float).T)
    axes.plot(*corners, color=GREY, linestyle=_FRONT, linewidth=size / 8, zorder=2)
    arrows = {label: f"{far_text(points['value'][label], metric)} {'↑' if points['value'][label] > high else '↓'}" for label in far}
    return _Panel(shown[["cost", "value"]], coloured, front, lines, arrows)
