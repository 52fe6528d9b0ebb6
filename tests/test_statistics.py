"""What the intervals promise: how often they hold, and that each number is the textbook's."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import ndtri

from kdbench.report.statistics import quantiles
from kdbench.report.statistics.agreement import beside_teacher, mcnemar, shared_errors
from kdbench.report.statistics.blocks import Basis, block_intervals
from kdbench.report.statistics.comparisons import against_baseline, all_pairs, largest_block
from kdbench.report.statistics.images import image_variance
from kdbench.report.statistics.power import measured_spread, power, seeds_needed, smallest_difference
from kdbench.report.statistics.several_pairs import (
    average_relative_improvement,
    performance_profile,
    ranks,
    win_tie_loss,
)
from kdbench.report.statistics.teachers import teacher_shares

RANDOM = np.random.default_rng
REFERENCE = pd.read_csv("results/reference/ft-cifar10-jpeg/results.csv").pivot(
    index="seed", columns="label", values="test_error_pct"
)


def errors(seeds: int = 5, *, spread: tuple[float, ...] = (1.0,) * 7, draw: int = 0) -> pd.DataFrame:
    """Of methods a, b, ... without a difference, by seed."""
    names = list("abcdefghijklm"[: len(spread)])
    values = RANDOM(draw).normal(10, 1, (seeds, 1)) + RANDOM(draw + 1).normal(size=(seeds, len(spread))) * spread
    return pd.DataFrame(values, columns=names)


# Quantiles


@pytest.mark.parametrize(("comparisons", "df"), [(1, 4), (3, 8), (6, 24)])
def test_dunnett_is_the_multivariate_t_with_a_correlation_of_one_half(comparisons, df):
    reach = np.full(comparisons, quantiles.dunnett(df, comparisons))
    shape = (np.eye(comparisons) + 1) / 2
    inside = stats.multivariate_t.cdf(reach, shape=shape, df=df, lower_limit=-reach, random_state=0, maxpts=200_000)
    assert inside == pytest.approx(0.95, abs=1e-3)


def test_two_methods_have_students_t_in_every_family():
    for quantile, size in ((quantiles.dunnett, 1), (quantiles.tukey, 2), (quantiles.sidak, 1)):
        assert quantile(4, size) == pytest.approx(stats.t.ppf(0.975, 4))


@pytest.mark.parametrize(("family", "exact"), [(quantiles.dunnett, quantiles._dunnett), (quantiles.tukey, quantiles._tukey)])
def test_quantiles_between_the_computed_ones_are_as_good(family, exact):
    many = np.array([2.2, 4.9, 20.0, 300.0])
    assert family(many, 7) == pytest.approx([exact(df, 7) for df in many], rel=2e-4)


# Intervals over seeds

SPREADS: dict[str, tuple[float, ...]] = {
    "equal": (1,) * 7,
    "as in the reference run": (1.05, 0.94, 0.2, 0.84, 1.47, 0.65, 1.3),
    "from 1 to 2": tuple(np.linspace(1, 2, 7)),
    "one is three times the others": (1, 1, 1, 1, 1, 1, 3),
    "the baseline is three times the others": (3, 1, 1, 1, 1, 1, 1),
    "one is ten times the others": (1, 1, 1, 1, 1, 1, 10),
}


def coverage(spread: tuple[float, ...], *, seeds: int, baseline: int | None, draws: int = 4000) -> float:
    """How often all intervals of an experiment hold together."""
    values = RANDOM(7).normal(size=(draws, len(spread), seeds)) * np.array(spread)[:, None] + RANDOM(8).normal(
        size=(draws, 1, seeds)
    )
    intervals = block_intervals(values, baseline=baseline)
    return float((abs(intervals.gains) <= intervals.reach()).all(1).mean())


@pytest.mark.parametrize("baseline", [0, None], ids=["Dunnett", "Tukey"])
@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
def test_five_seeds_cover_95_percent_together(spread, baseline):
    held = coverage(spread, seeds=5, baseline=baseline)
    assert 0.934 <= held <= (0.965 if len({*spread}) == 1 else 0.98), held  # chance moves it by 0.004 to either side


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
def test_three_seeds_hold_at_least_as_often(spread):
    assert coverage(spread, seeds=3, baseline=0) >= 0.945


def test_the_shared_spread_is_the_residual_of_a_two_way_analysis():
    import statsmodels.formula.api as smf

    taught = REFERENCE.drop(columns="scratch")
    long = taught.melt(ignore_index=False, value_name="error").reset_index()
    residual = smf.ols("error ~ C(label) + C(seed)", long).fit()
    found = against_baseline(taught, "KD")
    assert (found.block_df, residual.df_resid) == (20, 20)
    fitnets = found.find("FitNets", over="KD")
    half = float(quantiles.dunnett(20, 5)) * (2 * residual.mse_resid / 5) ** 0.5
    assert fitnets.basis is Basis.SHARED
    assert fitnets.gain == pytest.approx((taught["KD"] - taught["FitNets"]).mean())
    assert fitnets.bounds == pytest.approx((fitnets.gain - half, fitnets.gain + half))


def test_two_methods_are_compared_by_the_paired_t_test():
    expected = stats.ttest_rel(REFERENCE["scratch"], REFERENCE["KD"]).confidence_interval()
    for found in (against_baseline(REFERENCE[["scratch", "KD"]], "scratch"), all_pairs(REFERENCE[["scratch", "KD"]])):
        assert found.find("KD", "scratch").bounds == pytest.approx((expected.low, expected.high))
        assert found.procedure == "95 % interval: Student's t of the paired differences, 4 degrees of freedom."


def test_what_a_seed_does_to_all_methods_changes_nothing():
    moved = errors().add(RANDOM(3).normal(0, 50, 5), axis=0)
    for one, other in zip(all_pairs(moved).differences, all_pairs(errors()).differences, strict=True):
        assert [one.gain, *one.bounds] == pytest.approx([other.gain, *other.bounds])


def test_a_method_that_spreads_far_more_is_named_and_widens_nobody_elses_interval():
    wild = errors(spread=(1, 1, 1, 1, 1, 1, 20))
    found = against_baseline(wild, "a")
    assert found.far == ("g",)
    assert found.block_df == 20
    paired = wild["a"] - wild["g"]
    half = stats.t.isf((1 - 0.95 ** (1 / 6)) / 2, 4) * stats.sem(paired)
    far = found.find("g", "a")
    assert (far.basis, far.df) == (Basis.OWN, 4)
    assert far.bounds == pytest.approx((paired.mean() - half, paired.mean() + half))
    assert "g: far more spread over seeds than the others, so each interval with it is Student's t" in found.procedure
    others = found.find("b", "a").bounds, against_baseline(wild[list("abcdef")], "a").find("b", "a").bounds
    assert others[0][1] - others[0][0] == pytest.approx(others[1][1] - others[1][0], rel=0.1)


def test_a_method_that_perhaps_spreads_more_is_named_where_it_widens_the_intervals_of_others():
    """KD is 2.1, 1.8 and 2.5 points ahead in three seeds, and yet its interval includes 0: AT's errors are in the shared spread."""
    values = pd.DataFrame(
        {
            **{"scratch": [24.82, 24.64, 24.32], "KD": [22.71, 22.80, 21.83], "AT": [36.12, 43.17, 40.28]},
            **{"FT": [24.92, 26.76, 26.35], "trust": [23.65, 22.22, 22.31]},
        }
    )
    found = against_baseline(values, "scratch")
    assert (found.far, found.wide, found.find("KD", "scratch").beyond_chance) == ((), "AT", False)
    assert "AT: perhaps more spread over seeds than the others, but too few seeds to tell, so it counts" in found.procedure
    without = against_baseline(values.drop(columns="AT"), "scratch")
    assert without.wide is None and without.find("KD", "scratch").beyond_chance
    assert "perhaps" not in without.procedure + against_baseline(values.rename(columns={"AT": "b"}), "b").procedure


