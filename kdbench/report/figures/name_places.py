"""Where names stand beside points and at the ends of lines, so that none covers another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox, BboxBase
from numpy.typing import NDArray

from kdbench.report.figures.rows import WIDEST_NAME
from kdbench.report.figures.sheet import SMALL, font_pt

FloatArray = NDArray[np.float64]


def name_points(axes: Axes, points: pd.DataFrame, texts: Mapping[str, str], colours: Mapping[str, str], *, avoid: Line2D) -> None:
    """Write names at the nearest places that touch no point and no other name; far ones with a line to their point.

    Args:
        axes: a panel whose figure was drawn, so that its places are known.
        points: by method, across and up.
        texts: what stands beside points, by method; those that come first have the first choice of places.
        colours: by method.
        avoid: a line of level and upright pieces that names do not cross.
    """
    centres = axes.transData.transform(points.to_numpy(float))
    at = dict(zip(points.index, centres, strict=True))
    letters = SMALL * font_pt(axes)
    pixel = axes.figure.dpi / 72
    half = 0.5 * letters * pixel
    corners = axes.transData.transform(avoid.get_xydata())
    taken = [Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half).extents for x, y in centres]
    taken += [Bbox([np.minimum(a, b), np.maximum(a, b)]).padded(0.2 * half).extents for a, b in pairwise(corners)]
    for label, text in texts.items():
        name = axes.annotate(
            "\n".join(wrap(text, WIDEST_NAME)),
            tuple(points.loc[label]),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=letters,
            color=colours[label],
        )
        name.set(in_layout=False, path_effects=[withStroke(linewidth=letters / 4, foreground="white")])
        size = name.get_window_extent()
        spot = _free_spot(at[label], size.width, size.height, np.array(taken), axes.bbox, step=half / 2)
        taken.append(spot.padded(0.4 * half).extents)
        name.xyann = tuple((np.array([spot.x0 + spot.x1, spot.y0 + spot.y1]) / 2 - at[label]) / pixel)
        nearest = np.clip(at[label], spot.min, spot.max) - at[label]
        if np.hypot(*nearest) > 2.5 * half:
            line = {"arrowstyle": "-", "color": colours[label], "linewidth": letters / 14, "shrinkA": 0, "shrinkB": letters / 3}
            end = tuple(nearest / pixel)
            axes.annotate("", tuple(points.loc[label]), end, textcoords="offset points", arrowprops=line).set_in_layout(False)


def _free_spot(point: FloatArray, width: float, height: float, taken: FloatArray, panel: BboxBase, *, step: float) -> Bbox:
    """The place in the panel nearest to a point where a box of this size covers least of what is taken: (N, 4), x0, y0, x1, y1."""
    across = np.arange(panel.x0, max(panel.x1 - width, panel.x0 + step), step)
    up = np.arange(panel.y0, max(panel.y1 - height, panel.y0 + step), step)
    x0, y0 = (grid.ravel() for grid in np.meshgrid(across, up))
    wide = np.minimum(x0[:, None] + width, taken[:, 2]) - np.maximum(x0[:, None], taken[:, 0])
    high = np.minimum(y0[:, None] + height, taken[:, 3]) - np.maximum(y0[:, None], taken[:, 1])
    covered = (wide.clip(0) * high.clip(0)).sum(1)
    beside = np.maximum(np.maximum(x0 - point[0], point[0] - x0 - width), 0)
    above = np.maximum(np.maximum(y0 - point[1], point[1] - y0 - height), 0)
    off_centre = np.abs(y0 + height / 2 - point[1]) + 0.1 * np.abs(x0 + width / 2 - point[0])
    best = np.lexsort((np.hypot(beside, above) + 0.2 * off_centre, covered.round()))[0]
    return Bbox.from_bounds(x0[best], y0[best], width, height)


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
