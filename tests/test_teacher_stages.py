"""Stages that learn from the teacher alone: trained once for all that need them, and kept beside the teacher."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from conftest import TEST_IMAGES, Lab, MemoryFor
from invariants.odd_methods import Careless, Faulty
from invariants.probes import SHORT, only, statuses
from torch import Tensor

from kdbench import KdbenchError
from kdbench.models.weights import WEIGHTS, read_checkpoint, read_weights, state_hash
from kdbench.runner import teachers
from kdbench.spec.trial import TrialSpec
from kdbench.suite.teacher_stages import TeacherStage
from kdbench.training.builder import Builder
from kdbench.training.frozen_teacher import FrozenTeacher
from kdbench.training.stages import TrainedStages


@pytest.fixture
def trained_stages(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The stages of teachers that were trained, side by side where they stand in one list."""
    labels: list[list[str]] = []
    original = teachers.train_teacher_stages

    def train(wanted: Sequence[TeacherStage], **options: Any) -> TrainedStages:
        labels.append([stage.label for stage in wanted])
        return original(wanted, **options)

    monkeypatch.setattr(teachers, "train_teacher_stages", train)
    return labels


def kept_stages(lab: Lab, teacher: TrialSpec) -> dict[str, list[str]]:
    """By file, the hashes of what was learnt."""
    kept = {file.stem: read_checkpoint(file) for file in lab.file(teacher, "stages").iterdir()}
    return {key: [state_hash(module) for module in state["modules"]] for key, state in kept.items() if state}


SHARED: dict[str, Any] = {
    "methods": [{"ft": SHORT["ft"]}, {"ft+kd": {"ft": {**SHORT["ft"], "beta": 100}}}],
    "recipe": {"epochs": 1, "schedule": {}},
    "pairs": [
        {"teacher": "wrn_10_1", "student": "resnet8"},
        {"teacher": "wrn_10_1", "student": "wrn_10_1", "recipe": {"precision": "bf16"}},
    ],
    "seeds": [0, 1],
}
"""Eight students that need one stage of one teacher, each seed its own."""