def test_a_wild_baseline_leaves_each_method_to_its_own():
    found = against_baseline(errors(spread=(20, 1, 1, 1, 1, 1, 1)), "a")
    assert found.far == ("a",)
    assert {difference.basis for difference in found.differences} == {Basis.OWN}


def test_few_seeds_never_rely_on_equal_spreads():
    intervals = block_intervals(errors(3, draw=2).to_numpy().T[None], baseline=0)
    assert not intervals.spreads.far.any()
    found = against_baseline(errors(3, draw=2), "a")
    assert found.unequal
    assert "3 seeds do not show whether the methods spread equally, so an interval is widened" in found.procedure
    narrow = quantiles.dunnett(12, 6) * (2 * intervals.spreads.shared_variance[0] / 3) ** 0.5
    assert all(difference.bounds[1] - difference.gain >= narrow - 1e-9 for difference in found.differences)


def test_a_method_without_some_seeds_is_compared_by_its_own_paired_differences():
    values = errors()
    values.loc[0, "c"] = np.nan
    values.loc[0:2, "d"] = np.nan
    found = against_baseline(values, "a")
    assert largest_block(values).shape == (5, 5)
    assert (found.methods, found.incomplete, found.block_df) == (("a", "b", "e", "f", "g"), ("c", "d"), 16)
    assert [(found.find(name, "a").n, found.find(name, "a").basis) for name in "bcd"] == [
        (5, Basis.SHARED),
        (4, Basis.OWN),
        (2, Basis.NONE),
    ]
    assert found.find("b", "a").bounds[1] - found.find("b", "a").gain == pytest.approx(
        float(quantiles.dunnett(16, 6))
        * np.sqrt(2 / 5 * block_intervals(largest_block(values).to_numpy().T[None], baseline=0).spreads.shared_variance[0])
    ), "the family counts the two as well"
    assert found.find("d", "a").bounds is None
    assert found.procedure.endswith("n too small: fewer than 3 seeds in common.")
    assert "c: seeds are missing" in found.procedure


