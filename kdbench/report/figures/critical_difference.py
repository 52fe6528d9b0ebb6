"""Critical-difference diagram: which methods rank apart over many pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from kdbench.report.compare import Comparison
from kdbench.report.differences import means_of_pairs
from kdbench.report.figures.looks import colours_of
from kdbench.report.figures.rows import broken_names
from kdbench.report.figures.sheet import GREY, Need, NothingToDrawError, font_pt, sheet
from kdbench.report.statistics import several_pairs
from kdbench.report.statistics.several_pairs import MIN_PAIRS, Ranks
from kdbench.report.tables.cells import on_data

NAME_LINES, BAR_LINES = 1.4, 0.6
"""From one name of one line to the next, and from one bar of a group to the next."""


def ranks(comparison: Comparison) -> Figure:
    """Mean ranks of the methods over pairs; a black bar joins methods that Nemenyi's test does not tell apart (Demsar, 2006).

    Raises:
        KdbenchError: fewer than five pairs or three methods have results, or the figure does not fit its size.
    """
    means = means_of_pairs(comparison)
    found = several_pairs.ranks(means if comparison.metric.lower_is_better else -means)
    if found.critical_difference is None:
        raise NothingToDrawError(
            f"the critical-difference diagram needs {MIN_PAIRS} pairs and 3 methods that are done in all of them, and here are "
            f"{found.pairs} and {len(found.mean_ranks)}. Leave out the figure `ranks`."
        )
    need = Need(lines=_lines(found) + 1, letters=40, across=f"mean rank over {found.pairs} pairs, 1 is best")
    with sheet(f"Mean rank{on_data(comparison)}", comparison, [""], need) as (figure, (axes,)):
        draw_ranks(axes, found, colours_of(comparison))
    return figure


def _first_name(found: Ranks) -> float:
    """Lines from the axis to the first name: the bars stand between."""
    return 1 + BAR_LINES * len(found.groups)


def _sides(found: Ranks) -> tuple[pd.Series[float], pd.Series[float]]:
    """The ranks of the methods that are named on the left and on the right, from top to bottom."""
    half = math.ceil(len(found.mean_ranks) / 2)
    return found.mean_ranks.iloc[:half], found.mean_ranks.iloc[half:].iloc[::-1]


def _names(ranks: pd.Series[float]) -> tuple[list[str], list[float], float]:
    """What `broken_names` gives of methods with their ranks."""
    return broken_names([f"{label} {rank:.2f}" for label, rank in ranks.items()], pitch=NAME_LINES)


def _lines(found: Ranks) -> float:
    """From the axis to the end of the longer side."""
    return _first_name(found) + max(_names(side)[2] for side in _sides(found))


def draw_ranks(axes: Axes, found: Ranks, colours: Mapping[str, str]) -> None:
    """Ranks along an axis on top, the best on the left; half of the names on each side, each with a line to its rank."""
    mean_ranks, critical = found.mean_ranks, found.critical_difference or 0.0
    size = font_pt(axes)
    low = math.floor(mean_ranks.min())
    high = max(math.ceil(mean_ranks.max()), low + math.ceil(critical))
    axes.set(xlim=(low, high), ylim=(_lines(found), 0), yticks=[])
    for side, edge, align in zip(_sides(found), (low, high), ("right", "left"), strict=True):
        shift = (-size / 2 if align == "right" else size / 2, 0)
        for (label, rank), text, middle in zip(side.items(), *_names(side)[:2], strict=True):
            place, colour = _first_name(found) + middle, colours[str(label)]
            axes.plot([rank, rank, edge], [0, place, place], color=colour, linewidth=size / 9, clip_on=False, zorder=2)
            axes.annotate(text, (edge, place), shift, textcoords="offset points", ha=align, va="center", color=colour)
    for position, group in enumerate(found.groups):
        reach = 0.008 * (high - low)
        ends = [mean_ranks[group[0]] - reach, mean_ranks[group[-1]] + reach]
        axes.plot(ends, [0.7 + BAR_LINES * position] * 2, color="black", linewidth=size / 3.2, solid_capstyle="butt", zorder=3)
    _show_critical(axes, low, critical)
    axes.grid(visible=False)
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("top")
    axes.tick_params(axis="x", top=True, length=size / 3)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)


def _show_critical(axes: Axes, low: float, critical: float) -> None:
    """Its length as a bar over the name of the axis."""
    size = font_pt(axes)
    over = ScaledTranslation(0, 3.8 * size / 72, axes.figure.dpi_scale_trans)
    where = axes.get_xaxis_transform() + over
    axes.plot([low, low + critical], [1, 1], transform=where, color=GREY, marker="|", linewidth=size / 6, clip_on=False)
    text = f"critical difference {critical:.2f}"
    axes.annotate(text, (low, 1), (0, 4.2 * size), axes.get_xaxis_transform(), textcoords="offset points", va="bottom", color=GREY)