def test_a_stage_is_trained_once_for_each_seed_whoever_asks_and_side_by_side(
    lab: Lab, another: Lab, trained_stages: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    call = FrozenTeacher.__call__
    monkeypatch.setattr(FrozenTeacher, "__call__", lambda teacher, images: (passes.append(len(images)), call(teacher, images))[1])
    suite = lab.suite(**SHARED)
    (teacher,) = suite.teachers
    lab.run(suite)
    assert trained_stages == [["ft.paraphraser (seed 0)", "ft.paraphraser (seed 1)"]]
    of_training = [images for images in passes if images != TEST_IMAGES]
    assert of_training[:4] == [32, 32, 8, 32], "one pass for each batch of the epoch of all stages, then those of students"
    kept = kept_stages(lab, teacher)
    assert len(set(map(str, kept.values()))) == 2, "the seeds draw apart"

    trained_stages.clear()
    another.run(another.suite(**{**SHARED, "methods": SHARED["methods"][1:], "pairs": SHARED["pairs"][1:], "seeds": [1]}))
    lab.run(lab.suite(**{**SHARED, "methods": [{"ft": {**SHORT["ft"], "k": 1.0}}], "pairs": SHARED["pairs"][:1], "seeds": [0]}))
    assert trained_stages == [["ft.paraphraser (seed 1)"], ["ft.paraphraser (seed 0)"]]
    assert kept_stages(another, teacher).items() <= kept.items()
    assert len(kept_stages(lab, teacher)) == 3


def test_one_training_of_a_stage_serves_all_seeds_where_the_suite_says_so(lab: Lab, trained_stages: list[list[str]]) -> None:
    settings = {**SHARED, "methods": [*SHARED["methods"][:1], "kd"], "pairs": SHARED["pairs"][:1], "seeds": [0, 1]}
    suites = [lab.suite(**settings, stages=stages) for stages in ("per-seed", "per-teacher")]
    assert lab.run(suites[0], lanes=1) and lab.run(suites[1])
    assert trained_stages == [["ft.paraphraser (seed 0)"], ["ft.paraphraser (seed 1)"], ["ft.paraphraser"]], "with lanes: 1"
    records = [[lab.record(trial) for trial in suite.trials] for suite in suites]
    assert [[record.stages for record in found] for found in records] == [
        ["per-seed", "per-seed", None, None],
        ["per-teacher", "per-teacher", None, None],
    ]
    reconstructions = [[lab.curves(trial)[0]["train_loss"] for trial in suite.trials if trial.stages] for suite in suites]
    assert len({*reconstructions[0], *reconstructions[1]}) == 3, "two draws for two seeds, one for both"
    assert records[0][2:] == records[1][2:], "kd is one trial of both suites"


def test_stages_that_do_not_fit_and_stop_after_every_epoch_come_to_the_same_end(
    lab: Lab,
    another: Lab,
    one_epoch_a_run: dict[str, Any],
    register: Callable[..., None],
    memory_for: MemoryFor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register("careless", Careless)
    settings = {**SHARED, "methods": ["careless"], "pairs": SHARED["pairs"][:1]}
    lab.run(lab.suite(**settings))
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    memory_for(lambda now: 1)
    suite = another.suite(**{**settings, "seeds": [1, 0]})
    stop_after_s = one_epoch_a_run["stop_after_s"] + 1  # the attempt to train two at once is a tick of the clock, too
    assert any(another.run(suite, stop_after_s=stop_after_s) for _ in range(20))
    assert "2 stages at once are too many for the device's memory: 1 at once from here on." in said
    assert another.outcomes() == lab.outcomes()
    assert kept_stages(another, suite.teachers[0]) == kept_stages(lab, suite.teachers[0])
    assert not list(another.store.root.glob("trials/**/*checkpoint*"))


def test_a_stage_that_has_ended_is_kept_where_a_longer_one_is_stopped(
    lab: Lab, one_epoch_a_run: dict[str, Any], register: Callable[..., None]
) -> None:
    """Else each run would train it again, and one that has time for no more would never end."""
    register("careless", Careless)
    suite = lab.suite(methods=["careless", {"ft": SHORT["ft"]}], recipe=SHARED["recipe"])
    assert any(lab.run(suite, **one_epoch_a_run) for _ in range(10))


def test_a_stage_that_failed_is_recorded_where_another_is_stopped(
    lab: Lab, another: Lab, one_epoch_a_run: dict[str, Any], register: Callable[..., None]
) -> None:
    """For the same reason."""
    register("faulty", Faulty)
    settings = {**SHARED, "methods": [{"faulty": {"at": "lesson"}}, "scratch"], "pairs": SHARED["pairs"][:1]}
    suite = lab.suite(**settings)
    assert lab.run(suite)
    assert any(another.run(another.suite(**settings), **one_epoch_a_run, lanes=1) for _ in range(20))
    assert another.outcomes() == lab.outcomes()
    failed = [lab.record(trial).reason for trial in suite.trials if trial.stages]
    assert len(failed) == 2 and all(reason and "stage faulty.lesson failed" in reason for reason in failed)


class Undeclared(Faulty):
    """Has a stage of the teacher alone, of which its class says nothing."""

    teacher_stages = {}


def test_a_stage_of_the_teacher_alone_is_declared_where_planning_can_see_it(lab: Lab, register: Callable[..., None]) -> None:
    register("undeclared", Undeclared)
    suite = lab.suite(methods=["undeclared", "kd"])
    lab.run(suite)
    assert statuses(lab, suite) == {"undeclared": "failed", "kd": "done"}
    assert "Write teacher_stages = {'lesson': " in (lab.record(only(suite, "undeclared")).reason or "")
    with pytest.raises(KdbenchError, match=r"Mistaken: stage lesson depends on att .*no such parameter\. Correct the names\."):
        type("Mistaken", (Faulty,), {"teacher_stages": {"lesson": ("at", "att")}})


def training_images(builder: Builder) -> tuple[Tensor, Tensor]:
    """All of them, normalised by hand, and their labels."""
    split = builder.splits[0]
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (builder.dataset.mean, builder.dataset.std))
    return (split.images.permute(0, 3, 1, 2) / 255 - mean) / std, split.labels


def test_a_survey_finds_the_class_means_of_the_training_images_as_they_are(lab: Lab) -> None:
    suite = lab.suite(methods=["kdpp"], recipe={"epochs": 1, "schedule": {}})
    (trial,) = suite.trials
    assert trial.teacher
    assert lab.run(suite)
    (file,) = lab.file(trial.teacher, "stages").iterdir()
    (found,) = read_checkpoint(file)["modules"]
    builder = lab.builder(suite)
    weights = read_weights(lab.file(trial.teacher, WEIGHTS), sha256=lab.record(trial.teacher).weights_sha256)
    teacher, (images, labels) = builder.restored(trial.teacher, weights).eval(), training_images(builder)
    with torch.no_grad():
        pooled = teacher(images).pooled
    expected = torch.stack([pooled[labels == label].mean(0) for label in range(len(found["means"]))])
    torch.testing.assert_close(found["means"], expected, rtol=1e-4, atol=1e-5)
    assert found["counts"].flatten().tolist() == labels.bincount().tolist()