def test_a_method_without_a_seed_of_another_widens_no_interval():
    """Its many seeds are no block, either."""
    errors = pd.DataFrame({"scratch": [8, 8.2, 8.5, 8.3], "kd": [7, 7.3, 7.4, 7.2], "at": [7.1, 7.6, 7.4, 7.3]})
    elsewhere = pd.concat([errors, pd.DataFrame({"ft": [6.0] * 40}, range(10, 50))])
    for methods in (["scratch", "kd"], ["scratch", "kd", "at"]):
        assert against_baseline(elsewhere[[*methods, "ft"]], "scratch") == against_baseline(errors[methods], "scratch")
        assert all_pairs(elsewhere[[*methods, "ft"]]) == all_pairs(errors[methods])


def test_the_block_of_most_values_is_found_though_no_method_has_its_seeds_alone():
    values = pd.DataFrame(7.0, range(5), ["scratch", "KD", "FT"])
    values.loc[0, "KD"] = values.loc[4, "FT"] = np.nan
    assert largest_block(values).index.tolist() == [1, 2, 3]
    assert largest_block(values[["KD", "FT"]]).shape == (3, 2)
    random = RANDOM(5)
    for _ in range(20):
        values = pd.DataFrame(np.where(random.random((5, 5)) < 0.3, np.nan, 1.0))
        every = (list(rows) for count in range(1, 6) for rows in combinations(range(5), count))
        assert largest_block(values).size == max(len(rows) * values.loc[rows].notna().all().sum() for rows in every)
    many = np.ones((20, 27))
    many[range(20), range(20)] = np.nan
    assert largest_block(pd.DataFrame(many)).size == 13 * 14, "of a million sets of seeds"


def test_a_baseline_without_some_seeds_leaves_each_method_to_its_own():
    values = errors()
    values.loc[0, "a"] = np.nan
    found = against_baseline(values, "a")
    assert {(difference.n, difference.basis) for difference in found.differences} == {(4, Basis.OWN)}


def test_a_comparison_can_be_seen_from_both_sides_and_in_units_of_which_more_is_better():
    found = all_pairs(REFERENCE)
    forward, back = found.find("FT", "KD"), found.find("KD", "FT")
    assert (back.gain, back.bounds) == (-forward.gain, (-forward.bounds[1], -forward.bounds[0]))
    accuracy = all_pairs(100 - REFERENCE, lower_is_better=False)
    assert accuracy.find("FT", "KD").bounds == pytest.approx(forward.bounds)


def test_equal_errors_have_intervals_of_no_width():
    found = against_baseline(pd.DataFrame({"a": [5.0] * 4, "b": [4.0] * 4, "c": [4.0] * 4}), "a")
    assert [difference.bounds for difference in found.differences] == [(1, 1), (1, 1)]


