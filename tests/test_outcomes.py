"""Which images a trial got wrong lies beside its record, appears and goes with it, and is read again whole or not at all."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, MIXED, TEST_IMAGES, Lab
from invariants.probes import only, statuses
from sklearn.metrics import confusion_matrix, recall_score

import kdbench
from kdbench import KdbenchError, Outcomes
from kdbench.results.frames import load_curves
from kdbench.runner.plan import Rerun


def drawn(images: int, classes: int, *, right: float) -> tuple[Any, Any]:
    """Labels (N,) and predictions (N,) of which a share is right, and more by chance."""
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=images)
    return labels, np.where(random.random(images) < right, labels, random.integers(classes, size=images))


@pytest.mark.parametrize(("images", "classes", "right"), [(30, 3, 0.5), (1001, 10, 0.0), (64, 7, 1.0), (1, 2, 1.0)])
def test_what_is_packed_is_unpacked(images: int, classes: int, right: float) -> None:
    labels, predicted = drawn(images, classes, right=right)
    packed = Outcomes.of(labels, predicted, num_classes=classes, data_fingerprint="f").packed()
    found = Outcomes.unpacked(packed, data_fingerprint="f")
    assert np.array_equal(found.wrong, labels != predicted) and found.wrong.dtype == np.bool_
    assert np.array_equal(found.confusion, confusion_matrix(labels, predicted, labels=range(classes)))
    present = np.unique(labels)
    errors = 100 * (1 - recall_score(labels, predicted, labels=range(classes), average=None, zero_division=0))
    assert found.class_error_pct[present] == pytest.approx(errors[present])
    assert np.isnan(np.delete(found.class_error_pct, present)).all(), "of a class without test images nobody knows"


@pytest.mark.parametrize(
    ("images", "classes", "right", "kib"), [(10_000, 10, 0.92, 3), (10_000, 100, 0.7, 8), (50_000, 1000, 0.7, 60)]
)
def test_a_file_is_small(images: int, classes: int, right: float, kib: float) -> None:
    labels, predicted = drawn(images, classes, right=right)
    assert len(Outcomes.of(labels, predicted, num_classes=classes, data_fingerprint="").packed()) < kib * 1024


def test_students_and_teachers_leave_theirs(undisturbed: Lab) -> None:
    frame = kdbench.load_results(undisturbed.store.root)
    outcomes = kdbench.load_outcomes(undisturbed.store.root, frame["trial"])
    assert [*outcomes] == [*frame["trial"]] and len(outcomes) == 6
    for _, row in frame.iterrows():
        found = outcomes[row["trial"]]
        assert 100 * found.wrong.sum() / TEST_IMAGES == found.error_pct == row["test_error_pct"]
        assert found.confusion.shape == (CLASSES, CLASSES)
        assert found.confusion.sum(1).tolist() == [10, 10, 10]
        assert found.class_error_pct.mean() == pytest.approx(row["test_error_pct"])
        assert found.data_fingerprint == row["data_fingerprint"]
    student = frame[frame["method"] == "kd"].iloc[0]
    (teacher,) = kdbench.load_outcomes(undisturbed.store.root, [student["teacher_trial"]]).values()
    assert teacher.error_pct == pytest.approx(student["teacher_error_pct"])


def test_bits_stand_in_the_order_of_the_images(finished: Lab) -> None:
    suite = finished.suite(**MIXED)
    (trial,) = suite.teachers
    data = finished.builder(suite).test_data
    with torch.no_grad():
        predicted = kdbench.load_student(finished.store.folder(trial.id))(data.first(TEST_IMAGES)).argmax(1)
    found = kdbench.load_outcomes(finished.store.root, [trial.id])[trial.id]
    assert found.wrong.tolist() == (predicted != data.labels).tolist()
    assert found.wrong.any() and not found.wrong.all()
    assert found.classes == ("at0", "at1", "at2")


def test_outcomes_go_with_the_record_and_what_has_no_record_has_none(finished: Lab, undisturbed: Lab, monkeypatch: Any) -> None:
    suite = finished.suite(**{**MIXED, "methods": ["kd"]})
    (trial,) = suite.trials
    file = finished.file(trial, "outcomes.npz")
    finished.run(suite, rerun=Rerun.ALL, stop_after_s=0)
    assert not file.exists()
    replace = os.replace

    def dying_replace(source: Path, target: Path) -> None:
        if Path(target).name == "record.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("os.replace", dying_replace)
    with pytest.raises(KeyboardInterrupt):
        finished.run(suite)
    monkeypatch.undo()
    assert file.exists() and statuses(finished, suite) == {"kd": "started"}
    assert kdbench.load_outcomes(finished.store.root, [trial.id]) == {}
    finished.run(suite)
    assert finished.outcomes() == undisturbed.outcomes()


def test_a_failed_trial_has_none(finished: Lab) -> None:
    """Though a file lies there of the time when it was done."""
    trial = only(finished.suite(**MIXED), "kd")
    record = json.loads(finished.file(trial).read_text())
    finished.file(trial).write_text(json.dumps({**record, "status": "failed", "reason": "it was on purpose"}))
    assert kdbench.load_outcomes(finished.store.root, [trial.id]) == {}


@pytest.mark.parametrize("damage", ["half", "empty", "no zip", "a bit", "of another trial"])
def test_damaged_outcomes_are_named_and_left_out(damage: str, finished: Lab, caplog: pytest.LogCaptureFixture) -> None:
    suite = finished.suite(**MIXED)
    kd, scratch = only(suite, "kd"), only(suite, "scratch")
    file = finished.file(kd, "outcomes.npz")
    whole = file.read_bytes()
    other = Outcomes.of(np.zeros(30, int), np.ones(30, int), num_classes=3, data_fingerprint="").packed()
    spoilt = bytearray(whole)
    spoilt[whole.index(b"mistakes") + 60] ^= 1
    damaged = {"half": whole[: len(whole) // 2], "empty": b"", "no zip": b"x" * 99, "a bit": spoilt, "of another trial": other}
    file.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        found = kdbench.load_outcomes(finished.store.root, [kd.id, scratch.id])
    assert [*found] == [scratch.id]
    assert caplog.messages[0].startswith(f"{file} is left out: it is damaged (")


def test_a_damaged_curve_is_named_and_left_out(finished: Lab, caplog: pytest.LogCaptureFixture) -> None:
    suite = finished.suite(**MIXED)
    kd, scratch = only(suite, "kd"), only(suite, "scratch")
    file = finished.file(kd, "curves.jsonl")
    file.write_bytes(file.read_bytes()[:-20])
    assert {*load_curves(finished.store.root, [kd.id, scratch.id])["trial"]} == {scratch.id}
    assert caplog.messages[0].startswith(f"{file} is left out: it is damaged (")


def test_records_of_earlier_versions_are_read_without_them(finished: Lab) -> None:
    suite = finished.suite(**MIXED)
    new = (
        "test_top5_error_pct",
        "test_nll",
        "test_ece_pct",
        "test_adaptive_ece_pct",
        "teacher_agreement_pct",
        "teacher_kl",
        "planned",
    )
    for trial in (*suite.trials, *suite.teachers):
        record = json.loads(finished.file(trial).read_text())
        finished.file(trial).write_text(json.dumps({key: value for key, value in record.items() if key not in new}))
        for name in ("outcomes.npz", "planned.txt"):
            finished.file(trial, name).unlink()
    assert set(statuses(finished, suite).values()) == {"done"}
    frame = kdbench.load_results(finished.store.root)
    assert frame[[*new]].isna().all(axis=None) and frame["test_error_pct"].notna().all()
    assert kdbench.load_outcomes(finished.store.root, frame["trial"]) == {}


def test_one_trial_is_no_list(finished: Lab) -> None:
    with pytest.raises(KdbenchError, match=r"trials: 'abc' is no list\. Write trials=\['abc'\]\."):
        kdbench.load_outcomes(finished.store.root, "abc")
