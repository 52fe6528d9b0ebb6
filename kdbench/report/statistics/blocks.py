"""Simultaneous intervals of differences between methods that share seeds, of many sets of errors at once.

The errors of M methods and S seeds are a randomised block design: error = method + seed + residual. The page "Statistics" explains
the choices that this module makes, and `tests/bench/coverage.py` measures how often its intervals hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdbench.report.statistics import quantiles
from kdbench.report.statistics.quantiles import FloatArray

FAR = 0.01
"""A method is far from the others if spreads as unequal as these are rarer than this among equal ones."""

SEEDS_THAT_SHOW_SPREADS = 5
"""With fewer seeds no test can tell unequal spreads from equal ones, so no interval relies on equal ones."""

DOUBT = {"Dunnett": 0.2, "Tukey": 0.4}
"""Spreads that are equal in truth look less equal than this by chance in so many cases. From here on, no interval relies on it."""

BoolArray = NDArray[np.bool_]


class Basis(StrEnum):
    """Which spread an interval rests on."""

    SHARED = "shared"
    """The residual that all methods share, on (methods - 1)(seeds - 1) degrees of freedom."""
    TWO_METHODS = "two methods"
    """The spreads of the two methods, where these give the wider interval and spreads may be unequal (Games and Howell, 1976)."""
    OWN = "own"
    """The paired differences of the two methods alone, on (seeds - 1) degrees of freedom."""
    NONE = "none"
    """Fewer than three seeds: no interval."""


@dataclass(frozen=True)
class Spreads:
    """How the methods of each set of errors vary over seeds, apart from what a seed does to all of them.

    Attributes:
        values: (N, M, S), the errors.
        far: (N, M), whether a method's spread is far above those of the others.
        p: (N, M), of the F test that a method spreads as the others that are not far; 1 for those that are far.
    """

    values: FloatArray
    far: BoolArray
    p: FloatArray

    @cached_property
    def near(self) -> FloatArray:
        """(N,) how many methods are not far from the others."""
        return np.asarray((~self.far).sum(1), float)

    @cached_property
    def variances(self) -> FloatArray:
        """(N, M) of each method, from its residuals; 0 for those that are far."""
        squares, _ = _squares(self.values, self.far)
        return np.asarray(squares / (self.values.shape[2] - 1))

    @cached_property
    def shared_df(self) -> FloatArray:
        """(N,) degrees of freedom of the residual."""
        return np.asarray((self.near - 1) * (self.values.shape[2] - 1))

    @cached_property
    def shared_variance(self) -> FloatArray:
        """(N,) the residual of all methods that are not far."""
        _, total = _squares(self.values, self.far)
        return np.asarray(total / self.shared_df)

    @cached_property
    def p_equal(self) -> FloatArray:
        """(N,) of the test that all methods which are not far have the same spread; Bonferroni's over methods."""
        return np.asarray(np.minimum(1, self.p.min(1) * self.near))


def spreads(values: FloatArray) -> Spreads:
    """Compare the methods' spreads in errors (N, M, S), and set apart those that are far above the others, one by one."""
    far = np.zeros(values.shape[:2], bool)
    while True:
        found = Spreads(values, far, _spread_test(values, far))
        strange = np.flatnonzero(found.p_equal < FAR)
        if not len(strange):
            return found
        far = far.copy()
        far[strange, found.p[strange].argmin(1)] = True


