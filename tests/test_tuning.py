"""Parameters are chosen on held-out images, with the same number of settings for every method."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TRAIN_IMAGES, Lab

from kdbench import cli, load_results
from kdbench.errors import KdbenchError
from kdbench.report import Table, compare, tuning_table
from kdbench.report.command import print_and_write
from kdbench.report.contents import read_report
from kdbench.runner import job_runner
from kdbench.runner.frame import plan_frame
from kdbench.runner.plan import Plan, Status
from kdbench.spec.trial import TrialSpec
from kdbench.suite.resolve import load_suite
from kdbench.suite.suite import Suite
from kdbench.training import cohort
from kdbench.training.lane import Lane

BUDGET = 3
TUNE: dict[str, Any] = {"validation": 0.25, "budget": BUDGET, "seeds": [7], "grid": {"kd": {"temperature": [1, 20]}}}


def temperatures(trials: tuple[TrialSpec, ...]) -> list[float]:
    return [trial.methods[0].params["temperature"] for trial in trials if trial.method == "kd"]


# What is tried


def test_the_suites_own_parameters_are_tried_first_then_those_of_the_grid(lab: Lab) -> None:
    suite = lab.suite(tune=TUNE)
    assert suite.tuning
    assert temperatures(suite.tuning.suite.trials) == [4, 1, 20]


def test_tuning_trials_and_their_teacher_see_fewer_images_and_tuning_trials_have_seeds_of_their_own(lab: Lab) -> None:
    suite = lab.suite(tune=TUNE)
    assert suite.tuning
    for trial in suite.tuning.suite.trials:
        assert (trial.seed, trial.dataset.params["validation"]) == (7, 0.25)
        assert trial.teacher and trial.teacher.dataset == trial.dataset
        assert trial.teacher.seed == 0
    assert {trial.dataset.params["validation"] for trial in (*suite.trials, *suite.teachers)} == {0}


def test_a_mapping_of_lists_is_every_combination_and_a_list_is_as_it_stands(lab: Lab) -> None:
    def tried(grid: Any) -> list[tuple[float, float]]:
        suite = lab.suite(tune={**TUNE, "budget": 5, "grid": {"kd": grid}})
        assert suite.tuning
        return [(p["temperature"], p["alpha"]) for p in (trial.methods[0].params for trial in suite.tuning.suite.trials)]

    own = (4, 0.9)
    assert tried({"alpha": [0.1, 0.2], "temperature": [1, 2]}) == [own, (1, 0.1), (2, 0.1), (1, 0.2), (2, 0.2)]
    assert tried([{"temperature": 1}, {"alpha": 1}, {"temperature": 2}, {}, {"temperature": 3}]) == [
        own,
        *((1, 0.9), (4, 1), (2, 0.9), (3, 0.9)),
    ]  # the suite's own, `{}`, is tried once


def test_parts_of_a_composition_are_tuned_under_their_names(lab: Lab) -> None:
    grid = {"at+kd": {"at": {"beta": [10]}, "kd": {"temperature": [1, 2]}}}
    suite = lab.suite(methods=["scratch", {"at+kd": {"kd": {"alpha": 0.5}}}], tune={**TUNE, "grid": grid})
    assert suite.tuning
    at, kd = ([trial.methods[i].params for trial in suite.tuning.suite.trials] for i in (0, 1))
    assert [params["beta"] for params in at] == [1000, 10, 10]
    assert [(params["temperature"], params["alpha"]) for params in kd] == [(4, 0.5), (1, 0.5), (2, 0.5)]


def test_what_was_tried_is_not_tried_again_when_the_grid_changes(lab: Lab) -> None:
    before, after = (
        lab.suite(tune={**TUNE, "budget": 1 + len(values), "grid": {"kd": {"temperature": values}}})
        for values in ([1, 20], [1, 20, 8])
    )
    assert before.tuning and after.tuning
    old, new = ({trial.id for trial in suite.tuning.suite.trials} for suite in (before, after) if suite.tuning)
    assert len(new - old) == 1


# What is refused

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a method of the grid that the suite lacks": (
        {"grid": {"kdd": {"temperature": [1, 2]}}},
        "tune.grid.kdd: 'kdd' is not one of the suite's methods. Did you mean 'kd'?",
    ),
    "an unknown parameter": ({"grid": {"kd": {"temprature": [1, 2]}}}, "tune.grid.kd.temprature: unknown key. Did you mean"),
    "a value that cannot be": ({"grid": {"kd": {"temperature": [1, -2]}}}, "tune.grid.kd.temperature: must be greater than 0"),
    "one value": (
        {"grid": {"kd": {"temperature": 2}}},
        "`temperature` has no list of values. Write `temperature: [...]`",
    ),
    "a setting that is given twice": ({"grid": {"kd": {"temperature": [2, 2]}}}, "setting 2 is the same as setting 1. Remove it."),
    "too few settings": (
        {"grid": {"kd": {"temperature": [1]}}},
        "'kd' has 2 settings, its own parameters among them",
    ),
    "too many": (
        {"grid": {"kd": {"temperature": [1, 2, 3]}}},
        "'kd' has 4 settings, its own parameters among them",
    ),
    "a seed that is reported": ({"seeds": [0, 7]}, "tune.seeds: 0 is also a seed that is reported"),
    "a seed twice": ({"seeds": [7, 7]}, "tune.seeds: a seed is named twice. Name each once."),
    "no held-out images": ({"validation": 0}, "tune.validation: must be greater than 0"),
    "nothing to choose": ({"budget": 1}, "tune.budget: must be greater than or equal to 2"),
    "an empty grid": ({"grid": {}}, "tune.grid: must not be empty."),
}


@pytest.mark.parametrize("selected", [(), (3,)], ids=["whole", "selected"])
def test_a_tuning_seed_is_none_of_the_files_whichever_seeds_are_selected(selected: tuple[int, ...], lab: Lab) -> None:
    file = lab.write(tune=TUNE, seeds=[0, 7])
    with pytest.raises(KdbenchError, match=r"tune\.seeds: 7 is also a seed that is reported"):
        load_suite(file, seeds=selected)


def test_a_method_without_parameters_is_tuned_with_the_budget_of_the_others_or_not_at_all(lab: Lab) -> None:
    def settings(*scratch: float) -> int:
        grid = {**TUNE["grid"], "scratch": [{"ce": weight} for weight in scratch]}
        return len(lab.suite(tune={**TUNE, "grid": grid}).candidates[0].settings)

    with pytest.raises(KdbenchError, match="'scratch' has 4 settings, its own parameters among them, and the budget is 3"):
        settings(0.1, 0.5, 2)
    assert settings(0.1, 0.5) == BUDGET
    with pytest.raises(KdbenchError, match="'scratch' has 2 settings"):
        settings(1, 0.5)  # 1 is what it has anyway
    assert settings(1) == 1


def test_a_weight_of_the_cross_entropy_has_one_spelling(lab: Lab) -> None:
    def trials(ce: Any) -> set[str]:
        return {trial.id for trial in lab.suite(methods=[{"kd": {"ce": ce}}]).trials}

    assert trials({0: 1, 1: 1}) == trials({1: 1, 0: 1}) == trials(1)
    assert trials({0: 0.5, 1: 1}) != trials(1)


@pytest.mark.parametrize("bad", BAD)
def test_a_mistake_is_told_with_its_place(bad: str, lab: Lab) -> None:
    changes, told = BAD[bad]
    with pytest.raises(KdbenchError) as refused:
        lab.suite(tune={**TUNE, **changes})
    assert told in str(refused.value)


def test_images_that_the_suite_holds_out_anyway_are_refused(lab: Lab) -> None:
    with pytest.raises(KdbenchError, match=r"dataset\.validation: `tune` holds images out by itself, and afterwards trains on all"):
        lab.suite(dataset={"validation": 0.1}, tune=TUNE)


def test_a_method_without_a_grid_has_one_setting_which_is_unequal(lab: Lab) -> None:
    told = r"tune.grid: 'at' has only its own parameters, and the budget is 3 for every method \(wrn_10_1 -> resnet8\)"
    with pytest.raises(KdbenchError, match=told):
        lab.suite(methods=["scratch", "kd", "at"], tune=TUNE)
    suite = lab.suite(methods=["scratch", "kd", "at"], tune={**TUNE, "unequal": True})
    assert [len(found.settings) for found in suite.candidates] == [1, 3, 1]


def test_a_method_that_is_listed_twice_cannot_be_tuned(lab: Lab) -> None:
    with pytest.raises(KdbenchError, match=r"the suite lists 'kd' more than once\. List it once, and its other parameters here"):
        lab.suite(methods=["kd", {"kd": {"alpha": 0.5}}], tune=TUNE)


# What is chosen

Told = dict[str, Any]


def with_records(lab: Lab, suite: Suite, edit: Callable[[int, Told], Told]) -> Plan:
    """The plan after the tuning records, one for each setting, are replaced by what `edit` makes of them."""
    assert suite.tuning
    for i, trial in enumerate(suite.tuning.suite.trials):
        record = lab.record(trial)
        lab.file(trial).write_text(type(record).model_validate(edit(i, record.model_dump())).model_dump_json())
    return lab.plan(suite)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Lab:
    """One run of a tuned suite with two seeds."""
    lab = Lab(tmp_path_factory.mktemp("tuned"), images)
    assert lab.run(lab.suite(tune=TUNE, seeds=[0, 1]))
    return lab


@pytest.fixture
def tried(lab: Lab, finished: Lab) -> Suite:
    """A suite whose tuning trials are done, and no others."""
    suite = lab.suite(tune=TUNE)
    assert suite.tuning
    for trial in (*suite.tuning.suite.teachers, *suite.tuning.suite.trials):
        shutil.copytree(finished.store.folder(trial.id), lab.store.folder(trial.id))
    return suite


def test_the_lowest_validation_error_is_chosen_and_no_test_error_is_read(lab: Lab, tried: Suite) -> None:
    errors = [(30.0, 1.0), (20.0, 99.0), (25.0, 50.0)]

    def edit(i: int, record: Told) -> Told:
        return record | dict(zip(("validation_error_pct", "test_error_pct"), errors[i], strict=True))

    plan = with_records(lab, tried, edit)
    assert temperatures(plan.suite.trials) == [1]
    plain = lab.suite(methods=["scratch", {"kd": {"temperature": 1}}])
    assert [planned.spec.id for planned in plan.students] == [trial.id for trial in plain.trials]


def test_of_equal_settings_the_first_is_chosen(lab: Lab, tried: Suite) -> None:
    plan = with_records(lab, tried, lambda i, record: record | {"validation_error_pct": 50.0 if i else 60.0})
    assert temperatures(plan.suite.trials) == [1]


def failed(record: Told) -> Told:
    return record | {"status": "failed", "reason": "loss is not finite\nat step 3", "validation_error_pct": 0.0}


def test_a_failed_setting_is_never_chosen(lab: Lab, tried: Suite) -> None:
    plan = with_records(lab, tried, lambda i, record: failed(record) if i == 1 else record | {"validation_error_pct": 60.0 - i})
    assert temperatures(plan.suite.trials) == [20]


def test_a_method_of_which_every_setting_failed_stays_untuned_with_the_reason(lab: Lab, tried: Suite) -> None:
    plan = with_records(lab, tried, lambda i, record: failed(record))
    assert [planned.status for planned in plan.students] == [Status.MISSING, Status.UNTUNED]
    row = plan_frame(plan).iloc[1]
    assert (row["status"], row["reason"]) == ("untuned", "all 3 settings failed in tuning, the first with: loss is not finite")
    assert row["trial"] == ""


# What a run does


def test_a_run_tunes_and_then_trains_with_what_was_chosen_on_all_images(finished: Lab) -> None:
    plan = finished.plan(finished.suite(tune=TUNE, seeds=[0, 1]))
    assert plan.tuning
    assert plan.counts(plan.tuning.students) == {"done": BUDGET}
    assert plan.counts(plan.students) == {"done": 4}
    assert set(plan_frame(plan)["train_images"]) == {72}


def test_tuning_trials_are_no_students_in_the_frame_of_the_directory(finished: Lab) -> None:
    roles = load_results(finished.store.root).groupby("role")["seed"].agg(sorted)
    assert roles.to_dict() == {"student": [0, 0, 1, 1], "teacher": [0, 0], "tuning": [7] * BUDGET}


@pytest.mark.parametrize("open_choice", [False, True])
def test_pruning_keeps_all_that_a_tuned_suite_reports_or_may_report(open_choice: bool, lab: Lab, tried: Suite) -> None:
    plan = with_records(lab, tried, lambda i, record: record | {"validation_error_pct": 50.0 if i == 1 else 60.0})
    settings = plan.choices[1].candidates.settings
    for trial in (*tried.teachers, *tried.trials, *(trial for setting in settings for trial in setting.reported)):
        lab.store.write_spec(trial.id, trial.model_dump(mode="json"))
    if open_choice:
        lab.file(settings[2].tried[0]).unlink()
    before = {folder.name for folder in (lab.store.root / "trials").iterdir()}
    cli.app(["trials", "prune", str(tried.file), "--results", str(lab.store.root), "--yes"], standalone_mode=False)
    gone = before - {folder.name for folder in (lab.store.root / "trials").iterdir()}
    assert gone == (set() if open_choice else {settings[i].reported[0].id for i in (0, 2)})
    assert len(before) == 2 + BUDGET + 1 + BUDGET  # teachers, tuning trials, scratch, and each setting's student


def test_a_tuning_trial_that_another_suite_reports_is_a_result_and_stays_one(lab: Lab, tried: Suite) -> None:
    def role() -> list[str]:
        frame = load_results(lab.store.root)
        return frame.loc[frame["trial"] == trial.id, "role"].tolist()

    plain = lab.suite(methods=["kd"], dataset={"validation": 0.25}, seeds=[7])
    (trial,) = plain.trials
    assert role() == ["tuning"]
    assert lab.run(plain) and role() == ["student"]
    assert lab.run(plain) and role() == ["student"]
    assert tried.tuning
    assert lab.run(tried.tuning.suite) and role() == ["student"]
    lab.store.discard(trial.id)
    assert lab.run(tried.tuning.suite) and role() == ["student"]


def test_settings_are_lanes_of_one_cohort_so_the_teacher_is_asked_once_for_all(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    cohorts: list[list[str]] = []
    train = cohort.train_in_lockstep

    def counted(lanes: list[Lane], *given: Any, **options: Any) -> bool:
        cohorts.append([lane.name for lane in lanes])
        return train(lanes, *given, **options)

    monkeypatch.setattr(job_runner, "train_in_lockstep", counted)
    suite = lab.suite(tune={**TUNE, "grid": {"kd": {"temperature": [1, 20]}, "at": {"beta": [1, 10]}}}, methods=["kd", "at"])
    assert suite.tuning
    assert lab.run(suite.tuning.suite)
    assert list(map(len, cohorts)) == [1, 2 * BUDGET]  # the teacher, then all settings of all methods


def test_a_run_that_is_stopped_after_each_epoch_ends_in_the_same_bits(lab: Lab, finished: Lab) -> None:
    suite = lab.suite(tune=TUNE, seeds=[0, 1])
    epochs = 2 * 5  # of the tuning teacher, the settings, the teacher, and the students of each seed
    for _ in range(epochs - 1):
        calls = itertools.count()
        assert not lab.run(suite, stop=lambda calls=calls: next(calls) > 0)
    assert lab.run(suite)
    assert lab.outcomes() == finished.outcomes()


# What the report says


def settings_of(lab: Lab, *suites: Path, methods: tuple[str, ...] = ()) -> Table:
    """The table of settings in the report of suites."""
    changes = {"methods": methods} if methods else {}
    report = read_report([str(file) for file in suites], lab.store.root, seeds=[], changes=changes, plugins=[])
    comparison = compare(report.results, pairs=report.pairs, methods=report.methods, options=report.options)
    table = tuning_table(comparison.with_tuning(report.tuning))
    assert table
    return table


def test_the_report_says_what_was_tried_with_which_error_and_what_was_chosen(lab: Lab, tried: Suite) -> None:
    with_records(lab, tried, lambda i, record: failed(record) if i == 2 else record | {"validation_error_pct": 30.0 - i})
    table = settings_of(lab, tried.file)
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["scratch", "—", "—"],
        ["KD", "defaults", "30.00"],
        ["", "temperature=1", "29.00"],
        ["", "temperature=20", "failed"],
    ]
    assert [row.keys["setting"] for row in table.rows if row.keys["outcome"] == "chosen"] == ["kd (temperature=1)"]
    assert [cell.text for row in table.rows for cell in row.cells if cell.bold] == ["temperature=1", "29.00"]
    assert table.notes[0] == "Bold is the setting that was chosen."
    assert table.notes[1].startswith("Budget: 3 settings for each method that has parameters, the suite's own among them.")
    assert table.notes[2] == "Failed in tuning, so never chosen: kd (temperature=20): loss is not finite."


def test_settings_that_so_few_images_cannot_tell_from_the_chosen_one_are_marked(lab: Lab, tried: Suite) -> None:
    images = TRAIN_IMAGES // 4
    at = 100 / images
    for errors, marks, told in (
        ((2 * at, 3 * at, 0.0), ["", "", ""], False),
        ((2 * at, at, 0.0), ["", "*", ""], True),
        ((4 * at, 3 * at, 5 * at), ["*", "", ""], True),
    ):
        with_records(lab, tried, lambda i, record, errors=errors: record | {"validation_error_pct": errors[i]})
        table = settings_of(lab, tried.file)
        assert [row.cells[2].mark for row in table.rows[1:]] == marks
        assert f"One of {images} held-out images is {at:.2f} points of the error with one seed." in table.notes
        assert any("In 1 of 1 choice there is such a setting" in note for note in table.notes) == told


def test_before_tuning_is_done_the_report_says_what_is_missing(lab: Lab) -> None:
    suite = lab.suite(tune=TUNE)
    assert [row.cells[2].text for row in settings_of(lab, suite.file).rows] == ["—", *["missing"] * BUDGET]
    row = plan_frame(lab.plan(suite)).iloc[1]
    assert row["reason"] == "its parameters are not chosen yet: 3 of 3 tuning trials are missing"


def test_the_page_of_a_suite_whose_tuning_is_not_done_can_be_made(lab: Lab, finished: Lab, tmp_path: Path) -> None:
    file = lab.suite(tune={**TUNE, "grid": {"kd": {"temperature": [1, 21]}}}, seeds=[0, 1]).file
    print_and_write(
        read_report([str(file)], finished.store.root, seeds=[], changes={}, plugins=[]), directory=tmp_path, formats=["html"]
    )
    assert "its parameters are not chosen yet: 1 of 3 tuning trials is missing" in (tmp_path / "report.html").read_text()


def test_unequal_budgets_are_told_where_the_suite_allows_them(lab: Lab) -> None:
    suite = lab.suite(methods=["scratch", "kd", "at"], tune={**TUNE, "unequal": True})
    assert settings_of(lab, suite.file).notes[-1] == (
        "Unequal budgets: wrn_10_1 → resnet8: KD 3 settings, AT 1 setting. This favours the methods with more settings."
    )


def test_suites_with_unequal_budgets_are_not_reported_together(lab: Lab) -> None:
    plain = lab.suite(methods=["at"]).file.rename(lab.root / "plain.yaml")
    with pytest.raises(KdbenchError, match="one table cannot compare methods that were tuned with unequal budgets: wrn_10_1"):
        settings_of(lab, lab.suite(tune=TUNE).file, plain)


def test_suites_count_their_settings_each_by_itself(lab: Lab) -> None:
    def file(name: str, method: str, grid: Any, **changes: Any) -> Path:
        suite = lab.suite(methods=["scratch", method], tune={**TUNE, "grid": {method: grid}, **changes})
        return suite.file.rename(lab.root / f"{name}.yaml")

    kd, others = file("kd", "kd", {"temperature": [1, 20]}), file("others", "kd", {"temperature": [2, 8]})
    at = file("at", "at", {"beta": [1, 10]})
    assert len(settings_of(lab, kd, at).rows) == 1 + 2 * BUDGET
    assert len(settings_of(lab, kd, others).rows) == 2 * BUDGET  # both try the same parameters of their own
    told = "KD 3 settings on 25 % of the training images with 1 seed in kd, AT 3 settings on {} in at"
    for changes, how in (
        ({"seeds": [7, 8]}, "25 % of the training images with 2 seeds"),
        ({"validation": 0.125}, r"12.5 % of the training images with 1 seed"),
    ):
        at = file("at", "at", {"beta": [1, 10]}, **changes)
        with pytest.raises(KdbenchError, match=told.format(how)):
            settings_of(lab, kd, at)


def test_the_report_of_a_directory_leaves_tuning_trials_out(finished: Lab) -> None:
    comparison = compare(load_results(finished.store.root))
    assert comparison.datasets == ("stripes",)
    assert set(comparison.results["role"]) == {"student"}
