"""Which method is better, by how much, and how sure: simultaneous 95 % intervals of one pair's errors over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdbench.report.statistics import quantiles
from kdbench.report.statistics.blocks import SEEDS_THAT_SHOW_SPREADS, Basis, Intervals, block_intervals
from kdbench.report.statistics.images import image_variance
from kdbench.wording import counted

MIN_SEEDS = 3
"""With fewer values an interval is not worth its name."""

PERHAPS_FAR = 0.05
"""Equal spreads look less equal than this in one of twenty experiments: a note names the method that makes them look so."""

MOST_SETS = 100
"""Of seeds that the search for the largest block follows further at once."""

Bounds = tuple[float, float]


def _excludes_0(bounds: Bounds | None) -> bool:
    return bounds is not None and (bounds[0] > 0 or bounds[1] < 0)


class Difference(NamedTuple):
    """What `method` gains over `over`, in the values' units; positive is better.

    Attributes:
        gain: mean over the seeds that are compared.
        bounds: of the 95 % interval over new seeds; None where there are too few.
        bounds_with_images: of that over new seeds and new test images; None where outcomes of images are not known.
        n: seeds.
        df: degrees of freedom of `bounds`; 0 where there are none.
        basis: which spread the intervals rest on.
    """

    method: str
    over: str
    gain: float
    bounds: Bounds | None
    bounds_with_images: Bounds | None
    n: int
    df: float
    basis: Basis

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval over new seeds excludes 0."""
        return _excludes_0(self.bounds)

    @property
    def beyond_chance_with_images(self) -> bool:
        """Whether the interval over new seeds and images excludes 0."""
        return _excludes_0(self.bounds_with_images)

    def turned(self) -> Difference:
        """The same, seen from the other method."""
        bounds, with_images = ((-b[1], -b[0]) if b else None for b in (self.bounds, self.bounds_with_images))
        return self._replace(method=self.over, over=self.method, gain=-self.gain, bounds=bounds, bounds_with_images=with_images)


@dataclass(frozen=True)
class Comparisons:
    """A family of comparisons whose intervals hold together: in 95 of 100 experiments, none of them misses.

    Attributes:
        differences: in the order of methods.
        baseline: the method that the others are compared with; None where it is all pairs.
        seeds: that the methods of the block share.
        methods: of the block.
        block_df: degrees of freedom of the spread that they share.
        far: methods whose spread over seeds is far above the others'.
        wide: the method that may spread more than the others and is most of what all share; None where there is none.
        unequal: whether the spreads of the others may be unequal.
        incomplete: methods that lack seeds of the block.
    """

    differences: tuple[Difference, ...]
    baseline: str | None
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    block_df: int
    far: tuple[str, ...]
    wide: str | None
    unequal: bool
    incomplete: tuple[str, ...]

    def find(self, method: str, over: str) -> Difference | None:
        """What `method` gains over `over`; None where they have no seed in common, or are not compared."""
        for difference in self.differences:
            if (difference.method, difference.over) == (method, over):
                return difference
            if (difference.method, difference.over) == (over, method):
                return difference.turned()
        return None

    @property
    def procedure(self) -> str:
        """What stands under a table of these intervals: how they were computed, in plain words."""
        known = [difference for difference in self.differences if difference.bounds]
        sentences = []
        shared = any(difference.basis in (Basis.SHARED, Basis.TWO_METHODS) for difference in known)
        if len(known) == 1 == len(self.differences):
            sentences.append(
                f"95 % interval: Student's t of the paired differences, {counted(known[0].n - 1, 'degree')} of freedom."
            )
        elif known:
            family = "Tukey's" if self.baseline is None else "Dunnett's"
            which = (
                "all pairs of methods"
                if self.baseline is None
                else f"{counted(len(self.differences), 'comparison')} with {self.baseline}"
            )
            how = f"{family} for {which} together" if shared else f"{which} together"
            spread = f", seeds as blocks, {counted(self.block_df, 'degree')} of freedom" if shared else ""
            sentences.append(f"95 % intervals: {how}{spread}.")
        if self.unequal and any(difference.basis is Basis.TWO_METHODS for difference in known):
            why = (
                "The methods may spread differently over seeds"
                if len(self.seeds) >= SEEDS_THAT_SHOW_SPREADS
                else f"{len(self.seeds)} seeds do not show whether the methods spread equally"
            )
            sentences.append(f"{why}, so an interval is widened where the spreads of its own two methods ask for it.")
        if self.wide and any(
            difference.basis is Basis.SHARED and self.wide not in difference[:2] for difference in known
        ):  # a reader whose own methods agree in all seeds would look for the reason in vain
            sentences.append(
                f"{self.wide}: perhaps more spread over seeds than the others, but too few seeds to tell, so it counts in the "
                "spread that all share, is more than half of it, and makes their intervals wider."
            )
        own = [difference for difference in known if difference.basis is Basis.OWN]
        for methods, reason in ((self.far, "far more spread over seeds than the others"), (self.incomplete, "seeds are missing")):
            if named := [method for method in methods if any(method in difference[:2] for difference in own)]:
                which = "it" if len(named) == 1 else "one of them"
                sentences.append(
                    f"{', '.join(named)}: {reason}, so each interval with {which} is Student's t of its own paired differences, "
                    "with Sidak's correction."
                )
        if any(difference.bounds is None for difference in self.differences):
            sentences.append(f"n too small: fewer than {MIN_SEEDS} seeds in common.")
        return " ".join(sentences)