# Intervals over seeds and images


def outcomes(draw: int, *, means: tuple[float, ...], seeds: int = 5, images: int = 1000) -> dict[str, pd.DataFrame]:
    """Wrong test images of methods with these mean errors: an image is hard for all methods, for a method, and for a student.

    Two students of one method then share somewhat more than half of their errors.
    """
    random = RANDOM(draw)
    hard, scale = random.normal(size=images), (1 + 1 + 0.7**2 + 0.03**2) ** 0.5
    students = {}
    for name, mean in zip("abc", means, strict=False):
        for_method, for_seed = random.normal(size=images), random.normal(scale=0.03, size=(seeds, 1))
        latent = ndtri(mean) * scale + hard + for_method + for_seed + random.normal(scale=0.7, size=(seeds, images))
        students[name] = pd.DataFrame(latent > 0)
    return students


def test_the_wide_interval_covers_new_images_and_the_narrow_one_does_not():
    means, held = {"a": 0.10, "b": 0.07, "c": 0.06}, []
    for draw in range(200):
        wrong = outcomes(draw, means=tuple(means.values()))
        values = pd.DataFrame({name: 100 * one.mean(axis=1) for name, one in wrong.items()})
        found = against_baseline(values, "a", wrong=wrong).differences
        gains = [100 * (means["a"] - means[difference.method]) for difference in found]
        for kind in ("bounds", "bounds_with_images"):
            bounds = [getattr(difference, kind) for difference in found]
            held.append(all(low <= gain <= high for (low, high), gain in zip(bounds, gains, strict=True)))
    narrow, wide = np.reshape(held, (-1, 2)).mean(0)
    assert 0.93 <= wide <= 0.98, wide  # chance moves it by 0.015 to either side
    assert narrow < 0.75, narrow


def test_without_the_outcomes_of_a_method_its_interval_over_images_is_not_known():
    wrong = outcomes(0, means=(0.1, 0.07, 0.06), seeds=5, images=400)
    values = pd.DataFrame({name: 100 * one.mean(axis=1) for name, one in wrong.items()})
    found = against_baseline(values, "a", wrong={name: wrong[name] for name in "ab"})
    assert found.find("b", "a").bounds_with_images is not None
    assert found.find("c", "a").bounds_with_images is None


def test_the_variance_of_images_is_that_of_the_mean_squares():
    one, other = (wrong.to_numpy() for wrong in outcomes(1, means=(0.2, 0.15), seeds=4, images=50).values())
    gains = 100 * (one.astype(float) - other)
    rest = gains - gains.mean(0) - gains.mean(1, keepdims=True) + gains.mean()
    between_images = 4 * gains.mean(0).var(ddof=1)
    assert image_variance(one, other) == pytest.approx((between_images - (rest**2).sum() / (3 * 49)) / (4 * 50), rel=1e-4)
    assert image_variance(one, one) == 0


# Agreement of methods


def test_mcnemar_of_one_seed_is_that_of_statsmodels_and_together_images_are_clusters():
    from statsmodels.stats.contingency_tables import mcnemar as reference

    one, other = (wrong.to_numpy() for wrong in outcomes(2, means=(0.2, 0.15), seeds=3, images=300).values())
    alone = mcnemar(one[:1], other[:1])
    assert alone == pytest.approx(reference(pd.crosstab(one[0], other[0]), exact=False, correction=False).pvalue)
    thrice = mcnemar(np.tile(one[:1], (3, 1)), np.tile(other[:1], (3, 1)))
    assert thrice == pytest.approx(alone), "the same images again are no new evidence"


def test_shared_errors_and_errors_beside_the_teacher():
    wrong = {
        "a": np.array([[True, True, False, False], [True, True, True, False]]),
        "b": np.array([[True, False, False, True], [True, True, False, False]]),
        "none": np.zeros((2, 4), bool),
    }
    found = shared_errors(wrong)
    assert found.loc["a", "b"] == 100 * 3 / 5
    assert found.loc["b", "a"] == 100 * 3 / 4
    assert found.loc["a", "none"] == 0
    assert found.loc["none"].isna().all()
    beside = beside_teacher(wrong, np.array([True, False, False, False]))
    assert beside.loc["a"].to_dict() == {"lost_pct": 50, "corrected_pct": 0}
    assert beside.loc["none"].to_dict() == {"lost_pct": 0, "corrected_pct": 100}
    assert np.isnan(beside_teacher(wrong, np.zeros((2, 4), bool)).loc["a", "corrected_pct"])


