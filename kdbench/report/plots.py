"""The figures of a comparison: one panel for each pair, one look for each method everywhere."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox, ScaledTranslation

from kdbench.errors import KdbenchError
from kdbench.report.compare import Comparison
from kdbench.report.gains import confidence_interval
from kdbench.report.notes import seeds_sentence
from kdbench.report.selection import tested
from kdbench.report.statistics.comparisons import MIN_SEEDS

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
"""Okabe and Ito's palette without yellow and black, and a wine red: any two differ under each kind of colour blindness."""

_SHAPES = (("o", ()), ("s", (5, 1.5)), ("^", (1.5, 1.2)), ("D", (6, 1.5, 1.5, 1.5)))
"""Marker, and lengths of ink and gap in points; a line without them is solid."""

_KNOWN = (
    *("KD", "AT", "FitNets", "FT", "AT+KD", "FT+KD", "FitNets hint"),
    *("SP", "CC", "VID", "RKD", "PKT", "AB", "FSP"),
    *("NST", "CRD", "OFD", "ReviewKD", "DKD", "DIST", "SimKD"),
)
"""Methods whose looks never depend on what stands beside them; seven colours to a line."""

_GREY = "#555555"

_MAX_BANDS = 8
"""With more methods, bands would hide one another."""

_LONGEST_LINE = 40
"""Letters of a panel's name that fit over it; longer names are broken before the arrow."""

_FEW_EPOCHS = 20
"""A curve of fewer points shows each, and its last quarter is no panel of its own."""

_THEME = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("paper"),
    **{f"axes.spines.{side}": False for side in ("top", "right")},
    "axes.edgecolor": _GREY,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.titleweight": "bold",
    "figure.titlesize": 10,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: str
    marker: str
    dashes: tuple[float, ...]

    def line(self, *, width: float, label: str = "") -> Line2D:
        """A line for a legend or, with its data set, for a panel."""
        return Line2D([], [], color=self.colour, linestyle=(0, self.dashes) if self.dashes else "-", linewidth=width, label=label)


