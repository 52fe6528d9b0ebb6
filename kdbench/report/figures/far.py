"""Which methods are so far off that a figure which shows them would show nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

FACTOR = 4.0
"""Some methods are far off where the others' range is smaller than all methods' by this factor."""


class Extent(NamedTuple):
    """The ends of what is drawn of a method, and its middle."""

    low: float
    high: float
    middle: float


def shown_range(extents: Mapping[str, Extent], *, always: float = math.nan) -> tuple[float, float, list[str]]:
    """The range of an axis, and the methods that it leaves out since they are far off: fewer than half of them.

    The range has the number `always` in any case; not a number stands for none.
    """
    near = dict(extents)
    low, high = _ends(near, always)
    for _ in range((len(extents) - 1) // 2):
        middle = median(extent.middle for extent in near.values())
        near.pop(max(near, key=lambda label: abs(near[label].middle - middle)))
        ends = _ends(near, always)
        if high - low >= FACTOR * (ends[1] - ends[0]):
            low, high = ends
    return low, high, [label for label, extent in extents.items() if not low <= extent.middle <= high]


def _ends(extents: Mapping[str, Extent], always: float) -> tuple[float, float]:
    shown = [end for extent in extents.values() for end in (extent.low, extent.high)]
    shown += [] if math.isnan(always) else [always]
    return min(shown), max(shown)


def far_text(value: float) -> str:
    """The mean of a method that is left out, to stand beside an arrow."""
    return f"{value:.2f}".replace("-", "−")