# Several pairs

PAIRS = pd.DataFrame(
    {"scratch": [9.0, 8, 7, 6, 5, 9], "KD": [8.0, 7, 6, 5, 5.5, 8], "FT": [7.0, 6, 6.5, 4, 4, 7], "AT": [7.5, 7.5, 6, 5.5, 4.5, 7]}
)


def test_ranks_friedman_and_nemenyi():
    found = ranks(PAIRS)
    assert found.mean_ranks.to_dict() == pytest.approx({"FT": 8.5 / 6, "AT": 13 / 6, "KD": 15.5 / 6, "scratch": 23 / 6})
    assert found.p == pytest.approx(stats.friedmanchisquare(*PAIRS.to_numpy().T).pvalue)
    assert found.critical_difference == pytest.approx(2.569 * (4 * 5 / (6 * 6)) ** 0.5, abs=1e-3), "Demsar's table of q"
    assert found.groups == (("FT", "AT", "KD"), ("AT", "KD", "scratch"))
    assert "Friedman's test" in found.procedure


def test_ranks_of_few_pairs_are_not_tested():
    found = ranks(PAIRS.iloc[:4])
    assert (found.p, found.critical_difference, found.groups) == (None, None, ())
    assert found.procedure.endswith("Ranks of fewer than 5 pairs, or of fewer than 3 methods, are not tested.")


def test_methods_that_share_every_rank_do_not_differ():
    found = ranks(pd.DataFrame(dict.fromkeys("abc", range(6))))
    assert (found.p, found.mean_ranks.tolist()) == (1.0, [2, 2, 2])


def test_a_method_that_some_pairs_lack_is_left_out_of_the_ranks():
    found = ranks(PAIRS.assign(AT=[np.nan, np.nan, *PAIRS["AT"][2:]]))
    assert (list(found.mean_ranks.index), found.left_out, found.pairs) == (["FT", "KD", "scratch"], ("AT",), 6)
    one = PAIRS.copy()
    one.loc[0, ["KD", "FT", "AT"]] = np.nan
    assert (ranks(one).left_out, ranks(one).pairs_left_out, ranks(one).pairs) == ((), ("0",), 5)
    assert ranks(one).procedure.endswith(" Left out, since methods or seeds are missing: 0.")


def test_means_that_are_equal_but_for_rounding_share_a_rank():
    noisy = pd.DataFrame({"a": [7.0, 6] * 3, "b": [7 + 1e-14, 6 + 1e-14] * 3, "c": [8.0, 8] * 3})
    assert ranks(noisy).mean_ranks.to_dict() == {"a": 1.5, "b": 1.5, "c": 3}
    assert performance_profile(noisy).loc[1].to_dict() == {"a": 1, "b": 1, "c": 0}


def test_average_relative_improvement_leaves_out_pairs_in_which_the_reference_gains_nothing():
    found = average_relative_improvement(PAIRS)
    assert found.loc["FT"].to_dict() == {"improvement_pct": pytest.approx(100 * (1 + 1 - 0.5 + 1 + 1) / 5), "pairs": 5}


def test_wins_ties_and_losses():
    clear = pd.DataFrame({"a": [9.0, 9.1, 8.9, 9, 9], "b": [7.0, 7.1, 7.0, 6.9, 7], "c": [7.0, 7.0, 7.1, 6.9, 7.1]})
    found = win_tie_loss({"one": all_pairs(clear), "two": all_pairs(clear[["a", "b"]])}).set_index(["method", "over"])
    assert found.loc[("b", "a")].tolist() == [2, 0, 0]
    assert found.loc[("a", "b")].tolist() == [0, 0, 2]
    assert found.loc[("b", "c")].tolist() == [0, 1, 0]
    too_few = win_tie_loss({"one": all_pairs(clear), "two": all_pairs(clear[:2])}).set_index(["method", "over"])
    assert too_few.loc[("b", "c")].tolist() == [0, 1, 0], "two seeds show no tie"