def method_looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label; up to 29 labels all look different.

    Scratch is black. A known method always has its own look; a new one has the look that its name hashes to, or the next one that
    is free among `labels`.
    """
    looks = [Look(colour, *shape) for shape in _SHAPES for colour in _COLOURS]
    fixed = {"scratch": Look("#000000", "o", ()), **dict(zip(_KNOWN, looks, strict=False))}
    labels = list(labels)
    chosen = {label: fixed[label] for label in labels if label in fixed}
    for label in sorted(set(labels) - set(chosen)):
        start = int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest()) % len(looks)
        turn = looks[start:] + looks[:start]
        chosen[label] = next((look for look in turn if look not in chosen.values()), turn[0])
    return {label: chosen[label] for label in labels}


def method_colours(labels: Iterable[str]) -> dict[str, str]:
    """The colour of each label, as in every figure."""
    return {label: look.colour for label, look in method_looks(labels).items()}


def result_plot(comparison: Comparison) -> Figure:
    """The metric at the last epoch by method: every seed a dot, the mean with its 95 % interval, the teacher a line.

    Raises:
        KdbenchError: no trial is done.
    """
    metric = comparison.metric
    looks = method_looks(comparison.labels)
    names = [pair.name for pair in comparison.pairs]
    height = 0.9 + 0.24 * len(looks)
    with _figure(f"{metric.title} by method", comparison, names, width=3.9, height=height, foot=0.3) as (
        figure,
        panels,
    ):
        for axes, pair in zip(panels, comparison.pairs, strict=True):
            for position, label in enumerate(looks):
                errors = pair.by_seed(label)
                if len(errors):
                    _error_row(axes, position, errors, looks[label].colour)
            _teacher_line(axes, pair.of_teacher)
            axes.set_yticks(range(len(looks)), list(looks))
            axes.set_ylim(len(looks) - 0.4, -0.5)
            axes.grid(axis="y", visible=False)
            axes.set_xlabel(f"{metric.axis}, last epoch {metric.arrow}")
        handles = [
            Line2D([], [], color=_GREY, marker="o", linestyle="", markersize=3.5, alpha=0.6, label="one seed"),
            Line2D([], [], color=_GREY, marker="|", linestyle="", markersize=9, markeredgewidth=2, label="mean"),
            Line2D([], [], color=_GREY, linewidth=1.4, label=f"95 % interval of the mean, unpaired (n ≥ {MIN_SEEDS})"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _error_row(axes: Axes, position: int, errors: pd.Series[float], colour: str) -> None:
    """The mean and its interval, and the seeds as dots under it."""
    interval = confidence_interval(errors)
    below = 0.27 + 0.1 * errors.groupby(errors.round(2)).cumcount()  # equal ones stand under one another
    axes.scatter(errors, position + below, s=13, color=colour, alpha=0.6, linewidths=0, zorder=3)
    if interval.bounds:
        axes.hlines(position, *interval.bounds, color=colour, linewidth=1.4, zorder=2)
    axes.plot(interval.mean, position, marker="|", markersize=9, markeredgewidth=2.2, color=colour, zorder=4)


def _teacher_line(axes: Axes, errors: pd.Series[float]) -> None:
    if len(errors):
        error = float(errors.mean())
        axes.axvline(error, color=_GREY, linestyle=(0, (4, 2)), linewidth=1, zorder=1)
        above = axes.get_xaxis_transform() + ScaledTranslation(0, 2 / 72, axes.figure.dpi_scale_trans)
        axes.text(error, 1, f"teacher {error:.2f}", transform=above, ha="center", va="bottom", fontsize=7, color=_GREY)


def curves_plot(comparison: Comparison, curves: pd.DataFrame) -> Figure:
    """Test error against epoch of the main stage, and its last quarter apart where the training is long: the mean over seeds, and a
    band of one standard deviation around it unless there are many methods.

    Raises:
        KdbenchError: no trial is done.
    """
    looks = method_looks(comparison.labels)
    with_bands = len(looks) <= _MAX_BANDS
    metric = tested(comparison.metric)
    title = f"{metric.title} during training, mean{' ± standard deviation' if with_bands else ''} over seeds"
    main = curves[(curves["stage"] == "main") & curves["test_error_pct"].notna()]
    parts = ("", ", last quarter") if main["epoch"].max() >= _FEW_EPOCHS else ("",)
    names = [pair.name + part for pair in comparison.pairs for part in parts]
    in_a_row = max(1, min(5, 75 // (max(map(len, looks)) + 6)))
    legend_rows = math.ceil(len(looks) / in_a_row)
    columns = 2 if len(parts) > 1 else 0
    with _figure(title, comparison, names, columns=columns, width=3.6, height=2.6, foot=0.2 * legend_rows) as (figure, panels):
        for place, pair in enumerate(comparison.pairs):
            whole, *end = panels[len(parts) * place : len(parts) * (place + 1)]
            trials = main.merge(pair.done[["trial", "label"]], on="trial")
            trials = trials.assign(value=metric.of(trials["test_error_pct"]))
            _mean_curves(whole, trials, looks, with_bands=with_bands)
            for axes in end:
                _mean_curves(axes, trials[trials["epoch"] > 0.75 * trials["epoch"].max()], looks, with_bands=with_bands)
                axes.set_ylabel(metric.axis)
            whole.set_ylabel(metric.axis)
            if metric.lower_is_better:
                whole.set_yscale("log")
                whole.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
                whole.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                whole.yaxis.set_minor_formatter(NullFormatter())
                whole.set_ylabel(f"{metric.axis}, logarithmic")
        handles = [look.line(width=1.6, label=label) for label, look in looks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=math.ceil(len(looks) / legend_rows), handlelength=3)
    return figure


def _mean_curves(axes: Axes, curves: pd.DataFrame, looks: Mapping[str, Look], *, with_bands: bool) -> None:
    for label, rows in curves.groupby("label"):
        errors = rows.groupby("epoch")["value"].agg(["mean", "std"])
        line = looks[str(label)].line(width=1.2)
        line.set_data(errors.index, errors["mean"])
        if len(errors) < _FEW_EPOCHS:
            line.set(marker=looks[str(label)].marker, markersize=3.5)
        axes.add_line(line)
        if with_bands:
            low, high = errors["mean"] - errors["std"], errors["mean"] + errors["std"]
            axes.fill_between(errors.index, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.autoscale()
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")


_UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))


def cost_plot(comparison: Comparison) -> Figure:
    """The metric at the last epoch against the time of training, as each method would cost alone; a panel for each environment.

    Raises:
        KdbenchError: no trial is done.
    """
    looks = method_looks(comparison.labels)
    measured = [
        (pair.name, str(environment), trials)
        for pair in comparison.pairs
        for environment, trials in pair.done.groupby("environment", sort=False)
    ]
    environments = {environment for _, environment, _ in measured}
    names = [f"{name}\n{environment}" if len(environments) > 1 else name for name, environment, _ in measured]
    metric = comparison.metric
    title = f"{metric.title} against the time of training"
    if len(environments) == 1:
        title += f"\n{measured[0][1]}"
    with _figure(title, comparison, names, width=4.2, height=3.3) as (figure, panels):
        named = []
        for axes, (_, _, trials) in zip(panels, measured, strict=True):
            valued = trials.assign(value=metric.of(trials[metric.column]))
            points = valued.groupby("label").agg(cost=("train_s", "median"), value=("value", "mean"), std=("value", "std"))
            size, unit = next(((size, unit) for size, unit in _UNITS if points["cost"].max() >= 2 * size), _UNITS[-1])
            points["cost"] /= size
            for label, point in points.iterrows():
                look = looks[str(label)]
                axes.errorbar(point["cost"], point["value"], point["std"], color=look.colour, linewidth=0.8, alpha=0.45)
                axes.plot(point["cost"], point["value"], color=look.colour, marker=look.marker, markersize=5)
            axes.margins(0.15)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.set_xlabel(f"training of one student ({unit}), left is cheaper")
            axes.set_ylabel(f"{metric.axis} of the last epoch {metric.arrow},\nmean ± standard deviation")
            named.append(points)
        figure.draw_without_rendering()
        for axes, points in zip(panels, named, strict=True):
            _name_points(axes, points, looks)
    return figure


def _name_points(axes: Axes, points: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    """Write each point's name at the nearest place that touches no other point and no other name; far ones with a line to it."""
    centres = axes.transData.transform(points[["cost", "value"]])
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centres]
    points_per_pixel = 72 / axes.figure.dpi
    for (label, point), (x, y) in zip(points.iterrows(), centres, strict=True):
        place = (point["cost"], point["value"])
        colour = looks[str(label)].colour
        name = axes.annotate(
            str(label), place, (0, 0), textcoords="offset points", ha="center", va="center", fontsize=8, color=colour
        )
        name.set(in_layout=False, path_effects=[withStroke(linewidth=2, foreground="white")])
        size = name.get_window_extent()
        spot = min(_spots(x, y, size.width, size.height), key=lambda spot: _crowding(spot, taken, axes.bbox))
        taken.append(spot.padded(3))
        name.xyann = ((spot.x0 + spot.x1) / 2 - x) * points_per_pixel, ((spot.y0 + spot.y1) / 2 - y) * points_per_pixel
        dx, dy = min(max(x, spot.x0), spot.x1) - x, min(max(y, spot.y0), spot.y1) - y
        if math.hypot(dx, dy) > 15:
            end = (dx * points_per_pixel, dy * points_per_pixel)
            line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", place, end, textcoords="offset points", arrowprops=line).set_in_layout(False)


