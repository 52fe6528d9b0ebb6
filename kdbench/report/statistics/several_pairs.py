"""Methods over several pairs of networks or data sets. A pair is a block here; its seeds are averaged first.

Frames of `means` have one row for each pair and one column for each method, such as mean test errors in percent; lower is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from kdbench.report.statistics.comparisons import Comparisons
from kdbench.report.statistics.quantiles import LEVEL

MIN_PAIRS = 5
"""With fewer pairs, ranks are shown and not tested: with four pairs and three methods, p below 0.05 hardly ever comes out."""


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of methods over pairs, 1 for the best.

    Attributes:
        mean_ranks: by method, the best first.
        pairs: how many pairs have every method.
        left_out: methods that some of the pairs lack.
        pairs_left_out: pairs that lack some of the methods.
        p: of Friedman's test that no method ranks better than another; None where there are too few pairs or methods.
        critical_difference: Nemenyi's at 5 %: mean ranks that differ by less may do so by chance; None as `p`.
        groups: for a critical-difference diagram, the methods, the best first, of each largest group that differs by less.
    """

    mean_ranks: pd.Series[float]
    pairs: int
    left_out: tuple[str, ...]
    pairs_left_out: tuple[str, ...]
    p: float | None
    critical_difference: float | None
    groups: tuple[tuple[str, ...], ...]

    @property
    def procedure(self) -> str:
        """What stands under a table of ranks, in plain words."""
        said = f"Mean rank over {self.pairs} pairs, 1 for the best; equal means share a rank."
        if self.p is None or self.critical_difference is None:
            said += f" Ranks of fewer than {MIN_PAIRS} pairs, or of fewer than 3 methods, are not tested."
        else:
            said += (
                f" Friedman's test that no method ranks better than another: p = {self.p:.2g}. Mean ranks that differ by less than "
                f"{self.critical_difference:.2f} may do so by chance (Nemenyi's critical difference, 5 %)."
            )
        if self.left_out:
            said += f" Left out, since pairs or seeds are missing: {', '.join(self.left_out)}."
        if self.pairs_left_out:
            said += f" Left out, since methods or seeds are missing: {', '.join(self.pairs_left_out)}."
        return said


def ranks(means: pd.DataFrame) -> Ranks:
    """Rank the methods within each pair and average the ranks, over the pairs and methods that have all values (Demsar, 2006)."""
    whole = _whole(means).round(9)  # equal means differ by less than that, and must share a rank
    pairs, methods = whole.shape
    mean_ranks = whole.rank(axis=1).mean().sort_values(kind="stable")
    p = critical = None
    groups: tuple[tuple[str, ...], ...] = ()
    if pairs >= MIN_PAIRS and methods >= 3:
        every_rank_is_shared = whole.nunique(axis=1).max() == 1  # for which Friedman's statistic is 0 / 0
        p = 1.0 if every_rank_is_shared else float(stats.friedmanchisquare(*whole.to_numpy().T).pvalue)
        reach = stats.studentized_range.ppf(LEVEL, methods, np.inf) / 2**0.5
        critical = float(reach * (methods * (methods + 1) / (6 * pairs)) ** 0.5)
        groups = _groups(mean_ranks, critical)
    left_out, pairs_left_out = (
        tuple(map(str, every.difference(kept, sort=False))) for every, kept in zip(means.axes[::-1], whole.axes[::-1], strict=True)
    )
    return Ranks(mean_ranks, pairs, left_out, pairs_left_out, p, critical, groups)


def _whole(means: pd.DataFrame) -> pd.DataFrame:
    """Without the methods, or else the pairs, that lack values: what keeps more values."""
    methods = means.dropna(axis=1)
    pairs = means.dropna(axis=1, how="all").dropna(axis=0)
    return methods if methods.size >= pairs.size else pairs


def _groups(mean_ranks: pd.Series[float], critical: float) -> tuple[tuple[str, ...], ...]:
    found: list[tuple[str, ...]] = []
    for first in mean_ranks:
        close = mean_ranks[(mean_ranks >= first) & (mean_ranks < first + critical)]
        group = tuple(map(str, close.index))
        if len(group) > 1 and not any(set(group) <= set(larger) for larger in found):
            found.append(group)
    return tuple(found)


def average_relative_improvement(means: pd.DataFrame, *, over: str = "KD", start: str = "scratch") -> pd.DataFrame:
    """How much more each method gains over `start` than the method `over` does, as a share of what that gains, averaged over pairs.

    (1 / pairs) sum (gain of the method - gain of `over`) / gain of `over`, in percent: Tian, Krishnan and Isola, 2020,
    arXiv:1910.10699. Pairs in which `over` gains nothing have no such share and are left out.

    Returns:
        One row for each other method: `improvement_pct` and `pairs`, how many were averaged.
    """
    gains = means.rsub(means[start], axis=0)
    counted = gains[gains[over] > 0]
    shares = 100 * counted.drop(columns=[over, start]).sub(counted[over], axis=0).div(counted[over], axis=0)
    return pd.DataFrame({"improvement_pct": shares.mean(), "pairs": shares.count()})


def win_tie_loss(comparisons: Mapping[str, Comparisons]) -> pd.DataFrame:
    """In how many pairs each method is better than each other, level with it, or worse.

    Better and worse mean that the simultaneous interval excludes 0. A tie is a pair whose interval has 0 in it. Pairs with too few
    seeds for an interval are not counted.

    Args:
        comparisons: of all pairs of methods (`all_pairs`), by the name of the pair of networks.

    Returns:
        One row for each two methods, in both orders: `method`, `over`, `wins`, `ties`, `losses`.
    """
    counts: dict[tuple[str, str], list[int]] = {}
    for family in comparisons.values():
        for difference in filter(lambda one: one.bounds, family.differences):
            for seen in (difference, difference.turned()):
                outcome = 1 if not seen.beyond_chance else 0 if seen.gain > 0 else 2
                counts.setdefault((seen.method, seen.over), [0, 0, 0])[outcome] += 1
    return pd.DataFrame([(*pair, *count) for pair, count in counts.items()], columns=["method", "over", "wins", "ties", "losses"])


def performance_profile(means: pd.DataFrame) -> pd.DataFrame:
    """The share of pairs in which a method's error is at most so many times the lowest of that pair (Dolan and More, 2002).

    Returns:
        One row for each factor at which a share rises, from 1 up, as the index `factor`; one column for each method, 0 to 1. A pair
        that a method lacks counts as never reached.
    """
    lowest = means.min(axis=1)
    factors = means.div(lowest, axis=0).mask(means.eq(lowest, axis=0), 1.0).round(9)  # an error of 0 is once the lowest of 0
    at = np.unique(np.append(factors.to_numpy()[np.isfinite(factors.to_numpy())], 1.0))
    shares = {method: [(values <= factor).mean() for factor in at] for method, values in factors.items()}
    return pd.DataFrame(shares, index=pd.Index(at, name="factor"))
