"""What `kdbench plan` says that the seeds of a suite can show."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kdbench.catalogue.plan import plan_as_json, plan_as_text
from kdbench.catalogue.power import Power, power_as_json, power_as_text, power_of
from kdbench.errors import KdbenchError
from kdbench.report.statistics.power import Spread, seeds_needed, smallest_difference
from kdbench.results.store import Store
from kdbench.runner.plan import Plan, make_plan
from kdbench.spec.record import PROTOCOL
from kdbench.suite.resolve import load_suite

SUITE = """
title: Tiny
dataset: digits
recipe: digits-quick
seeds: {seeds}
methods: [{methods}]
pairs: [{{teacher: resnet14, student: resnet8}}]
{more}
"""


def planned(folder: Path, *, methods: str = "scratch, kd, at, ft, sp, cc, pkt", seeds: int = 5, more: str = "") -> Plan:
    file = folder / "tiny.yaml"
    file.write_text(SUITE.format(methods=methods, seeds=list(range(seeds)), more=more))
    return make_plan(load_suite(file), Store(folder / "results", protocol=PROTOCOL))


class Records:
    """A store in which every trial of a plan is done; paired differences have a spread of 0.4, those of a `wild` method of more."""

    def __init__(self, plan: Plan, *, wild: str = "", weights: str = "t") -> None:
        self.trials, self.wild, self.weights = [trial.spec for trial in plan.students], wild, weights

    def records(self):
        random = np.random.default_rng(0)
        level = {seed: random.normal(20, 5) for seed in range(1000)}
        for spec in self.trials:
            yield SimpleNamespace(
                status="done",
                dataset=spec.dataset.label,
                recipe=spec.recipe.summary,
                teacher=spec.teacher.label if spec.teacher else None,
                student=spec.label,
                method=spec.method,
                setting=None,
                teachers_sha256=(self.weights,) if spec.teacher else (None,),
                spec=spec.model_dump(mode="json"),
                seed=spec.seed,
                test_error_pct=level[spec.seed] + random.normal(scale=(10 if spec.method == self.wild else 1) * 0.4 / 2**0.5),
            )


NOTHING = SimpleNamespace(records=list)


def test_a_suite_gives_its_spread_and_the_plan_says_what_the_seeds_show(tmp_path):
    plan = planned(tmp_path, more="expected_spread: 0.25")
    power = power_of(plan, NOTHING)
    smallest = smallest_difference(spread=0.25, seeds=5, methods=7)
    half = float(f"{smallest / 2:.1g}")
    needed = seeds_needed(half, spread=0.25, methods=7)
    assert power_as_text(power) == (
        f"with 5 seeds and 7 methods, a difference of {smallest:.2f} points is found four times of five, on these test images; "
        f"more seeds say nothing about other images. For {half} points you need {needed} seeds. The difference of two methods "
        "changes by 0.25 points from seed to seed. This spread is what the suite says."
    )
    told = power_as_json(power)
    assert (told["methods"], told["seeds"], told["spread"], told["spread_df"]) == (7, 5, 0.25, 0)
    assert told["seeds_for"] == {"difference": half, "seeds": seeds_needed(half, spread=0.25, methods=7)}
    assert plan_as_json(plan, [], None, power)["power"] == told
    assert plan_as_text(plan, [], None, power).splitlines()[-1] == f"seeds: {power_as_text(power)}"


def test_seeds_are_counted_for_the_difference_that_is_asked_for(tmp_path):
    plan = planned(tmp_path, more="expected_spread: 0.25")
    asked = power_of(plan, NOTHING, difference=0.3)
    assert power_as_json(asked)["seeds_for"] == {"difference": 0.3, "seeds": seeds_needed(0.3, spread=0.25, methods=7)}
    assert f"For 0.3 points you need {seeds_needed(0.3, spread=0.25, methods=7)} seeds." in power_as_text(asked)


class Both:
    """A store with the records of two."""

    def __init__(self, *stores) -> None:
        self.stores = stores

    def records(self):
        return [record for store in self.stores for record in store.records()]


def test_finished_trials_of_the_methods_of_the_suite_tell_the_spread_and_others_tell_nothing(tmp_path):
    own = planned(tmp_path, methods="scratch, kd, sp", seeds=40)
    others = planned(tmp_path, methods="at, ft, {kd: {temperature: 9}}", seeds=99)
    plan = planned(tmp_path, methods="scratch, kd, sp, {ft: {beta: 3}}", more="expected_spread: 9")
    power = power_of(plan, Both(Records(own), Records(others, wild="at")))
    assert power.spread.points == pytest.approx(0.4, rel=0.15)
    assert power.spread.df == 2 * 39
    assert power_as_text(power).endswith("This spread was measured here.")
    assert power_of(planned(tmp_path, methods="cc, pkt"), Both(Records(own), Records(others))).spread is None


def test_how_sure_the_spread_is_follows_from_its_degrees_of_freedom(tmp_path):
    plan = planned(tmp_path, methods="scratch, kd, at", seeds=5)
    power = power_of(plan, Records(plan), difference=0.3)
    spread = power.spread
    low, high = (spread.points * (8 / quantile) ** 0.5 for quantile in (17.5345, 2.1797))  # chi-squared, 8 degrees of freedom
    assert spread.df == 8
    assert spread.interval == pytest.approx((low, high), rel=1e-4)
    least, most = (seeds_needed(0.3, spread=end, methods=3) for end in (low, high))
    assert f"(95 % interval {low:.2f} to {high:.2f}; at its ends, 0.3 points need {least} and {most} seeds)" in power_as_text(power)
    assert power_as_json(power)["spread_interval"] == pytest.approx([low, high], rel=1e-4)


def test_methods_that_vary_far_more_are_named_with_their_own_spread(tmp_path):
    plan = planned(tmp_path, methods="scratch, kd, at, ft, sp", seeds=30)
    power = power_of(plan, Records(plan, wild="at"))
    assert power.spread.points == pytest.approx(0.4, rel=0.15)
    assert power.spread.df == 3 * 29
    [(method, points)] = power.spread.far
    assert method == "at"
    assert points == pytest.approx(101**0.5 * 0.4 / 2**0.5, rel=0.3)
    assert power_as_text(power).endswith(f" Left out, since they vary far more and need more seeds: at ({points:.2f} points).")
    assert power_as_json(power)["left_out"] == {"at": points}


@pytest.mark.parametrize("of_teacher", ["seed", "recipe"])
def test_trials_under_a_teacher_of_the_same_name_that_is_another_tell_nothing(of_teacher, tmp_path):
    other = {"seed": "teacher: {seed: 7}", "recipe": "teacher: {recipe: {epochs: 20}}"}[of_teacher]
    done = Records(planned(tmp_path, methods="kd, at", seeds=9, more=other))
    assert power_of(planned(tmp_path, methods="kd, at"), done).spread is None


def test_a_teacher_that_was_trained_again_is_another(tmp_path):
    first, second = (planned(tmp_path, methods=methods, seeds=9) for methods in ("scratch, kd", "at"))
    both = Both(Records(first, wild="kd"), Records(second, wild="at", weights="u"))
    power = power_of(planned(tmp_path), both)
    assert power.spread.df == 8  # scratch with kd; never kd with at, and at alone has nothing beside it


def test_scratch_counts_once_for_several_teachers_of_its_student(tmp_path):
    pairs = "pairs: [{teacher: resnet14, student: resnet8}, {teacher: resnet20, student: resnet8}]"
    file = tmp_path / "two.yaml"
    file.write_text(SUITE.format(methods="scratch, kd, at", seeds=[*range(9)], more="").partition("pairs:")[0] + pairs)
    plan = make_plan(load_suite(file), Store(tmp_path / "results", protocol=PROTOCOL))
    assert power_of(plan, Records(plan), difference=0.3).spread.df == 2 * 8 + 1 * 8  # three methods, and two beside no scratch


def test_a_spread_of_few_trials_gives_way_to_that_of_the_suite(tmp_path):
    done = Records(planned(tmp_path, methods="scratch, kd", seeds=3))
    assert power_of(planned(tmp_path, more="expected_spread: 0.25"), done).spread.points == 0.25
    measured = power_of(planned(tmp_path), done)
    assert measured.spread.df == 2
    assert power_as_text(measured).endswith("This spread was measured here, from few trials, so it may be far off.")


def test_trials_on_other_data_or_of_other_recipes_tell_nothing(tmp_path):
    done = Records(planned(tmp_path, methods="scratch, kd", seeds=9))
    plan = planned(tmp_path, more="report: {}")
    for change in ("dataset", "recipe"):
        others = [SimpleNamespace(**{**vars(record), "spec": {**record.spec, change: "other"}}) for record in done.records()]
        assert power_of(plan, SimpleNamespace(records=lambda others=others: others)).spread is None


def test_without_a_spread_it_is_said_how_to_give_one(tmp_path):
    power = power_of(planned(tmp_path), NOTHING)
    assert power_as_text(power) == (
        "it is not known what they can show, since no finished trials here tell how much these methods vary. Give the suite an "
        "`expected_spread`: the standard deviation over seeds of the difference of two methods, in points, such as 0.3."
    )
    assert power_as_json(power)["smallest_difference"] is None


def test_too_few_seeds_are_said_to_be(tmp_path):
    told = power_as_text(power_of(planned(tmp_path, seeds=2, more="expected_spread: 0.25"), NOTHING))
    assert told.startswith("2 seeds can tell no difference from chance. With 3 seeds and 7 methods, a difference of ")


def test_one_method_alone_is_compared_with_nothing(tmp_path):
    assert power_of(planned(tmp_path, methods="kd"), NOTHING) is None
    assert power_as_json(None) is None


def test_a_difference_that_needs_thousands_of_seeds():
    assert "you need more than 1,000 seeds" in power_as_text(Power(2, 400, Spread(0.3, df=0)))


@pytest.mark.parametrize("given", ["0", "-1", "101", "wide"])
def test_a_spread_that_is_none_is_refused(given, tmp_path):
    with pytest.raises(KdbenchError, match="expected_spread"):
        planned(tmp_path, more=f"expected_spread: {given}")
