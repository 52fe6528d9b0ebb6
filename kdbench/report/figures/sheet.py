"""The sheet that a figure is drawn on: its size in inches, its letters in points, its panels and its legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdbench.errors import KdbenchError
from kdbench.report.compare import Comparison
from kdbench.report.figures.line_breaks import broken
from kdbench.spec.figure_options import FigureOptions
from kdbench.wording import NO_BREAK

COLUMN_IN = {1: 3.3, 2: 6.8}
"""Inches of a paper's columns; two with the gap between them."""

TALLEST_IN = 9.0
"""Inches of a page that a figure and its caption may fill."""

FONT_PT = {"paper": (8.0, 7.5), "slides": (18.0, 11.0)}
"""Points of titles and axes: usual, and least where the figure would not fit otherwise."""

SMALL = 0.875
"""Ticks, names and legends, in the size of titles."""

LINE, LETTER, BOLD_LETTER = 1.25, 0.6, 0.68
"""A line's height and a letter's mean width, in the size of the letters."""

FEW_NAMES = 8
"""With more names in a legend, long ones are broken, so that it has two columns at least."""

GREY = "#555555"


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a figure needs to be legible, measured in small letters.

    Attributes:
        lines: that stand above one another in a panel.
        letters: that the narrowest panel is wide, with its ticks.
        across: names the horizontal axes.
        up: names the vertical axes.
        margin: letters beside all panels, such as the names of rows.
        ticks: letters beside each panel, such as its ticks.
        legend: what the legend under the panels explains; each has a label, and lines for letters of 8 points.
    """

    lines: float
    letters: int
    across: str
    up: str = ""
    margin: int = 0
    ticks: int = 2
    legend: Sequence[Line2D] = ()


class NothingToDrawError(KdbenchError):
    """The comparison has not what the figure shows."""


class DoesNotFitError(KdbenchError):
    """More pairs than one sheet holds; `most` fit, or not even one."""

    def __init__(self, message: str, *, most: int) -> None:
        super().__init__(message)
        self.most = most


@dataclass(frozen=True)
class _Layout:
    width: float
    height: float
    font: float
    across: int
    down: int
    title: tuple[str, ...]
    panel_titles: tuple[str, ...]
    across_name: str
    legend: tuple[str, ...]
    legend_columns: int


@contextmanager
def sheet(title: str, comparison: Comparison, names: Sequence[str], need: Need) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a panel for each of `names`, of the size and with the letters that the comparison's options ask for.

    Raises:
        KdbenchError: no trial is done, or it does not fit the size.
    """
    if not (comparison.results["status"] == "done").any():
        raise NothingToDrawError("there is nothing to draw, since no trial is done. Run the suite first.")
    options = comparison.options.figures
    below = comparison.pairs[0].name if len(comparison.pairs) == 1 else ""
    layout = _fitting(title, below, names, need, options)
    with mpl.rc_context(_theme(layout.font)):
        figure = Figure(figsize=(layout.width, layout.height), layout="constrained")
        grid = list(figure.subplots(layout.down, layout.across, squeeze=False).flat)
        panels = grid[: len(names)]
        for spare in grid[len(names) :]:
            spare.remove()
        for axes, name in zip(panels, layout.panel_titles, strict=False):
            axes.set_title(name)
        _name_axes(figure, panels, need, layout)
        if layout.title:
            figure.suptitle("\n".join(layout.title))
        if need.legend:
            _legend(figure, need, layout, with_axis=len(panels) > 1)
        yield figure, panels
        figure.draw_without_rendering()  # texts that are made late are made under this theme, too


def _name_axes(figure: Figure, panels: Sequence[Axes], need: Need, layout: _Layout) -> None:
    """Panels share one name of an axis: on the left, and over the legend where there is one."""
    one = len(panels) == 1
    if one:
        panels[0].set_ylabel(need.up)
    elif need.up:
        figure.supylabel(need.up, fontsize=mpl.rcParams["axes.labelsize"])
    if one or not need.legend:
        for axes in panels:
            axes.set_xlabel(layout.across_name)


def _legend(figure: Figure, need: Need, layout: _Layout, *, with_axis: bool) -> None:
    scale = layout.font / FONT_PT["paper"][0]
    for handle in need.legend:
        handle.set(
            linewidth=handle.get_linewidth() * scale,
            markersize=handle.get_markersize() * scale,
            markeredgewidth=handle.get_markeredgewidth() * scale,
        )
    title = layout.across_name if with_axis else None
    figure.legend(need.legend, layout.legend, title=title, loc="outside lower center", ncols=layout.legend_columns)


