"""The metric by method: every seed and the mean."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdbench.report.compare import Comparison
from kdbench.report.figures.far import Extent
from kdbench.report.figures.looks import colours_of
from kdbench.report.figures.rows import rows_of
from kdbench.report.figures.sheet import GREY, Need, font_pt, sheet
from kdbench.report.tables.cells import on_data

_TEACHER = (0, (3, 1.5))


def results(comparison: Comparison) -> Figure:
    """The metric at the last epoch by method: every seed a dot, the mean a bar, the teacher a dashed line; a panel for each pair.

    There are no intervals of single methods: methods share their seeds, so such intervals would overlap even where every seed shows
    the same difference. `forest` shows the intervals of the differences.

    Raises:
        KdbenchError: no trial is done, or the figure does not fit its size.
    """
    metric = comparison.metric
    colours = colours_of(comparison)
    rows = rows_of(comparison, comparison.labels, pitch=1.7)
    legend = [
        Line2D([], [], color=GREY, marker="o", linestyle="", markersize=3.2, alpha=0.6, label="one seed"),
        Line2D([], [], color=GREY, marker="|", linestyle="", markersize=7, markeredgewidth=1.8, label="mean"),
    ]
    if any(len(pair.of_teacher) for pair in comparison.pairs):
        legend.append(Line2D([], [], color=GREY, linestyle=_TEACHER, linewidth=1, label="teacher"))
    need = Need(lines=rows.lines, letters=20, across=f"{metric.axis} {metric.arrow}", margin=rows.margin, legend=legend)
    names = [pair.name for pair in comparison.pairs]
    with sheet(f"{metric.title} by method{on_data(comparison)}", comparison, names, need) as (figure, panels):
        for axes, pair in zip(panels, comparison.pairs, strict=True):
            done = {label: values for label in comparison.labels if len(values := pair.by_seed(label))}
            for label, values in done.items():
                _row(axes, rows.places[label], values, colours[label], decimals=metric.decimals)
            teacher = float(pair.of_teacher.mean())
            if len(pair.of_teacher):
                axes.axvline(teacher, color=GREY, linestyle=_TEACHER, linewidth=font_pt(axes) / 8, zorder=1)
            extents = {label: Extent(values.min(), values.max(), values.mean()) for label, values in done.items()}
            rows.set_range(axes, extents, colours, always=teacher)
        rows.show(panels)
    return figure


def _row(axes: Axes, place: float, values: pd.Series[float], colour: str, *, decimals: int) -> None:
    """The mean, and under it the seeds as dots; equal ones stand under one another."""
    below = 0.3 + 0.15 * values.groupby(values.round(decimals)).cumcount()
    size = font_pt(axes)
    axes.scatter(values, place + below, s=(size * 0.42) ** 2, color=colour, alpha=0.6, linewidths=0, zorder=3)
    axes.plot(values.mean(), place - 0.1, marker="|", markersize=size, markeredgewidth=size / 4.5, color=colour, zorder=4)
