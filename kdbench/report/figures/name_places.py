"""Where names stand beside points and at the ends of lines, so that none covers another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import BboxBase
from numpy.typing import NDArray

from kdbench.report.figures.line_breaks import broken
from kdbench.report.figures.rows import WIDEST_NAME
from kdbench.report.figures.sheet import SMALL, font_pt

FloatArray = NDArray[np.float64]

ROUNDS = 3
"""How often each name looks for a place: at first beside those before it, then beside all others."""

NEAR = 1.25
"""Letters from a name to its point; a name farther off has a line to it."""

COVERED, PASSED, FARTHER, CROSSED, MUDDLED = 1.0, 0.06, 0.01, 2.5, 25.0
"""What a place costs: to cover a point whole; a line to the name through a point or a piece of a line; a letter farther off; a line
to a name through another name or another such line; and to cover another name."""


class _Spot(NamedTuple):
    """Where a name stands: its lower left and upper right corner, its point, and the corner or side that is nearest to that."""

    low: FloatArray
    high: FloatArray
    point: FloatArray
    nearest: FloatArray


def name_points(
    axes: Axes, points: pd.DataFrame, texts: Mapping[str, str], colours: Mapping[str, str], *, avoid: Sequence[FloatArray]
) -> None:
    """Write names near their points, so that they cover little and no lines to them cross; far ones with a line to their point.

    Args:
        axes: a panel whose figure was drawn, so that its places are known.
        points: by method, across and up.
        texts: what stands beside points, by method; those that come first have the first choice of places.
        colours: by method.
        avoid: lines of level and upright pieces that names do not cover, as corners (N, 2).
    """
    letters = SMALL * font_pt(axes)
    pixel = axes.figure.dpi / 72
    letter = letters * pixel
    at = dict(zip(points.index, axes.transData.transform(points.to_numpy(float)), strict=True))
    pieces = [np.sort(piece, axis=0) for line in map(axes.transData.transform, avoid) for piece in map(np.array, pairwise(line))]
    covered = np.array(
        [
            *([centre - letter / 2, centre + letter / 2] for centre in at.values()),
            *([low - 0.25 * letter, high + 0.25 * letter] for low, high in pieces),
        ]
    )
    names, sizes = {}, {}
    for label, text in texts.items():
        names[label] = axes.annotate(
            "\n".join(broken(text, WIDEST_NAME)),
            tuple(points.loc[label]),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=letters,
            color=colours[label],
        )
        names[label].set(in_layout=False, zorder=2.5, path_effects=[withStroke(linewidth=letters / 4, foreground="white")])
        box = names[label].get_window_extent()
        sizes[label] = np.array([box.width, box.height])
    spots: dict[str, _Spot] = {}
    for _ in range(ROUNDS):
        for label in sorted(texts, key=lambda label: -sizes[label][0]):
            others = [spot for other, spot in spots.items() if other != label]
            spots[label] = _best_spot(at[label], sizes[label], others, covered, axes.bbox, letter=letter)
    for label, spot in spots.items():
        names[label].xyann = tuple(((spot.low + spot.high) / 2 - spot.point) / pixel)
        if _is_far(spot, letter=letter):
            line = {"arrowstyle": "-", "color": colours[label], "linewidth": letters / 14, "shrinkA": 0, "shrinkB": letters / 3}
            end = tuple((spot.nearest - spot.point) / pixel)
            to_point = axes.annotate("", tuple(points.loc[label]), end, textcoords="offset points", arrowprops=line)
            to_point.set(in_layout=False, zorder=2.4)


def _is_far(spot: _Spot, *, letter: float) -> Any:
    """Whether a name at this spot, or at each of several, has a line to its point."""
    return np.hypot(*np.moveaxis(spot.nearest - spot.point, -1, 0)) > NEAR * letter


def _best_spot(
    point: FloatArray, size: FloatArray, others: Sequence[_Spot], covered: FloatArray, panel: BboxBase, *, letter: float
) -> _Spot:
    """The place in the panel that costs least.

    Args:
        point: that the name is of, in pixels.
        size: width and height of the name.
        others: where other names stand.
        covered: low and high corners of what names should not cover, (N, 2, 2).
        panel: where the name may stand.
        letter: the height of the letters.
    """
    ends = np.maximum(np.array(panel.max) - size, np.array(panel.min) + 1)
    across, up = (np.arange(first, last, letter / 2) for first, last in zip(panel.min, ends, strict=True))
    low = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    spots = _Spot(low, low + size, point, np.clip(point, low, low + size))
    shared = np.minimum(spots.high[:, None], covered[:, 1]) - np.maximum(spots.low[:, None], covered[:, 0])
    cost = COVERED * shared.clip(0).prod(-1).sum(1) / letter**2
    far = _is_far(spots, letter=letter)
    cost += PASSED * far * _goes_through(point, spots.nearest[:, None], covered[:, 0], covered[:, 1]).sum(1)
    off_centre = np.abs(spots.low + size / 2 - point) @ [0.1, 1]
    cost += FARTHER / letter * (np.hypot(*(spots.nearest - point).T) + 0.2 * off_centre)
    for other in others:
        room = 0.2 * letter
        muddled = ((spots.low < other.high + room) & (spots.high > other.low - room)).all(1)
        crossed = far * _goes_through(point, spots.nearest, other.low, other.high).astype(int)
        if _is_far(other, letter=letter):
            crossed += _goes_through(other.point, other.nearest, spots.low, spots.high)
            crossed += far & _cross(point, spots.nearest, other.point, other.nearest)
        cost += MUDDLED * muddled + CROSSED * crossed
    best = int(np.argmin(cost.round(6)))
    return _Spot(spots.low[best], spots.high[best], point, spots.nearest[best])


def _goes_through(start: FloatArray, end: FloatArray, low: FloatArray, high: FloatArray) -> NDArray[np.bool_]:
    """Whether the line from start to end meets a box; some of them are (N, 2), and the others (2,)."""
    way = np.where(np.abs(end - start) < 1e-9, 1e-9, end - start)
    first, second = (low - start) / way, (high - start) / way
    enters, leaves = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    met: NDArray[np.bool_] = (enters < leaves) & (leaves > 0) & (enters < 1)
    return met


def _cross(start: FloatArray, ends: FloatArray, other_start: FloatArray, other_end: FloatArray) -> NDArray[np.bool_]:
    """Whether the lines from one start to each of the ends (N, 2) cross another line."""

    def side(origin: FloatArray, to: FloatArray, place: FloatArray) -> FloatArray:
        one, two = to - origin, place - origin
        return np.sign(one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0])

    crossed: NDArray[np.bool_] = (side(start, ends, other_start) != side(start, ends, other_end)) & (
        side(other_start, other_end, start) != side(other_start, other_end, ends)
    )
    return crossed


def spread(places: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """The places nearest to `places` that are `gap` apart, in the same order, between `low` and `high` where there is room."""
    order = np.argsort(places, kind="stable")
    blocks: list[list[float]] = []  # of places pushed together: the sum of their starts, how many
    for position, place in enumerate(np.asarray(places, float)[order]):
        blocks.append([place - position * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    starts = np.repeat([total / count for total, count in blocks], [int(count) for _, count in blocks])
    starts = np.clip(starts, low, max(low, high - (len(starts) - 1) * gap))
    found = np.empty(len(starts))
    found[order] = starts + gap * np.arange(len(starts))
    return [float(place) for place in found]
