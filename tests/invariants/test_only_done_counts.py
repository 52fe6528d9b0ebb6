"""7. Only `done` counts: a failed, damaged or half-written file never satisfies the plan."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MIXED, TINY, Lab, write_images

from invariants.odd_methods import Faulty
from invariants.probes import give_teacher, only, snapshot, statuses
from kdbench import KdbenchError
from kdbench.runner.plan import Rerun
from kdbench.training.single import Single


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def of_another_trial(file: Path) -> None:
    other = next(record for record in file.parents[1].glob("*/record.json") if record != file)
    shutil.copy(other, file)


def without_its_error(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "test_error_pct": None}))


def with_a_flipped_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [half, emptied, of_another_trial, without_its_error])
def test_a_damaged_record_is_set_aside_and_its_trial_done_again(
    damage: Callable[[Path], None], finished: Lab, undisturbed: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    suite = finished.suite(**MIXED)
    file = finished.file(only(suite, "ft"))
    damage(file)
    damaged = file.read_bytes()
    finished.run(suite)
    assert file.with_name("record.json.broken").read_bytes() == damaged
    (told,) = (message for message in caplog.messages if "cannot be used" in message)
    assert told.endswith("It was set aside as record.json.broken.")
    assert finished.outcomes() == undisturbed.outcomes()


@pytest.mark.parametrize("damage", [half, emptied, with_a_flipped_bit])
def test_a_damaged_teacher_is_set_aside_and_trained_again_to_the_same_weights(
    damage: Callable[[Path], None], finished: Lab, undisturbed: Lab
) -> None:
    suite = finished.suite(**MIXED)
    (teacher,) = suite.teachers
    weights = finished.file(teacher, "weights.safetensors")
    damage(weights)
    finished.file(only(suite, "ft")).unlink()
    finished.run(suite)
    assert weights.read_bytes() == undisturbed.file(teacher, "weights.safetensors").read_bytes()
    assert weights.with_name("weights.safetensors.broken").exists()
    assert finished.outcomes() == undisturbed.outcomes()


def test_a_run_that_is_refused_sets_nothing_aside(finished: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by a mistake that is seen at once, nor by what is seen when the images and the weights have been read."""
    suite = finished.suite(**MIXED)
    half(finished.file(only(suite, "ft")))
    half(finished.file(suite.teachers[0], "weights.safetensors"))
    for record in map(finished.file, (*suite.teachers, only(suite, "kd"))):
        text = json.loads(record.read_text())
        record.write_text(json.dumps({**text, "environment": {**text["environment"], "device": "another"}}))
    before = snapshot(finished)
    for changes, message in (
        (
            {"pairs": [*TINY["pairs"], {**TINY["pairs"][0], "student": "shufflenetv1", "recipe": {"stack": True}}]},
            "cannot be stacked",
        ),
        ({"dataset": {**TINY["dataset"], "root": str(write_images(tmp_path / "others", seed=1))}}, "from other images"),
        ({}, "is missing or damaged. Trained here, it would differ"),
    ):
        with pytest.raises(KdbenchError, match=message):
            finished.run(finished.suite(**{**MIXED, **changes}))
        assert snapshot(finished) == before
    assert not caplog.messages


@pytest.mark.parametrize("damage", [half, emptied, with_a_flipped_bit])
def test_a_damaged_stage_is_set_aside_and_trained_again(damage: Callable[[Path], None], finished: Lab, undisturbed: Lab) -> None:
    suite = finished.suite(**MIXED)
    (file,) = finished.file(suite.teachers[0], "stages").iterdir()
    damage(file)
    finished.file(only(suite, "ft")).unlink()
    finished.run(suite)
    assert file.with_name(f"{file.name}.broken").exists()
    assert finished.outcomes() == undisturbed.outcomes()


@pytest.mark.parametrize("damage", [half, emptied, with_a_flipped_bit])
def test_a_damaged_checkpoint_is_set_aside_and_its_trial_starts_anew(
    damage: Callable[[Path], None], lab: Lab, undisturbed: Lab, one_epoch_a_run: dict[str, Any]
) -> None:
    suite = lab.suite(**{**MIXED, "methods": ["kd", MIXED["methods"][-1]]})
    give_teacher(lab, undisturbed, suite)
    assert not lab.run(suite, **one_epoch_a_run)
    assert statuses(lab, suite) == {"kd": "started", "crd+kd": "started"}
    checkpoint = lab.file(only(suite, "kd"), "checkpoint.pt")
    damage(checkpoint)
    lab.run(suite)
    assert checkpoint.with_name("checkpoint.pt.broken").exists()
    assert lab.outcomes() == undisturbed.outcomes(suite)


