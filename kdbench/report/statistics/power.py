"""What so many seeds can show, before anything is trained, for the intervals of `against_baseline`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr

from kdbench.report.statistics.blocks import block_intervals, spreads
from kdbench.report.statistics.comparisons import MIN_SEEDS
from kdbench.report.statistics.quantiles import FloatArray

POWER = 0.8
"""A difference counts as one that can be found if it is found four times of five."""

MOST_SEEDS = 1000


@dataclass(frozen=True)
class Spread:
    """How much the difference of two methods changes from seed to seed.

    Attributes:
        points: its standard deviation over seeds, in the errors' units.
        df: degrees of freedom that it was measured with; 0 where it was not measured.
        far: methods that vary far more and are not part of it, each with the standard deviation of its difference from the others.
    """

    points: float
    df: int
    far: tuple[tuple[str, float], ...] = ()

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where it may lie, from its degrees of freedom (chi-squared, 95 %); None where it was not measured."""
        if not self.df:
            return None
        low, high = (self.points * (self.df / stats.chi2.ppf(level, self.df)) ** 0.5 for level in (0.975, 0.025))
        return float(low), float(high)


def measured_spread(block: pd.DataFrame) -> Spread | None:
    """From errors that are there, one row for each seed and one column for each method, none missing (`largest_block`): sqrt(2)
    times the residual that methods share.

    Methods that vary far more than the others are left out, and named. None where there are fewer than two methods or seeds, or
    nothing varies.
    """
    seeds, methods = block.shape
    if seeds < 2 or methods < 2:
        return None
    found = spreads(block.to_numpy(float).T[None])
    points, far = float(np.sqrt(2 * found.shared_variance[0])), found.far[0]
    others = block.loc[:, ~far]
    own = {str(name): float(others.rsub(block[name], axis=0).var(ddof=1).mean() ** 0.5) for name in block.columns[far]}
    return Spread(points, int(found.shared_df[0]), tuple(own.items())) if points > 0 else None


def pooled(found: list[Spread]) -> Spread | None:
    """One spread of several pairs, each by its degrees of freedom."""
    df = sum(spread.df for spread in found)
    far = tuple(named for spread in found for named in spread.far)
    return Spread((sum(spread.df * spread.points**2 for spread in found) / df) ** 0.5, df, far) if df else None


def power(difference: float, *, spread: float, seeds: int, methods: int) -> float:
    """How often a true difference of one method from the baseline is found: its interval of `against_baseline` excludes 0.

    Args:
        difference: the true one, in points.
        spread: the standard deviation over seeds of the difference of two methods, in points, the same for all methods.
        seeds: at least 3.
        methods: with the baseline.
    """
    shift, reach = difference / (spread / seeds**0.5), _reaches(seeds, methods)
    return float((ndtr(shift - reach) + ndtr(-shift - reach)).mean())


def smallest_difference(*, spread: float, seeds: int, methods: int) -> float | None:
    """The smallest true difference, in points, that is found four times of five; None with fewer than 3 seeds, which give no
    interval.

    Arguments as of `power`.
    """
    if seeds < MIN_SEEDS:
        return None
    unit = spread / seeds**0.5
    return float(brentq(lambda points: power(points, spread=spread, seeds=seeds, methods=methods) - POWER, 0.1 * unit, 1e4 * unit))


def seeds_needed(difference: float, *, spread: float, methods: int) -> int | None:
    """The least number of seeds with which a true difference is found four times of five; None where that is above 1,000."""

    def enough(seeds: int) -> bool:
        return power(difference, spread=spread, seeds=seeds, methods=methods) >= POWER

    low, high = MIN_SEEDS - 1, MIN_SEEDS
    while not enough(high):
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@lru_cache(256)
def _reaches(seeds: int, methods: int) -> FloatArray:
    """How far the intervals reach where all methods spread equally, in standard deviations of a mean difference.

    That depends on the residuals alone, which say nothing of the means. So it is drawn once, always the same, and the rest is
    computed.
    """
    draws = int(np.clip(300_000 // (seeds * methods), 200, 4000))
    values = np.random.default_rng(0).normal(scale=0.5**0.5, size=(draws, methods, seeds))
    return np.asarray(block_intervals(values, baseline=0).reach() * seeds**0.5)