def _squares(values: FloatArray, far: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Each method's squares (N, M) on (seeds - 1) degrees of freedom, and those of all residuals (N,); methods that are far left
    out.

    The first are of the contrast of a method with the mean of the others.
    """
    near = ~far
    count = near.sum(1)[:, None]
    residuals = values - (values * near[:, :, None]).sum(1, keepdims=True) / count[:, :, None]
    residuals = (residuals - residuals.mean(2, keepdims=True)) * near[:, :, None]
    squares = (residuals**2).sum(2)
    return squares * count / np.maximum(count - 1, 1), squares.sum(1)


def _spread_test(values: FloatArray, far: BoolArray) -> FloatArray:
    """(N, M) p of the F test of a method against the rest of the residual, which is independent of it where spreads are equal."""
    near = (~far).sum(1)[:, None]
    squares, total = _squares(values, far)
    rest = total[:, None] - squares
    df, rest_df = values.shape[2] - 1, (near - 2) * (values.shape[2] - 1)
    tested = ~far & (near > 2) & (rest > 1e-12 * total[:, None])
    ratio = np.divide(squares * rest_df, rest * df, out=np.zeros_like(squares), where=tested)
    return np.where(tested, stats.f.sf(ratio, df, np.maximum(rest_df, 1)), 1.0)


@dataclass(frozen=True)
class Intervals:
    """Differences of K comparisons in each of N sets of errors, and their simultaneous 95 % intervals.

    Attributes:
        family: `Dunnett` or `Tukey`.
        size: what the family counts: comparisons, or methods.
        comparisons: K.
        gains: (N, K), the mean error of the reference minus that of the method, in the errors' units.
        variances: (N, K), of these over seeds.
        df: (N, K), degrees of freedom of the variances.
        own: (N, K), whether an interval rests on the paired differences alone.
        two_methods: (N, K), whether it rests on the spreads of the two methods.
        unequal: (N,), whether spreads may be unequal.
        spreads: of the errors.
    """

    family: str
    size: int
    gains: FloatArray
    variances: FloatArray
    df: FloatArray
    own: BoolArray
    two_methods: BoolArray
    unequal: BoolArray
    spreads: Spreads

    def reach(self, image_variances: FloatArray | float = 0.0) -> FloatArray:
        """(N, K) half of each interval's width.

        With `image_variances`, (N, K) or one for all, the interval is over new seeds and new test images: the two variances add up,
        and the degrees of freedom are Satterthwaite's. These may rise so much that the interval would be narrower; then it stays.
        """
        over_seeds = _reach(self.family, self.size, self.df, self.variances, self.own)
        variances = self.variances + image_variances
        ratio = np.divide(variances, self.variances, out=np.ones_like(variances), where=self.variances > 0)
        df = np.minimum(self.df * ratio**2, 1e6)
        return np.asarray(np.maximum(over_seeds, _reach(self.family, self.size, df, variances, self.own)))


def block_intervals(values: FloatArray, *, baseline: int | None, size: int | None = None) -> Intervals:
    """Compare the methods of errors (N, M, S): each with the one at `baseline` (Dunnett), or all pairs (Tukey) where it is None.

    Comparisons are in the order of methods; all pairs in that of `numpy.triu_indices`, the first of a pair as the reference. `size`
    is that of the family, comparisons or methods, where it has more than these.
    """
    _, methods, seeds = values.shape
    first, second = _compared(methods, baseline)
    family = "Tukey" if baseline is None else "Dunnett"
    size = size or (methods if baseline is None else methods - 1)
    found = spreads(values)
    differences = values[:, first] - values[:, second]
    own = found.far[:, first] | found.far[:, second]
    shared = np.broadcast_to(2 * found.shared_variance[:, None] / seeds, own.shape)
    shared_df = np.broadcast_to(found.shared_df[:, None], own.shape)
    one, other = found.variances[:, first], found.variances[:, second]
    both = (one + other) / seeds
    both_df = np.divide((one + other) ** 2, one**2 + other**2, out=np.ones_like(both), where=both > 0) * (seeds - 1)
    both_df = np.minimum(both_df, np.maximum(shared_df, 1))
    unequal = found.p_equal < DOUBT[family]
    if baseline is not None:  # every comparison rests on the baseline's spread
        unequal |= found.p[:, baseline] < DOUBT[family]
    if seeds < SEEDS_THAT_SHOW_SPREADS:
        unequal = np.full_like(unequal, methods > 2)
    reach = partial(_reach, family, size, own=own)
    two_methods = unequal[:, None] & ~own
    two_methods &= reach(df=both_df, variances=both) > reach(df=np.maximum(shared_df, 1), variances=shared)
    variances = np.where(two_methods, both, shared)
    df = np.where(two_methods, both_df, shared_df)
    return Intervals(
        family,
        size,
        differences.mean(2),
        np.where(own, differences.var(2, ddof=1) / seeds, variances),
        np.where(own, seeds - 1, df),
        own,
        two_methods,
        unequal,
        found,
    )


def _compared(methods: int, baseline: int | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if baseline is None:
        return np.triu_indices(methods, 1)
    others = np.delete(np.arange(methods), baseline)
    return np.full_like(others, baseline), others


def _reach(family: str, size: int, df: FloatArray, variances: FloatArray, own: BoolArray) -> FloatArray:
    tukey = family == "Tukey"
    shared = quantiles.tukey(df, size) if tukey else quantiles.dunnett(df, size)
    return np.where(own, quantiles.sidak(df, size * (size - 1) // 2 if tukey else size), shared) * np.sqrt(variances)
