"""How far simultaneous 95 % intervals reach, in standard errors: one number for a whole family of comparisons.

All functions take degrees of freedom, one or an array of them, which need not be whole but are at least 2, and give numbers of the
same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import ndtr

LEVEL = 0.95

FloatArray = NDArray[np.float64]

_KNOTS = (2.0, 3.0, 6.0, 20.0, 1e7)
"""Degrees of freedom at which a quantile is computed; between them it is interpolated, since it is slow."""


def sidak(df: ArrayLike, comparisons: int) -> FloatArray:
    """Student's t for so many comparisons, each with a standard error of its own (Sidak, 1967)."""
    return np.asarray(stats.t.isf((1 - LEVEL ** (1 / comparisons)) / 2, df), float)


def dunnett(df: ArrayLike, comparisons: int) -> FloatArray:
    """For many methods against one, all with the same standard error (Dunnett, 1955).

    Any two such differences have a correlation of 1/2, since they share the one. That turns the multivariate t into an integral
    over that one's error and one over the standard error.
    """
    return sidak(df, 1) if comparisons == 1 else _at(df, _dunnett, comparisons)


def tukey(df: ArrayLike, methods: int) -> FloatArray:
    """For all pairs of methods, all with the same standard error of a difference (Tukey, 1953; Kramer, 1956)."""
    return sidak(df, 1) if methods == 2 else _at(df, _tukey, methods)


@lru_cache(1024)
def _dunnett(df: float, comparisons: int) -> float:
    shared, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / np.sqrt(2 * np.pi)
    at, steps = np.polynomial.legendre.leggauss(160)
    at, steps = (at + 1) / 2, steps / 2
    steps, at = steps * 6 * at * (1 - at), at**2 * (3 - 2 * at)  # more points where the standard error is smallest and largest
    scale = np.sqrt(stats.chi2.ppf(at, df) / df) * np.sqrt(2)

    def missed(reach: float) -> float:
        wide = (reach * scale)[:, None]
        inside = ndtr(wide + shared) - ndtr(shared - wide)
        return float(steps @ (inside**comparisons @ weights)) - LEVEL

    return float(brentq(missed, 0.5, 1e4, xtol=1e-9))


@lru_cache(1024)
def _tukey(df: float, methods: int) -> float:
    return float(stats.studentized_range.ppf(LEVEL, methods, df)) / 2**0.5


def _at(df: ArrayLike, quantile: Callable[[float, int], float], size: int) -> FloatArray:
    """Exact where degrees of freedom are whole and few differ, otherwise interpolated."""
    degrees = np.asarray(df, float)
    different = np.unique(degrees)
    if len(different) <= 3 and (different % 1 == 0).all():
        values = np.array([quantile(float(one), size) for one in different])
        return values[np.searchsorted(different, degrees)]
    return np.asarray(np.exp(_curve(quantile, size)(1 / degrees)))


@lru_cache(256)
def _curve(quantile: Callable[[float, int], float], size: int) -> CubicSpline:
    inverse = [1 / df for df in reversed(_KNOTS)]
    return CubicSpline(inverse, [np.log(quantile(df, size)) for df in reversed(_KNOTS)])
