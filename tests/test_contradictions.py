"""A record that cannot be its trial's is left out; numbers that cannot be so are told under the table that shows them."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_results import STUDENTS, TEACHER, put, trial_spec

from kdbench import load_outcomes, load_results
from kdbench.report.contents import read_report
from kdbench.report.notes import footnotes
from kdbench.results.export import read_export, write_export
from kdbench.results.frames import load_curves
from kdbench.results.outcomes import OUTCOMES, Outcomes
from kdbench.results.store import Store
from kdbench.results.trial_folder import State, read_folder
from kdbench.spec.record import PROTOCOL, Data, ImageCounts
from kdbench.spec.trial import digest

IMAGES = ImageCounts.of([20, 20])
DATA = Data(
    **{"classes": ("a", "b"), "image_shape": (1, 8, 8), "resize": None, "mean": (0.5,), "std": (0.2,)},
    **{"train_images": IMAGES, "validation_images": None, "test_images": IMAGES, "passed_over_files": {}, "notes": ()},
)
SHARED = {"epochs": 2, "train_s": 3.0, "train_images_per_s": 90.0, "data": DATA}
CURVE = [
    {"stage": "kd.hint", "epoch": 1, "train_s": 1.0},
    {"stage": "main", "epoch": 1, "train_s": 1.0, "images": 90, "test_error_pct": 2.5},
    {"stage": "main", "epoch": 2, "train_s": 1.0, "images": 90, "test_error_pct": 5.0},
]


def lines(curve: list[dict[str, Any]]) -> dict[str, str]:
    return {"curves.jsonl": "".join(json.dumps(row) + "\n" for row in curve)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three students of three seeds, and one of another method, in whose records nothing is odd."""
    folder = tmp_path / "results"
    put(folder, TEACHER, **SHARED)
    for seed, spec in enumerate(STUDENTS):
        put(folder, spec, files=lines(CURVE), weights_sha256=f"s{seed}", **SHARED)
    put(folder, trial_spec(method="at", teacher=TEACHER), files=lines(CURVE), weights_sha256="at", **SHARED)
    wrong = np.arange(40) >= 38
    outcomes = Outcomes.of(np.arange(40) // 20, np.where(wrong, 0, np.arange(40) // 20), num_classes=2, data_fingerprint="f")
    for spec in STUDENTS:
        (folder / "trials" / digest(spec) / OUTCOMES).write_bytes(outcomes.packed())
    return folder


def notes(source: Path) -> list[str]:
    """What the report of it says beyond the number of seeds and of images."""
    results = read_report([str(source)], source, seeds=[], changes={}, plugins=[]).results
    students = results[results["role"] == "student"]
    return [note for note in footnotes(students) if not note.startswith(("n = ", "digits: "))]


def edit(root: Path, student: dict[str, Any], **changes: Any) -> None:
    file = root / "trials" / digest(student) / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


FIRST = digest(STUDENTS[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_error_pct": 2.5}, ["the test error is not that of the last epoch of the curve"]),
        (
            {"test_error_pct": 4.9},
            [
                "no number of wrong images among the 40 test images gives this test error",
                "the test error is not that of the last epoch of the curve",
            ],
        ),
        ({"train_s": 2.9}, ["the seconds of training are not those of the curve"]),
        ({"train_images_per_s": 99.0}, ["the speed of training is not that of the curve"]),
        ({"epochs": 3}, ["the curve has not as many epochs as the recipe"]),
        ({"weights_sha256": "s0", "train_s": 3.0 + 1e-9}, []),
    ],
)
def test_numbers_that_cannot_be_so_are_told(root: Path, changes: dict[str, Any], said: list[str]) -> None:
    assert notes(root) == []
    edit(root, STUDENTS[0], **changes)
    assert notes(root) == [f"KD (resnet20 → resnet8): trial {FIRST[:8]}: {sentence}." for sentence in said]
    (root / "trials" / FIRST / "curves.jsonl").unlink()
    assert notes(root) == [f"KD (resnet20 → resnet8): trial {FIRST[:8]}: {said}." for said in said if "curve" not in said]


def test_the_same_weights_of_two_seeds_are_told(root: Path) -> None:
    edit(root, STUDENTS[1], weights_sha256="s2")
    both = ", ".join(f"trial {digest(spec)[:8]}" for spec in STUDENTS[1:])
    (told,) = notes(root)
    assert told.endswith(": the weights are, bit for bit, those of a trial with another seed.")
    assert sorted(told.split(": ")[1].split(", ")) == sorted(both.split(", "))


def test_an_exported_file_is_held_against_itself(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, frame = tmp_path / "all.csv", load_results(root)
    curves, outcomes = load_curves(root, frame["trial"]), load_outcomes(root, frame["trial"])
    write_export(frame, file, curves=curves, outcomes=outcomes)
    assert notes(file) == [] and len(read_export(file).outcomes) == 3 and not caplog.messages
    frame.loc[frame["trial"] == FIRST, "test_error_pct"] = 2.5
    write_export(frame, file, curves=curves, outcomes=outcomes)
    (said,) = notes(file)
    assert said == f"KD (resnet20 → resnet8): trial {FIRST[:8]}: the test error is not that of the last epoch of the curve."
    told = f"{file}: `outcomes` of trial {FIRST} is left out: it has a test error of 5 %, the record has 2.5 %."
    assert caplog.messages == [told]
    write_export(frame.assign(protocol=1), file, curves=curves.drop(columns="images"))
    assert notes(file) == [], "nobody knows how earlier versions counted"


def of_another(root: Path) -> str:
    shutil.copy(root / "trials" / digest(STUDENTS[1]) / "record.json", root / "trials" / FIRST)
    return f"it is the record of {digest(STUDENTS[1])}"


def of_another_spec(root: Path) -> str:
    edit(root, STUDENTS[0], spec=STUDENTS[1])
    return f"its `spec` is that of trial {digest(STUDENTS[1])}"


def of_another_seed(root: Path) -> str:
    edit(root, STUDENTS[0], seed=7)
    return "its seed is 7, in its `spec` 0"


def of_another_method(root: Path) -> str:
    edit(root, STUDENTS[0], method="at")
    return "its method is at, in its `spec` kd"


@pytest.mark.parametrize("mistake", [of_another, of_another_spec, of_another_seed, of_another_method])
def test_a_record_that_is_not_its_trials_is_left_out(
    mistake: Callable[[Path], str], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    reason = mistake(root)
    file = root / "trials" / FIRST / "record.json"
    assert FIRST not in set(load_results(root)["trial"])
    assert read_folder(file.parent).state is State.DAMAGED
    assert Store(root, protocol=PROTOCOL, read_only=True).record(FIRST) is None
    assert caplog.messages == [f"{file} is left out: {reason}.", f"{file} cannot be used: {reason}."]