def against_baseline(
    values: pd.DataFrame, baseline: str, *, wrong: Mapping[str, pd.DataFrame] | None = None, lower_is_better: bool = True
) -> Comparisons:
    """Compare each method with one, by simultaneous 95 % intervals (Dunnett).

    Args:
        values: one row for each seed and one column for each method, such as test errors in percent; missing where a trial is.
        baseline: the column that the others are compared with.
        wrong: by method, which test images were wrong: one row for each seed, one column for each image. `values` must then be
            percentages of images. Without it there are no intervals over new images.
        lower_is_better: whether a gain is a fall.
    """
    others = [method for method in values.columns if method != baseline]
    return _compare(values, [(method, baseline) for method in others], baseline, wrong, lower_is_better)


def all_pairs(
    values: pd.DataFrame, *, wrong: Mapping[str, pd.DataFrame] | None = None, lower_is_better: bool = True
) -> Comparisons:
    """Compare every method with every other, by simultaneous 95 % intervals (Tukey). Arguments as of `against_baseline`."""
    pairs = [(second, first) for first, second in combinations(values.columns, 2)]
    return _compare(values, pairs, None, wrong, lower_is_better)


def largest_block(values: pd.DataFrame) -> pd.DataFrame:
    """Methods and seeds without a missing value that are most values: without methods that lack much, and seeds that few have.

    Every set of seeds that some methods share is tried, or the most promising ones where there are very many.
    """
    seeds = {method: frozenset(values.index[values[method].notna()]) for method in values.columns}

    def size(shared: frozenset[int]) -> tuple[int, int]:
        return len(shared) * sum(has >= shared for has in seeds.values()), len(shared)

    of_one = latest = [*dict.fromkeys(seeds.values())]
    found = dict.fromkeys(of_one)
    while latest:
        smaller = dict.fromkeys(shared & other for shared in latest for other in of_one)
        latest = sorted((shared for shared in smaller if shared not in found), key=size, reverse=True)[:MOST_SETS]
        found.update(dict.fromkeys(latest))
    best = max(found, key=size, default=frozenset())
    return values.loc[sorted(best), [method for method, has in seeds.items() if has >= best] if best else []]