def test_each_rerun_takes_up_what_it_says(finished: Lab, register: Callable[..., None]) -> None:
    register("faulty", Faulty)
    suite = finished.suite(**{**MIXED, "methods": [{"faulty": {"at": "losses"}}, "kd", "scratch"]})
    finished.run(suite)
    assert statuses(finished, suite) == {"faulty": "failed", "kd": "done", "scratch": "done"}

    def taken_up(rerun: Rerun) -> set[str]:
        files = {trial.method: finished.file(trial) for trial in suite.trials} | {"teacher": finished.file(suite.teachers[0])}
        before = {name: file.exists() and file.stat().st_mtime_ns for name, file in files.items()}
        finished.run(suite, rerun=rerun)
        return {name for name, file in files.items() if file.stat().st_mtime_ns != before[name]}

    assert taken_up(Rerun.MISSING) == set()
    assert taken_up(Rerun.FAILED) == {"faulty"}
    assert taken_up(Rerun.ALL) == {"faulty", "kd", "scratch"}
    finished.file(only(suite, "kd")).unlink()
    assert taken_up(Rerun.MISSING) == {"kd"}


def test_a_failed_teacher_is_tried_again_only_when_asked(lab: Lab) -> None:
    suite = lab.suite(teacher={"recipe": {"optimiser": {"lr": 1e30}}})
    lab.run(suite)
    (teacher,) = suite.teachers
    before = lab.file(teacher).stat().st_mtime_ns
    lab.run(suite)
    assert lab.file(teacher).stat().st_mtime_ns == before
    lab.run(suite, rerun=Rerun.FAILED)
    assert lab.file(teacher).stat().st_mtime_ns > before


def test_a_record_is_kept_until_the_trial_is_done_once_more(
    finished: Lab, undisturbed: Lab, one_epoch_a_run: dict[str, Any]
) -> None:
    suite = finished.suite(**MIXED)
    file = finished.file(only(suite, "kd"))
    before, kept = file.read_bytes(), file.with_name("record.json.replaced")
    assert not finished.run(suite, rerun=Rerun.ALL, **one_epoch_a_run)
    assert not file.exists() and kept.read_bytes() == before
    checkpoint = finished.file(only(suite, "kd"), "checkpoint.pt")
    while not checkpoint.exists():
        finished.run(suite, **one_epoch_a_run)
    assert not finished.run(suite, rerun=Rerun.ALL, stop_after_s=0)
    assert not checkpoint.exists(), "all is begun anew, what was interrupted too"
    assert finished.run(suite)
    assert not kept.exists()
    assert finished.outcomes() == undisturbed.outcomes()


def test_a_record_outlasts_a_failure_of_the_trial_that_was_to_replace_it(finished: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = finished.suite(**{**MIXED, "methods": ["kd"]})
    file = finished.file(suite.trials[0])
    before = file.read_bytes()
    monkeypatch.setattr(Single, "train_step", lambda unit, inputs: 1 / 0)
    for rerun in (Rerun.ALL, Rerun.FAILED):
        finished.run(suite, rerun=rerun)
        assert finished.record(suite.trials[0]).status == "failed"
        assert file.with_name("record.json.replaced").read_bytes() == before


def test_a_lost_teacher_of_another_machine_is_not_replaced_beside_students_that_are_done(finished: Lab, undisturbed: Lab) -> None:
    suite = finished.suite(**MIXED)
    (teacher,) = suite.teachers
    weights = finished.file(teacher, "weights.safetensors")
    weights.unlink()
    record = json.loads(finished.file(teacher).read_text())
    finished.file(teacher).write_text(json.dumps({**record, "environment": {**record["environment"], "device": "elsewhere"}}))
    finished.file(only(suite, "ft")).unlink()
    before, macs = snapshot(finished), finished.store.macs()
    another = finished.suite(**{**MIXED, "pairs": [{"teacher": "wrn_10_1", "student": "resnet14"}]})
    for asked in (another, finished.suite(**{**MIXED, "methods": ["at"]}), finished.suite(**{**MIXED, "seeds": [5]}), suite):
        with pytest.raises(KdbenchError, match=r"differ from the teacher of [34] finished students\. Put the file back, or"):
            finished.run(asked)
        assert (snapshot(finished), finished.store.macs()) == (before, macs)
    assert finished.run(suite, rerun=Rerun.ALL)
    assert finished.outcomes(suite).keys() == undisturbed.outcomes(suite).keys()


def test_all_can_be_rerun_where_a_student_is_another_ones_teacher(lab: Lab) -> None:
    pairs = [{"teacher": "resnet8", "student": "resnet8"}, {"teacher": "wrn_10_1", "student": "resnet8"}]
    suite = lab.suite(pairs=pairs)
    lab.run(suite)
    before = lab.outcomes()
    assert len(before) == 4
    lab.run(suite, rerun=Rerun.ALL)
    assert lab.outcomes() == before