def test_the_profile_is_the_share_of_pairs_within_a_factor_of_the_best():
    profile = performance_profile(pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 2.0], "c": [np.nan, 8.0]}))
    assert profile.index.tolist() == [1, 2, 4]
    assert profile["a"].tolist() == [1, 1, 1]
    assert profile["b"].tolist() == [0.5, 1, 1]
    assert profile["c"].tolist() == [0, 0, 0.5]


# Teachers


def test_an_error_of_0_is_within_any_factor_of_the_lowest_and_no_other_is():
    profile = performance_profile(pd.DataFrame({"a": [0.0, 2.0], "b": [0.0, 4.0], "c": [1.0, 2.0]}))
    assert profile.index.tolist() == [1, 2]
    assert profile.T.to_numpy().tolist() == [[1, 1], [0.5, 1], [0.5, 0.5]]


def test_the_share_of_the_teacher_is_found():
    random = RANDOM(0)
    teachers = pd.Series(np.repeat(np.arange(400), 5).astype(str))
    level, effect = random.normal(size=400), random.normal(scale=2**0.5, size=(400, 4))
    values = pd.DataFrame(random.normal(size=(2000, 4)), columns=list("abcd")).add(random.normal(scale=0.5, size=2000), axis=0)
    values += np.repeat(level[:, None] + effect, 5, axis=0)
    found = teacher_shares(values, teachers)
    assert found.of_errors == pytest.approx(3 / (3 + 1.25), abs=0.03)
    assert found.of_differences == pytest.approx(2 / (2 + 1), abs=0.03)
    assert found.sentence.endswith("they are wider than new students of these teachers need, and too narrow for new teachers.")
    assert found.sentence.startswith("2000 seeds learnt from 400 trainings of the teacher. The teacher's training makes ")


@pytest.mark.parametrize("share", [0, 0.5])
def test_seeds_that_share_teachers_have_wide_intervals_for_these_and_narrow_ones_for_new_ones(share):
    random, draws = RANDOM(0), 2000
    effects = np.repeat(random.normal(scale=share**0.5, size=(draws, 4, 2)), 3, axis=2)
    found = block_intervals(effects + random.normal(scale=(1 - share) ** 0.5, size=effects.shape), baseline=0)
    of_these = effects.mean(2)[:, :1] - effects.mean(2)[:, 1:]
    these, new = ((abs(found.gains - true) <= found.reach()).all(1).mean() for true in (of_these, 0.0))
    assert (these > 0.98 and new < 0.85) if share else these == new > 0.94


def test_one_teacher_has_no_share_and_a_teacher_for_each_seed_none_that_can_be_told():
    assert teacher_shares(errors(), pd.Series("w", range(5))) is None
    assert teacher_shares(errors(), pd.Series(list("vwxyz"))).sentence.endswith("so intervals are over new teachers, too.")


# Power


@pytest.mark.parametrize(("methods", "seeds"), [(2, 3), (7, 3), (7, 5), (7, 17), (27, 5)])
def test_the_smallest_difference_is_found_four_times_of_five(methods, seeds):
    difference = smallest_difference(spread=0.3, seeds=seeds, methods=methods)
    values = RANDOM(1).normal(scale=0.3 / 2**0.5, size=(3000, methods, seeds))
    values[:, 1] -= difference
    intervals = block_intervals(values, baseline=0)
    found = (abs(intervals.gains) > intervals.reach())[:, 0].mean()
    assert found == pytest.approx(0.8, abs=0.025)
    assert power(difference, spread=0.3, seeds=seeds, methods=methods) == pytest.approx(0.8)


def test_seeds_needed_are_the_fewest_that_do():
    seeds = seeds_needed(0.2, spread=0.3, methods=7)
    assert power(0.2, spread=0.3, seeds=seeds, methods=7) >= 0.8 > power(0.2, spread=0.3, seeds=seeds - 1, methods=7)
    assert seeds_needed(1e-6, spread=1, methods=2) is None
    assert smallest_difference(spread=0.3, seeds=2, methods=7) is None


def test_the_spread_of_a_paired_difference_is_measured_on_all_methods_at_once():
    spread = measured_spread(errors(200, spread=(0.5,) * 4))
    assert (spread.points, spread.df) == (pytest.approx(0.5 * 2**0.5, rel=0.05), 597)
    assert measured_spread(errors(1)) is None