def _compare(
    values: pd.DataFrame,
    pairs: list[tuple[str, str]],
    baseline: str | None,
    wrong: Mapping[str, pd.DataFrame] | None,
    lower_is_better: bool,
) -> Comparisons:
    pairs = [pair for pair in pairs if set(pair) <= {*values} and values[[*pair]].notna().all(axis=1).any()]
    compared = {method for pair in pairs for method in pair}  # the others widen no interval
    values = values[[method for method in values if method in compared]] * (1 if lower_is_better else -1)
    block = largest_block(values)
    if len(block) < MIN_SEEDS or block.shape[1] < 2 or (baseline is not None and baseline not in block):
        block = block.iloc[:0, :0]
    block = block[[method for method in values.columns if method in block]]
    found: dict[tuple[str, str], Difference] = {}
    df, far, unequal, wide = 0, [], False, None
    if len(block):
        size = len(values.columns) if baseline is None else len(pairs)
        errors = block.to_numpy(float).T[None]
        intervals = block_intervals(errors, baseline=None if baseline is None else list(block.columns).index(baseline), size=size)
        found = _of_block(intervals, block, [pair for pair in pairs if set(pair) <= set(block.columns)], wrong)
        df, unequal = int(intervals.spreads.shared_df[0]), bool(intervals.unequal[0])
        far = list(block.columns[intervals.spreads.far[0]])
        wide = _wide(intervals, block)
    differences = [found.get(pair) or _alone(values, pair, len(pairs), wrong) for pair in pairs]
    return Comparisons(
        tuple(difference for difference in differences if difference),
        baseline,
        tuple(map(int, block.index)),
        tuple(block.columns),
        df,
        tuple(far),
        wide,
        unequal,
        tuple(method for method in values.columns if method not in block),
    )


def _wide(intervals: Intervals, block: pd.DataFrame) -> str | None:
    """The method that makes spreads look unequal and is more than half of what all share: its part is its variance / methods."""
    found = intervals.spreads
    k = int(found.p[0].argmin())
    many = found.variances[0, k] > found.near[0] / 2 * found.shared_variance[0]
    return str(block.columns[k]) if many and found.p_equal[0] < PERHAPS_FAR else None


def _of_block(
    intervals: Intervals, block: pd.DataFrame, pairs: list[tuple[str, str]], wrong: Mapping[str, pd.DataFrame] | None
) -> dict[tuple[str, str], Difference]:
    images = np.array([_image_variance(wrong, pair, block.index) for pair in pairs])
    reach, with_images = (intervals.reach(extra)[0].tolist() for extra in (0.0, np.nan_to_num(images)[None]))
    bases = np.where(intervals.own, Basis.OWN, np.where(intervals.two_methods, Basis.TWO_METHODS, Basis.SHARED))[0]
    return {
        pair: Difference(
            *pair,
            gain,
            (gain - reach[k], gain + reach[k]),
            None if np.isnan(images[k]) else (gain - with_images[k], gain + with_images[k]),
            len(block),
            float(intervals.df[0, k]),
            Basis(bases[k]),
        )
        for k, (pair, gain) in enumerate(zip(pairs, map(float, intervals.gains[0]), strict=True))
    }


def _alone(
    values: pd.DataFrame, pair: tuple[str, str], comparisons: int, wrong: Mapping[str, pd.DataFrame] | None
) -> Difference | None:
    """By their own paired differences; None where the two share no seed."""
    method, over = pair
    gains = (values[over] - values[method]).dropna()
    if gains.empty:
        return None
    gain, n = float(gains.mean()), len(gains)
    if n < MIN_SEEDS:
        return Difference(method, over, gain, None, None, n, 0, Basis.NONE)
    variance, images = float(gains.var(ddof=1)) / n, _image_variance(wrong, pair, gains.index)
    reach, with_images = (
        float(quantiles.sidak((n - 1) * (total / variance) ** 2 if variance else n - 1, comparisons)) * total**0.5
        for total in (variance, variance + images)
    )
    with_images = max(reach, with_images)
    bounds = None if np.isnan(images) else (gain - with_images, gain + with_images)
    return Difference(method, over, gain, (gain - reach, gain + reach), bounds, n, n - 1, Basis.OWN)


def _image_variance(wrong: Mapping[str, pd.DataFrame] | None, pair: tuple[str, str], seeds: pd.Index[int]) -> float:
    """Of a mean gain in percentage points, over test images; not a number where some outcomes are not known."""
    known = [wrong[method] for method in pair if wrong and method in wrong and seeds.isin(wrong[method].index).all()]
    if len(known) < 2 or known[0].shape[1] != known[1].shape[1]:
        return float("nan")
    method, over = (outcomes.loc[seeds].to_numpy(bool) for outcomes in known)
    return image_variance(over, method)
