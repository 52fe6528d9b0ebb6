"""Performance profile: in how many pairs a method is close to the best."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kdbench.report.compare import Comparison
from kdbench.report.differences import means_of_pairs
from kdbench.report.figures.looks import colours_repeat, looks_of, spread_markers
from kdbench.report.figures.sheet import Need, NothingToDrawError, font_pt, sheet
from kdbench.report.statistics.several_pairs import performance_profile
from kdbench.report.tables.cells import on_data
from kdbench.spec.metrics import METRICS


def profile(comparison: Comparison) -> Figure:
    """The share of pairs in which a method's mean is at most so many times the lowest of that pair (Dolan and More, 2002).

    It shows the error where what is better higher is compared, since a multiple of an accuracy says little.

    Raises:
        KdbenchError: there is one pair alone, or the figure does not fit its size.
    """
    if len(comparison.pairs) < 2:
        raise NothingToDrawError("a performance profile needs two pairs or more, and here is one. Leave out the figure `profile`.")
    metric = comparison.metric if comparison.metric.lower_is_better else METRICS["error"]
    shares = performance_profile(means_of_pairs(comparison.of(metric)))
    looks = {label: look for label, look in looks_of(comparison).items() if shares[label].any()}
    marked = colours_repeat(looks.values())
    need = Need(
        lines=13,
        letters=32,
        across=f"{metric.short}, as a multiple of a pair's lowest",
        up=f"share of {len(comparison.pairs)} pairs ↑",
        legend=[look.line(width=1.4, label=label, marked=marked) for label, look in looks.items()],
    )
    with sheet(f"Performance profile{on_data(comparison)}", comparison, [""], need) as (figure, (axes,)):
        size, end = font_pt(axes), 1 + 1.03 * max(0.01, float(shares.index[-1]) - 1)
        for number, (label, look) in enumerate(looks.items()):
            line = look.line(width=size / 7, label=label, marked=marked)
            spread_markers(line, number=number)
            line.set(data=([*shares.index, end], [*shares[label], shares[label].iloc[-1]]), drawstyle="steps-post")
            axes.add_line(line)
        axes.set(xlim=(1 - 0.02 * (end - 1), end), ylim=(-0.04, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    return figure
