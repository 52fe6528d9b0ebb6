"""Panels with a row for each method: names on the left, numbers across."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from matplotlib.axes import Axes

from kdbench.report.compare import Comparison
from kdbench.report.figures.far import Extent, far_text, shown_range
from kdbench.report.figures.line_breaks import broken
from kdbench.report.figures.sheet import GREY
from kdbench.spec.metrics import Metric

WIDEST_NAME = 22
"""Letters; longer names take several lines."""

TIGHT = 1.15
"""Lines that a row has at least."""


@dataclass(frozen=True)
class Rows:
    """Where the row of each method stands.

    Attributes:
        names: with line breaks, by method.
        places: of the rows' middles, in lines from the top, by method.
        lines: of all rows.
        metric: what the rows tell.
    """

    names: Mapping[str, str]
    places: Mapping[str, float]
    lines: float
    metric: Metric

    @property
    def margin(self) -> int:
        """Letters of the longest line of a name."""
        return max(len(line) for name in self.names.values() for line in name.split("\n"))

    def show(self, panels: Sequence[Axes]) -> None:
        """Set the vertical axes; names stand to the left of the first panel of each row of panels."""
        for axes in panels:
            axes.set_yticks(list(self.places.values()), list(self.names.values()))
            axes.set_ylim(self.lines, 0)
            axes.grid(axis="y", visible=False)
            place = axes.get_subplotspec()
            axes.tick_params(labelleft=place is None or place.is_first_col())
            axes.spines["left"].set_visible(False)

    def set_range(self, axes: Axes, extents: Mapping[str, Extent], colours: Mapping[str, str], *, always: float = math.nan) -> None:
        """Choose the range across. A method far off does not squeeze the others: its row has an arrow with the mean.

        `always` is a number that the range has in any case. Methods without an extent have no result.
        """
        where = axes.get_yaxis_transform()
        for label in self.places.keys() - extents.keys():
            axes.text(0.5, self.places[label], "no result", transform=where, ha="center", va="center", color=GREY, style="italic")
        if not extents:
            return
        low, high, far = shown_range(extents, always=always)
        room = 0.06 * (high - low or 1)
        axes.set_xlim(low - room, high + room)
        for label in far:
            mean = extents[label].middle
            right = mean > high
            text = f"{far_text(mean, self.metric)} →" if right else f"← {far_text(mean, self.metric)}"
            side = "right" if right else "left"
            axes.text(float(right), self.places[label], text, transform=where, ha=side, va="center", color=colours[label])


def rows_of(comparison: Comparison, labels: Sequence[str], *, pitch: float) -> Rows:
    """Rows of `pitch` lines each, or more where a name needs them; less where the height of the figure is given."""
    pitch = TIGHT if comparison.options.figures.sheet_in else pitch
    names, places, lines = broken_names(labels, pitch=pitch)
    return Rows(dict(zip(labels, names, strict=True)), dict(zip(labels, places, strict=True)), lines, comparison.metric)


def broken_names(names: Sequence[str], *, pitch: float) -> tuple[list[str], list[float], float]:
    """Names under one another: with line breaks, the place of the middle of each in lines from the top, and the lines of all.

    Each has `pitch` lines, or more where it needs them.
    """
    written = [broken(name, WIDEST_NAME) for name in names]
    heights = [max(pitch, len(lines) + 0.1) for lines in written]
    ends = list(accumulate(heights, initial=0.0))
    return ["\n".join(lines) for lines in written], [(top + end) / 2 for top, end in pairwise(ends)], ends[-1]
