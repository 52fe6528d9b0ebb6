"""What each method gains over the baseline, with both intervals: over new seeds, and over new seeds and new test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETLEFT, CARETRIGHT

from kdbench.report.compare import Comparison
from kdbench.report.differences import gains_over_baseline
from kdbench.report.figures.far import Extent
from kdbench.report.figures.looks import colours_of
from kdbench.report.figures.rows import rows_of
from kdbench.report.figures.sheet import GREY, Need, NothingToDrawError, font_pt, sheet
from kdbench.report.statistics.comparisons import Difference
from kdbench.report.tables.cells import on_data

LONG = 3.0
"""An interval that reaches farther than so many times the usual reach ends in an arrow at the edge."""


def forest(comparison: Comparison) -> Figure:
    """Each method's mean gain over the baseline, and its 95 % intervals; a panel for each pair in which the baseline is done.

    A thick bar is the interval over new seeds, a thin one that over new seeds and new test images. A full mark is a gain whose
    interval over seeds excludes 0. Right of 0 is better, whatever the metric.

    Raises:
        KdbenchError: the baseline or all other methods have no finished trial, or the figure does not fit its size.
    """
    baseline, metric = comparison.baseline, comparison.metric
    pairs = [pair for pair in comparison.pairs if len(pair.by_seed(baseline))]
    labels = [label for label in comparison.labels if label != baseline]
    if not pairs or not labels:
        raise NothingToDrawError(
            f"there is no gain over {baseline} to draw. Run it and another method, or choose another baseline."
        )
    colours = colours_of(comparison)
    rows = rows_of(comparison, labels, pitch=1.4)
    found = {pair.name: {gain.method: gain for gain in gains_over_baseline(comparison, pair).differences} for pair in pairs}
    drawn = [gain for gains in found.values() for gain in gains.values()]
    need = Need(
        lines=rows.lines,
        letters=20,
        across=f"gain over {comparison.baseline} ({metric.points}), better →",
        margin=rows.margin,
        legend=_legend(drawn),
    )
    names = [pair.name for pair in pairs]
    with sheet(f"Gain over {baseline}{on_data(comparison)}", comparison, names, need) as (figure, panels):
        for axes, pair in zip(panels, pairs, strict=True):
            axes.axvline(0, color=GREY, linewidth=font_pt(axes) / 8, zorder=1)
            gains = found[pair.name]
            for label, gain in gains.items():
                _row(axes, rows.places[label], gain, colours[label])
            rows.set_range(axes, _extents(gains), colours, always=0.0)
            for label, gain in gains.items():
                _mark_long(axes, rows.places[label], gain, colours[label])
        rows.show(panels)
    return figure


def _legend(gains: Sequence[Difference]) -> list[Line2D]:
    """Of the intervals that some gain has, and of hollow marks."""
    seeds = Line2D([], [], color=GREY, linewidth=2.4, label="95 %, new seeds")
    images = Line2D([], [], color=GREY, linewidth=0.9, label="95 %, new seeds and images")
    hollow = Line2D([], [], color=GREY, linestyle="", marker="o", markerfacecolor="white", label="may be chance")
    known = (
        (seeds, any(gain.bounds for gain in gains)),
        (images, any(gain.bounds_with_images for gain in gains)),
        (hollow, any(gain.bounds and not gain.beyond_chance for gain in gains)),
    )
    return [line for line, is_known in known if is_known]


def _widest(gain: Difference) -> tuple[float, float]:
    return gain.bounds_with_images or gain.bounds or (gain.gain, gain.gain)


def _extents(gains: Mapping[str, Difference]) -> dict[str, Extent]:
    """What the panel has room for: of an interval, no more than so many times the usual reach."""
    ends = {label: _widest(gain) for label, gain in gains.items()}
    most = LONG * median([(high - low) / 2 for low, high in ends.values()] or [0.0])
    return {
        label: Extent(max(low, gains[label].gain - most), min(high, gains[label].gain + most), gains[label].gain)
        for label, (low, high) in ends.items()
    }


def _mark_long(axes: Axes, place: float, gain: Difference, colour: str) -> None:
    """Arrows at the edges that an interval goes beyond, where its gain lies between them."""
    (low, high), (left, right) = _widest(gain), axes.get_xlim()
    if left < gain.gain < right:
        for edge, marker, beyond in ((left, CARETLEFT, low < left), (right, CARETRIGHT, high > right)):
            if beyond:
                axes.plot(edge, place, marker=marker, color=colour, markersize=font_pt(axes) * 0.7)


def _row(axes: Axes, place: float, gain: Difference, colour: str) -> None:
    size = font_pt(axes)
    for bounds, width in ((gain.bounds_with_images, size / 9), (gain.bounds, size / 3.2)):
        if bounds:
            axes.hlines(place, *bounds, color=colour, linewidth=width, zorder=3)
    face = colour if gain.beyond_chance else "white"
    axes.plot(gain.gain, place, "o", markersize=size * 0.55, markerfacecolor=face, markeredgecolor=colour, zorder=4)
