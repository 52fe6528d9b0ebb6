"""What a record says of cost: of the network that a user would run, and of the time that each part of the training took."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import CLASSES, Lab

import kdbench
from kdbench.data import ResidentLoader
from kdbench.runner.phase import learnt_nothing
from kdbench.runner.plan import Rerun
from kdbench.spec.record import ImageCounts, images_text
from kdbench.training.device import environment, exact
from kdbench.training.frozen_teacher import FrozenTeacher


def test_a_record_counts_the_network_that_is_deployed(lab: Lab) -> None:
    """SimKD's projector and the teacher's classifier go with the student; FT's translator is dropped."""
    lab.run(lab.suite(methods=["scratch", "simkd", "ft"], seeds=[0]))
    frame = kdbench.load_results(lab.store.root).query("student == 'resnet8'").set_index("method")
    student, (width, classes) = kdbench.build_model("resnet8", num_classes=CLASSES, in_channels=1), (64, CLASSES)
    own = sum(p.numel() for p in student.parameters())
    middle = width // 2
    projector = width * middle + 9 * middle**2 + middle * width + 2 * (middle + middle + width)
    assert frame["student_params"].to_dict() == {
        "scratch": own,
        "simkd": own + projector + width * classes + classes,
        "ft": own,
    }
    macs = frame["student_macs"]
    at_2x2 = 4 * (width * middle + 9 * middle**2 + middle * width)
    assert macs["ft"] == macs["scratch"]
    assert macs["simkd"] == macs["scratch"] + at_2x2 + width * classes
    assert frame["extra_params"]["simkd"] == 0
    assert frame["extra_params"]["ft"] > 0


def test_a_record_says_what_its_images_were(lab: Lab) -> None:
    suite = lab.suite(methods=["scratch"], dataset={"train_images": 60, "validation": 0.2})
    lab.run(suite)
    source, params = suite.source
    dataset = source(params, cache=lab.store.cache).load()
    data = lab.record(suite.trials[0]).data
    assert data is not None
    assert data.model_dump(exclude={"passed_over_files", "notes"}) == {
        "classes": ("at0", "at1", "at2"),
        "image_shape": (1, 8, 8),
        "resize": {"height_px": 8, "width_px": 8},
        "mean": dataset.mean,
        "std": dataset.std,
        "train_images": {"images": 48, "fewest_of_a_class": 16, "most_of_a_class": 16, "by_class": (16, 16, 16)},
        "validation_images": {"images": 12, "fewest_of_a_class": 4, "most_of_a_class": 4, "by_class": (4, 4, 4)},
        "test_images": {"images": 30, "fewest_of_a_class": 10, "most_of_a_class": 10, "by_class": (10, 10, 10)},
    }
    assert data.summary == "48 training images, 12 validation images and 30 test images in 3 classes (16 a class)"
    row = kdbench.load_results(lab.store.root).iloc[0]
    assert (row["data"], row["data_notes"]) == (data.summary, "")
    assert [row[f"{split}_images"] for split in ("train", "validation", "test")] == [48, 12, 30]
    assert (row["num_classes"], row["passed_over_files"], row["one_class_error_pct"]) == (3, 0, 100 * 2 / 3)


def test_a_teacher_that_knows_no_class_is_warned_of(lab: Lab) -> None:
    suite = lab.suite(methods=["scratch"], seeds=[0])
    lab.run(suite)
    record = lab.record(suite.trials[0])
    assert learnt_nothing(record.model_copy(update={"test_error_pct": 66.6})) is None
    assert learnt_nothing(record.model_copy(update={"test_error_pct": 200 / 3})) == (
        "warning: the teacher resnet8 has a test error of 66.67 %, which is no better than always answering one class (66.67 %); "
        "train it longer, or lower its learning rate."
    )
    assert learnt_nothing(record.model_copy(update={"test_error_pct": 200 / 3, "data": None})) is None, "of an earlier version"


def test_a_record_of_a_thousand_classes_is_no_book() -> None:
    few, many = (ImageCounts.of([*[1300] * (classes - 1), 732]) for classes in (100, 1000))
    assert few.by_class == (*[1300] * 99, 732)
    assert many.model_dump() == {
        "images": 1300 * 999 + 732,
        "fewest_of_a_class": 732,
        "most_of_a_class": 1300,
        "by_class": None,
    }
    told = images_text(many, many, classes=1000, passed_over={"train/: unknown type (.heic)": 1, "val/: not used": 1500})
    assert told == (
        "1,299,432 training images and 1,299,432 test images in 1,000 classes (732 to 1,300 a class); skipped: "
        "1 file, train/: unknown type (.heic); 1,500 files, val/: not used"
    )


def slowly(act: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def later(*args: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return act(*args, **options)

    return later


def test_the_shares_of_the_teacher_and_of_the_data_are_those_that_they_took(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches an epoch, two epochs: a teacher that takes 40 ms more for a batch, and data that take 20."""
    suite = lab.suite(methods=["scratch", "kd"])
    lab.run(suite, lanes=1)
    monkeypatch.setattr(FrozenTeacher, "__call__", slowly(FrozenTeacher.__call__, 0.04))
    monkeypatch.setattr(ResidentLoader, "batch", slowly(ResidentLoader.batch, 0.02))
    lab.run(suite, rerun=Rerun.ALL)
    scratch, kd = map(lab.record, suite.trials)
    assert scratch.teacher_s == 0
    assert kd.teacher_s == pytest.approx(6 * 0.04, abs=0.1)
    assert scratch.data_s == kd.data_s == pytest.approx(6 * 0.02, abs=0.1)
    assert scratch.train_s is not None and kd.train_s is not None
    assert scratch.train_s < kd.train_s - 6 * 0.02, "scratch pays for no teacher"
    assert kd.train_s > 6 * 0.06 and kd.train_s - kd.teacher_s < 6 * 0.04 + scratch.train_s
    assert kd.train_images_per_s == pytest.approx(2 * 72 / kd.train_s, rel=0.5)


def test_a_record_says_how_many_norms_of_the_teacher_were_folded(lab: Lab) -> None:
    """Of WRN-10-1 the second one in each of three blocks: the others stand before a ReLU that a shortcut reads, too."""
    suite = lab.suite(methods=["scratch", "kd"])
    lab.run(suite)
    scratch, kd = map(lab.record, suite.trials)
    assert (scratch.teacher_norms_folded, kd.teacher_norms_folded) == (None, 3)
    assert kd.peak_mem_mib is not None and kd.peak_mem_mib > 100  # a process with torch in it


def test_small_images_take_one_thread_and_larger_ones_what_torch_has() -> None:
    before, cpu = torch.get_num_threads(), torch.device("cpu")
    torch.set_num_threads(2)
    try:
        for side, threads in ((8, 1), (16, 1), (32, 2)):
            with exact(cpu, precision="fp32", image_shape=(3, side, side)):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_nesterov_is_heard(lab: Lab) -> None:
    hashes = []
    for nesterov in (False, True):
        suite = lab.suite(methods=["scratch"], recipe={"optimiser": {"lr": 0.05, "nesterov": nesterov}})
        lab.run(suite)
        hashes.append(lab.record(suite.trials[0]).weights_sha256)
    assert hashes[0] != hashes[1]


def test_processors_of_one_name_with_other_instructions_are_different_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch chooses kernels by them, whose last bits differ: a checkpoint of the one is not continued on the other."""
    found = set()
    for instructions in ("AVX2", "AVX512"):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda instructions=instructions: instructions)
        found.add(environment(torch.device("cpu")).device)
    assert len(found) == 2
