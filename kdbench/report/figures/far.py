"""Which methods are so far off that a figure which shows them would show nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

from kdbench.spec.metrics import Metric

DISTANCE = 2.0
"""A method is far off where so many times the range of the others lies between it and them."""


class Extent(NamedTuple):
    """The ends of what is drawn of a method, and its middle."""

    low: float
    high: float
    middle: float


def shown_range(extents: Mapping[str, Extent], *, always: float = math.nan) -> tuple[float, float, list[str]]:
    """The range of an axis, and the methods that it leaves out since they are far off: fewer than half of them.

    The range has the number `always` in any case; not a number stands for none. Where the others are all equal, nothing is squeezed
    by a method that is not, and none is left out.
    """
    near, rest = dict(extents), dict(extents)
    low, high = _ends(near, always)
    for _ in range((len(extents) - 1) // 2):
        middle = median(extent.middle for extent in rest.values())
        rest.pop(max(rest, key=lambda label: abs(rest[label].middle - middle)))
        ends = _ends(rest, always)
        room = DISTANCE * (ends[1] - ends[0])
        if room and not any(ends[0] - room < near[label].middle < ends[1] + room for label in near.keys() - rest.keys()):
            near, (low, high) = dict(rest), ends
    return low, high, [label for label in extents if label not in near]


def _ends(extents: Mapping[str, Extent], always: float) -> tuple[float, float]:
    shown = [end for extent in extents.values() for end in (extent.low, extent.high)]
    shown += [] if math.isnan(always) else [always]
    return min(shown), max(shown)


def far_text(value: float, metric: Metric) -> str:
    """The mean of a method that is left out, to stand beside an arrow."""
    return metric.number(value).replace("-", "−")
