"""The metric during training."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kdbench.report.compare import Comparison
from kdbench.report.figures.far import Extent, shown_range
from kdbench.report.figures.looks import Look, colours_repeat, looks_of, spread_markers
from kdbench.report.figures.name_places import spread
from kdbench.report.figures.rows import WIDEST_NAME
from kdbench.report.figures.sheet import SMALL, Need, NothingToDrawError, font_pt, sheet
from kdbench.report.tables.cells import on_data
from kdbench.report.tables.selection import tested

FEW_EPOCHS = 20
"""A curve of fewer points shows each, and its last quarter is no panel of its own."""

MOST_NAMED = 13
"""Lines that have their names at their ends; with more, and in small panels, a legend has them."""


_LOG = "log scale"
"""Said on the axis that is so, or over its panel where another one shares the name of the axis."""


def has_curves(curves: pd.DataFrame) -> bool:
    """Whether there are two tested epochs: one test is no curve."""
    return len(curves) > 0 and curves.loc[curves["test_error_pct"].notna(), "epoch"].nunique() > 1


def curves(comparison: Comparison, curves: pd.DataFrame) -> Figure:
    """Test error or accuracy against epoch of the main stage, the mean over seeds.

    One pair has its whole training in one panel and the last quarter, where that is long, in another. Several pairs have a panel
    each. Lines have their names at their ends where there is room, and a legend otherwise. Errors stand on a logarithmic axis,
    unless one of them is 0.

    Args:
        comparison: what `compare` gives.
        curves: one row for each trial and epoch: `trial`, `stage`, `epoch` (from 1), `test_error_pct` (missing where not tested).

    Raises:
        KdbenchError: no trial is done, no training was tested at two epochs, or the figure does not fit its size.
    """
    if not has_curves(curves):
        raise NothingToDrawError("there are no learning curves to draw, since no training was tested at two epochs.")
    looks = looks_of(comparison)
    metric = tested(comparison.metric)
    main = curves[(curves["stage"] == "main") & curves["test_error_pct"].notna()]
    main = main.assign(value=metric.of(main["test_error_pct"]))
    one = len(comparison.pairs) == 1
    few = bool(main["epoch"].max() < FEW_EPOCHS)
    with_end = one and not few
    means = [_means(main.merge(pair.done[["trial", "label"]], on="trial")) for pair in comparison.pairs]
    logarithmic = metric.lower_is_better and all((line > 0).all() for lines in means for line in lines.values())
    end, far = _last_quarter(means[0])
    names = [pair.name for pair in comparison.pairs]
    if with_end:
        whole = f"whole training, {_LOG}" if logarithmic else "whole training"
        names = [whole, f"last quarter, without {', '.join(far)}" if far else "last quarter"]
    widest = max(map(len, looks))
    direct = one and len(looks) <= MOST_NAMED and widest <= WIDEST_NAME
    marked = few or colours_repeat(looks.values())
    legend = [] if direct else [look.line(width=1.4, label=label, marked=marked) for label, look in looks.items()]
    need = Need(
        lines=12,
        letters=32 if one else 24,
        across="epoch",
        up=f"{metric.axis}{f', {_LOG}' if logarithmic and not with_end else ''} {metric.arrow}",
        margin=widest if direct else 0,
        ticks=6,
        legend=legend,
    )
    with sheet(f"{metric.title} during training{on_data(comparison)}", comparison, names, need) as (figure, panels):
        for axes, lines in zip(panels, means, strict=False):
            _lines(axes, lines, looks, marked=marked, every_point=few)
            if logarithmic:
                _logarithmic_axis(axes)
        if with_end:
            _lines(panels[-1], end, looks, marked=marked)
        if direct:
            _name_ends(figure, panels[-1], end if with_end else means[0], looks)
    return figure


def _means(trials: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """By label, the mean over seeds at each epoch."""
    return {str(label): rows.groupby("epoch")["value"].mean() for label, rows in trials.groupby("label")}


def _last_quarter(means: Mapping[str, pd.Series[float]]) -> tuple[dict[str, pd.Series[float]], list[str]]:
    """Of each line, and the methods that are left out since they are far off."""
    end = {label: line[line.index > 0.75 * line.index.max()] for label, line in means.items()}
    if not end:
        return {}, []
    *_, far = shown_range({label: Extent(line.min(), line.max(), line.iloc[-1]) for label, line in end.items()})
    return {label: line for label, line in end.items() if label not in far}, far


def _lines(
    axes: Axes, means: Mapping[str, pd.Series[float]], looks: Mapping[str, Look], *, marked: bool, every_point: bool = False
) -> None:
    size = font_pt(axes)
    for number, (label, values) in enumerate(means.items()):
        line = looks[label].line(width=size / 7, marked=marked)
        line.set_data(values.index, values)
        if not every_point:
            spread_markers(line, number=number)
        axes.add_line(line)
    axes.autoscale()
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _logarithmic_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _name_ends(figure: Figure, axes: Axes, means: Mapping[str, pd.Series[float]], looks: Mapping[str, Look]) -> None:
    """Names to the right of the panel, in the order of the lines' ends, each with a thin line to its own."""
    if not means:
        return
    ends = {label: (float(values.index[-1]), float(values.iloc[-1])) for label, values in means.items()}
    letters = SMALL * font_pt(axes)
    names = {
        label: axes.annotate(
            label,
            end,
            (1.06, end[1]),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            color=looks[label].colour,
            arrowprops={
                **{"arrowstyle": "-", "color": looks[label].colour, "linewidth": letters / 14, "shrinkA": 0, "shrinkB": 0},
                "relpos": (0, 0.5),  # to the middle of the name's left side: lines in the order of names cross none
            },
            annotation_clip=False,
        )
        for label, end in ends.items()
    }
    figure.draw_without_rendering()
    pixel = figure.dpi / 72
    heights = axes.transData.transform(list(ends.values()))[:, 1].tolist()
    panel = axes.get_window_extent()
    for name, place in zip(names.values(), spread(heights, gap=1.15 * letters * pixel, low=panel.y0, high=panel.y1), strict=True):
        name.set_y(axes.transData.inverted().transform((0, place))[1])