def _fitting(title: str, below: str, names: Sequence[str], need: Need, options: FigureOptions) -> _Layout:
    """The layout with the largest letters that fit; where no size is asked for, one panel may be taller than a page."""
    usual, least = FONT_PT[options.style]
    fonts = [options.font_size] if options.font_size else [usual - 0.5 * step for step in range(int(2 * (usual - least)) + 1)]
    for font in fonts:
        layout, needed, limit, most = _layout(title, below, names, need, options, font)
        if needed <= limit:
            return layout
    size = f"{layout.width:g} x {limit:g} inches with letters of {font:g} points"
    if most:
        told = f"{len(names)} panels do not fit {size}, but {most} do. Choose fewer pairs or a larger `--size`."
        raise DoesNotFitError(told, most=most)
    if not options.sheet_in:
        return layout  # with very many methods: taller than a page, since nobody asked for a size
    high = f"{math.ceil(needed * 10) / 10:g}"
    raise DoesNotFitError(
        f"the figure does not fit {size}: it needs a height of {high} inches. Choose fewer methods, a larger `--size` or a smaller "
        "`--font-size`.",
        most=0,
    )


def _layout(
    title: str, below: str, names: Sequence[str], need: Need, options: FigureOptions, font: float
) -> tuple[_Layout, float, float, int]:
    """The layout with letters of this size, the height that it needs, the one that it may have, and how many panels that holds."""
    count = len(names)
    width = options.sheet_in[0] if options.sheet_in else COLUMN_IN[options.columns or (1 if count == 1 else 2)]
    line, letter = (font * SMALL * part / 72 for part in (LINE, LETTER))
    for_panels = width / letter - need.margin
    at_most = max(1, min(count, int(for_panels / need.letters)))
    down = math.ceil(count / at_most)
    across = math.ceil(count / down)
    panel_letters = max(8, int(for_panels / across - need.ticks))
    panel_titles = [_panel_title(name, panel_letters) for name in names if count > 1]
    title_letters = int(width * 72 / (font * BOLD_LETTER))
    titles = [*broken(title, title_letters), *_panel_title(below, title_letters)] if options.title else []
    legend = [
        broken(str(handle.get_label()), 22 if len(need.legend) > FEW_NAMES else int(width / letter) - 6) for handle in need.legend
    ]
    longest = max((len(text) for label in legend for text in label), default=0) + 6
    legend_columns = max(1, min(len(legend), int(width / (longest * letter))))
    legend_rows = math.ceil(len(legend) / legend_columns)
    legend_columns = math.ceil(len(legend) / max(1, legend_rows))
    legend_lines = legend_rows + sum(len(label) - 1 for label in legend)
    shared = count > 1 and bool(legend)
    unparted = NO_BREAK.join(need.across.rsplit(" ", 1))  # no arrow stands alone in a line
    across_name = broken(unparted, int(width / letter) if shared else panel_letters)
    further = (len(across_name) - 1) / SMALL
    panel = (need.lines + max(map(len, panel_titles), default=0) + (2.2 if shared else 4 + further)) * line
    head = 0.05 + (1.5 + further) * line * shared + len(titles) * font / 72 * 1.5 + (legend_lines + 0.6) * line * bool(legend)
    needed, limit = head + down * panel, options.sheet_in[1] if options.sheet_in else TALLEST_IN
    layout = _Layout(
        width,
        limit if options.sheet_in else needed,
        font,
        across,
        down,
        tuple(titles),
        tuple("\n".join(lines) for lines in panel_titles),
        "\n".join(across_name),
        tuple("\n".join(lines) for lines in legend),
        legend_columns,
    )
    return layout, needed, limit, min(count - 1, at_most * int((limit - head) / panel))


def font_pt(axes: Axes) -> float:
    """Points of the letters of titles and axes; ticks and names are `SMALL` of it."""
    return float(axes.xaxis.label.get_fontsize())


def _panel_title(name: str, letters: int) -> list[str]:
    """Broken before the arrow where that helps."""
    if len(name) <= letters or " → " not in name:
        return broken(name, letters)
    teacher, student = name.split(" → ", 1)
    return [*broken(teacher, letters), *broken(f"→ {student}", letters)]


def _theme(font: float) -> dict[Any, Any]:
    """Thin grey lines, and nothing that is not needed; letters of `font` points."""
    small, thin = font * SMALL, font / 14
    return {
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "text.parse_math": False,
        "axes.axisbelow": True,
        "axes.edgecolor": GREY,
        "axes.grid": True,
        "axes.labelpad": font / 4,
        "axes.labelsize": font,
        "axes.linewidth": thin,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlepad": font / 2,
        "axes.titlesize": small,
        "axes.unicode_minus": True,
        "figure.titlesize": font,
        "figure.titleweight": "bold",
        "font.size": small,
        "grid.color": "#e6e6e6",
        "grid.linewidth": thin,
        "legend.columnspacing": 1.2,
        "legend.fontsize": small,
        "legend.frameon": False,
        "legend.handletextpad": 0.5,
        "legend.title_fontsize": font,
        "lines.linewidth": font / 7,
        **{
            f"{axis}tick.{key}": value
            for axis in "xy"
            for key, value in {"labelsize": small, "major.size": 0, "minor.size": 0, "major.pad": font / 3}.items()
        },
    }