def _spots(x: float, y: float, width: float, height: float) -> Iterator[Bbox]:
    """Boxes around a point, the near ones first."""
    for distance in (6, 14, 24, 36, 50, 66):
        for direction in range(16):
            angle = direction * math.pi / 8
            dx, dy = (distance + width / 2) * math.cos(angle), (distance + height / 2) * math.sin(angle)
            yield Bbox.from_bounds(x + dx - width / 2, y + dy - height / 2, width, height)


def _crowding(spot: Bbox, taken: Sequence[Bbox], panel: Bbox) -> float:
    """Area of `spot` that is covered already or lies outside the panel."""
    inside = Bbox.intersection(spot, panel)
    covered = [shared.width * shared.height for other in taken if (shared := Bbox.intersection(spot, other))]
    return sum(covered) + spot.width * spot.height - (inside.width * inside.height if inside else 0)


@contextmanager
def _figure(
    title: str, comparison: Comparison, names: Sequence[str], *, width: float, height: float, columns: int = 0, foot: float = 0.0
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A titled figure under the project's theme, with a named panel of `width` x `height` inches for each of `names`.

    `columns` of panels, chosen by their number where it is 0; `foot` inches are left for a legend under them.

    Raises:
        KdbenchError: no trial is done.
    """
    done = comparison.results[comparison.results["status"] == "done"]
    if done.empty:
        raise KdbenchError("there is nothing to draw, since no trial is done. Run the suite first.")
    columns = columns or (1 if len(names) == 1 else 2 if len(names) <= 4 else 3)
    rows = math.ceil(len(names) / columns)
    with mpl.rc_context(_THEME):
        across = max(width * columns, 5.5)
        figure = Figure(figsize=(across, height * rows + 0.5 + foot), layout="constrained")
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, name in zip(grid, names, strict=False):
            axes.set_title(name.replace(" → ", "\n→ ") if len(name) > _LONGEST_LINE else name, pad=15)
        for spare in grid[len(names) :]:
            spare.remove()
        on = f"{comparison.datasets[0]}, " if len(comparison.datasets) == 1 else ""
        lines = f"{title}\n{on}{seeds_sentence(done).rstrip('.')}".split("\n")
        figure.suptitle("\n".join(part for line in lines for part in wrap(line, width=int(12 * across))))
        yield figure, grid[: len(names)]


def save(figure: Figure, stem: Path, *, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write `stem.png` (200 dots per inch) and `stem.pdf` (fonts embedded as TrueType); the bytes do not depend on the time."""
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in formats]
    for file in files:
        metadata = {"CreationDate": None} if file.suffix == ".pdf" else {}
        with mpl.rc_context({"pdf.fonttype": 42}):
            figure.savefig(file, dpi=200, metadata=metadata)
    return files
