"""Images that stay in their files: torchvision's transforms, the same batches however many processes read, and what goes wrong."""

import gc
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, Lab
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import _presets, v2

from kdbench import Batch, Losses, Method, MethodParams, Outputs, cli, register
from kdbench.data import Dataset, ImageFolder, ImageStream, StreamedLoader, hold_out, streaming, use_some
from kdbench.errors import DataError, KdbenchError
from kdbench.method.interface import METHODS
from kdbench.results.store import Store
from kdbench.runner.image_counts import refuse_other_counts
from kdbench.signals import STOPS
from kdbench.spec.augmentation import RandAugment
from kdbench.spec.recipe import Augmentation, Recipe, ResizedCrop
from kdbench.streams import generator, seeded
from kdbench.suite.resolve import load_suite
from kdbench.suite.shipped import shipped

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # three processes where there may be one core

CLASSES, TRAIN, TEST = 3, 42, 15
STANDARD = Augmentation(pad=0, resized_crop=ResizedCrop())

Draws = list[tuple[Tensor, Tensor, Tensor]]


def write_photographs(root: Path, *, held_out: str = "val") -> Path:
    """Colour JPEGs of many sizes, as ImageNet's lie: train/<class>/*.JPEG and val/<class>/*.JPEG."""
    random = np.random.default_rng(0)
    for split, count in (("train", TRAIN), (held_out, TEST)):
        for label in range(CLASSES):
            folder = root / split / f"n0{label}"
            folder.mkdir(parents=True)
            for i in range(count // CLASSES):
                height, width = random.integers(20, 50, 2)
                pixels = random.integers(0, 200, (height, width, 3))
                pixels[..., label] += 50
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.JPEG", quality=90)
    return root


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read it, copy it, leave it as it is."""
    return write_photographs(tmp_path_factory.mktemp("photographs") / "images")


def stream(root: Path, **params: Any) -> Dataset:
    source = ImageStream(ImageStream.Params(root=root, **{"label": "photographs", "size": 16, "workers": 0, **params}), cache=root)
    source.check()
    return source.load()


def feed(root: Path, augmentation: Augmentation = STANDARD, **params: Any) -> StreamedLoader:
    data = stream(root, **params)
    return StreamedLoader(data.train, mean=data.mean, std=data.std, device="cpu", augmentation=augmentation)


def epoch(images: StreamedLoader, *names: int | str, batch_size: int = 8) -> Draws:
    return [draw()[:3] for draw in images.epoch(generator(0, *names), batch_size=batch_size)]


def same(a: Draws, b: Draws) -> bool:
    return all(torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


# What a batch is


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_processes_makes_the_same_batches(photographs, workers):
    alone, helped = feed(photographs), feed(photographs, workers=workers)
    assert same(epoch(alone, "x"), epoch(helped, "x"))
    plain = [[draw() for draw in images.plain_batches()] for images in (alone, helped)]
    assert all(torch.equal(a, b) for p, q in zip(*plain, strict=True) for a, b in zip(p, q, strict=True))


class Trap:
    """What must be freed where it was made: its library's threads are not in a forked process."""

    def __init__(self, place: Path) -> None:
        self.place, self.process = place, os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.process:
            self.place.touch()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")
def test_processes_that_read_free_nothing_that_is_of_the_main_one(photographs, tmp_path, monkeypatch):
    """Neither its garbage nor what its handlers of signals hold."""
    original, handler = streaming._leave_interrupts_to_the_main_process, signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(streaming, "_leave_interrupts_to_the_main_process", lambda worker: (gc.collect(), original(worker)))
    gc.disable()
    try:
        garbage = [Trap(tmp_path / "garbage")]
        garbage.append(garbage)  # so that only the collector frees it
        del garbage
        signal.signal(signal.SIGTERM, partial(print, Trap(tmp_path / "handler")))
        assert epoch(feed(photographs, workers=1), "x")
    finally:
        signal.signal(signal.SIGTERM, handler)
        gc.enable()
    assert not [*tmp_path.iterdir()] and not gc.get_freeze_count()


def test_an_epoch_is_a_function_of_its_generator(photographs):
    images = feed(photographs)
    assert same(epoch(images, "x"), epoch(images, "x"))
    other = epoch(images, "y")
    assert not torch.equal(other[0][2], epoch(images, "x")[0][2])


def test_an_epoch_visits_every_image_once_with_its_label_and_leaves_no_single_one(photographs):
    images = feed(photographs)
    drawn = epoch(images, "x", batch_size=41)
    assert [len(labels) for _, labels, _ in drawn] == [42]
    indices = torch.cat([indices for _, _, indices in epoch(images, "x")])
    assert torch.equal(indices.sort().values, torch.arange(TRAIN)) and not torch.equal(indices, torch.arange(TRAIN))
    assert all(torch.equal(labels, images.labels[indices]) for _, labels, indices in drawn)
    assert images.labels.tolist() == [0] * 14 + [1] * 14 + [2] * 14


def test_how_an_image_is_augmented_does_not_depend_on_its_neighbours(photographs):
    images = feed(photographs)
    whole = [torch.cat(parts) for parts in zip(*epoch(images, "x", batch_size=42), strict=True)]
    parts = [torch.cat(parts) for parts in zip(*epoch(images, "x", batch_size=5), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_every_epoch_augments_anew(photographs):
    by_index = [
        {int(i): image for images, _, indices in epoch(feed(photographs), name) for i, image in zip(indices, images, strict=True)}
        for name in "xy"
    ]
    assert sum(torch.equal(by_index[0][i], by_index[1][i]) for i in range(TRAIN)) < 3


def test_images_are_float32_in_channels_last_layout_and_made_anew_by_every_call(photographs):
    draw = next(feed(photographs).epoch(generator(0), batch_size=8))
    first = draw()[0]
    assert first.shape == (8, 3, 16, 16) and first.dtype == torch.float32
    assert first.is_contiguous(memory_format=torch.channels_last)
    kept = first.clone()
    first.zero_()
    assert torch.equal(draw()[0], kept)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_stream_is_left_alone(photographs, workers):
    before = torch.get_rng_state()
    epoch(feed(photographs, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def files_of(root: Path) -> list[Path]:
    return sorted((root / "train").rglob("*.JPEG"))


def reference(*steps: v2.Transform) -> v2.Compose:
    """A transform of v2 from a picture to what networks get."""
    tail = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return v2.Compose([*steps, *tail])


@pytest.mark.parametrize(
    ("augmentation", "steps"),
    [
        (STANDARD, [v2.RandomResizedCrop(16), v2.RandomHorizontalFlip()]),
        (
            Augmentation(pad=0, flip=False, resized_crop=ResizedCrop(scale=(0.5, 0.9), ratio=(1, 2))),
            [v2.RandomResizedCrop(16, scale=(0.5, 0.9), ratio=(1, 2))],
        ),
        (Augmentation(pad=0), [v2.Resize(18), v2.CenterCrop(16), v2.RandomHorizontalFlip()]),
    ],
    ids=["standard", "other parameters", "no resized crop"],
)
def test_training_images_are_torchvisions_bit_for_bit(photographs, augmentation, steps):
    drawn = epoch(feed(photographs, augmentation), "x")
    stream = generator(0, "x")
    assert torch.equal(torch.cat([indices for *_, indices in drawn]), torch.randperm(TRAIN, generator=stream))
    seed = int(torch.randint(2**63 - 1, (), generator=stream))
    transform = reference(*steps)
    for images, _, indices in drawn:
        for image, index in zip(images, indices.tolist(), strict=True):
            with seeded(seed, index):
                expected = transform(Image.open(files_of(photographs)[index]))
            assert torch.equal(image, expected)


@pytest.mark.parametrize(("size", "resize"), [(16, None), (16, 16), (32, 64)])
def test_evaluation_images_are_torchvisions_bit_for_bit(photographs, size, resize):
    images = feed(photographs, size=size, **({"resize": resize} if resize else {}))
    transform = reference(v2.Resize(resize or 18), v2.CenterCrop(size))
    expected = torch.stack([transform(Image.open(file)) for file in files_of(photographs)])
    assert torch.equal(torch.cat([draw()[0] for draw in images.plain_batches()]), expected)
    assert torch.equal(images.first(5), expected[:5])
    assert len(images.first(1000)) == TRAIN


def test_grey_images(photographs):
    data = stream(photographs, channels=1, mean=[0.5], std=[0.25])
    images = StreamedLoader(data.test, mean=data.mean, std=data.std, device="cpu").first(1)
    file = sorted((photographs / "val").rglob("*.JPEG"))[0]
    expected = v2.functional.pil_to_tensor(v2.CenterCrop(16)(v2.Resize(18)(Image.open(file).convert("L"))))
    assert torch.equal(images[0].mul(0.25).add(0.5).mul(255).round().to(torch.uint8), expected)


# What identifies them


def test_imagenets_mean_std_and_sizes_are_torchvisions():
    preset = _presets.ImageClassification(crop_size=224)
    params = ImageStream.Params(root="/images", label="x", size=224)
    assert (list(params.mean), list(params.std)) == (preset.mean, preset.std)
    assert [params.resize] == preset.resize_size
    assert (preset.interpolation, preset.antialias) == (v2.InterpolationMode.BILINEAR, True)


def test_what_changes_pixels_identifies_a_trial_and_nothing_else_does(photographs, lab):
    suite = lab.suite(**STREAMED)
    (trial, *_), written = suite.trials, suite.trials[0].model_dump(mode="json")
    assert written["recipe"]["augmentation"] == {
        "pad": 0,
        "padding_mode": "zeros",
        "flip": True,
        "resized_crop": {"scale": [0.08, 1.0], "ratio": [0.75, 4 / 3]},
    }
    assert {"size", "resize", "channels", "mean", "std", "label"} < written["dataset"]["params"].keys()
    assert not {"root", "workers"} & written["dataset"]["params"].keys()
    elsewhere = with_data(workers=3, root="/elsewhere")
    assert lab.suite(**elsewhere).trials[0].id == trial.id
    assert lab.suite(**with_data(resize=20)).trials[0].id != trial.id


@pytest.mark.parametrize(("suite", "trial"), [("quick", "cf5441d96301da79"), ("fashion-mnist", "816499a39dfbf98e")])
def test_trials_without_a_resized_crop_keep_their_identity(suite, trial):
    assert load_suite(suite).trials[0].id == trial


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ("name", True),
        ("size in bytes", True),
        ("class", True),
        ("resize", True),
        ("content of the same size", False),
        ("place", False),
        ("workers", False),
    ],
)
def test_the_fingerprint_sees_names_and_sizes_and_says_so(photographs, tmp_path, change, seen):
    root = shutil.copytree(photographs, tmp_path / "copy" if change == "place" else tmp_path / "images")
    file = root / "train" / "n00" / "13.JPEG"
    if change == "name":
        file.rename(file.with_name("14.JPEG"))
    elif change == "class":  # from the last of one class to the first of the next: the same names in the same order
        file.rename(root / "train" / "n01" / "-.JPEG")
    elif change == "size in bytes":
        file.write_bytes(file.read_bytes() + b"\0")
    elif change == "content of the same size":
        file.write_bytes(bytes(file.stat().st_size))
    params = {"resize": {"resize": 20}, "workers": {"workers": 3}}.get(change, {})
    before = stream(photographs).fingerprint
    assert before.startswith("names-and-sizes:")
    assert (stream(root, **params).fingerprint != before) == seen


def test_the_fingerprint_changes_with_what_is_made_of_a_file(photographs, monkeypatch):
    before = stream(photographs).fingerprint
    monkeypatch.setattr("kdbench.data.file_split.PIXELS", 0)
    assert stream(photographs).fingerprint != before


def test_test_images_that_are_training_images_are_told_by_their_bytes(photographs, tmp_path, monkeypatch):
    from kdbench.data import duplicates as module

    assert stream(photographs).contents.notes == ()
    root = shutil.copytree(photographs, tmp_path / "images")
    for label, count in (("n00", 3), ("n01", 1)):
        for i in range(count):
            shutil.copy(root / "train" / "n00" / f"{i:02}.JPEG", root / "val" / label / f"copy{i}.JPEG")
    longer = (root / "train" / "n02" / "00.JPEG").read_bytes().ljust(9000, b"\0")
    (root / "train" / "n02" / "00.JPEG").write_bytes(longer)
    (root / "val" / "n02" / "00.JPEG").write_bytes(longer[:-1] + b"\1")  # of one size and one middle
    read_whole: Counter[str] = Counter()
    digest = module._file_digest

    def counting(file: Path) -> bytes:
        read_whole[str(file.relative_to(root))] += 1
        return digest(file)

    monkeypatch.setattr(module, "_file_digest", counting)
    told = "4 of 19 test images are identical to a training image, 1 of them with another label"
    assert stream(root).contents.notes == (told,)
    copies = ["val/n00/copy0.JPEG", "val/n00/copy1.JPEG", "val/n00/copy2.JPEG", "val/n01/copy0.JPEG"]
    originals = [f"train/n00/0{i}.JPEG" for i in range(3)]
    assert read_whole == Counter([*copies, *originals, "train/n02/00.JPEG", "val/n02/00.JPEG"])


def test_a_part_of_the_images_and_a_held_out_part_are_drawn_by_their_labels(photographs):
    data = stream(photographs)
    held_in_memory = ImageFolder(ImageFolder.Params(root=photographs, label="x", size=16), cache=photographs.parent).load()
    some, resident = (use_some(split, count=21) for split in (data.train, held_in_memory.train))
    assert Counter(some.labels.tolist()) == {0: 7, 1: 7, 2: 7}
    (train, held), (_, resident_held) = (hold_out(split, fraction=0.3) for split in (some, resident))
    assert torch.equal(held.labels, resident_held.labels)
    assert not set(train.names) & set(held.names)
    assert {*train.names, *held.names} == set(some.names)
    assert [int(name.split(b"/")[1][-1:]) for name in held.names] == held.labels.tolist()


# Whole runs

STREAMED: dict[str, Any] = {
    "dataset": {"name": "imagestream", "size": 16, "channels": 3, "workers": 0},
    "recipe": {**TINY["recipe"], "batch_size": 16, "augmentation": {"pad": 0, "resized_crop": {}}},
}


def with_data(**params: Any) -> dict[str, Any]:
    return {**STREAMED, "dataset": {**STREAMED["dataset"], **params}}


@pytest.fixture
def lab(tmp_path: Path, photographs: Path) -> Lab:
    """A lab on photographs of its own."""
    return Lab(tmp_path, shutil.copytree(photographs, tmp_path / "images"))


@pytest.fixture
def another_lab(tmp_path: Path, lab: Lab) -> Lab:
    """On the same photographs."""
    (tmp_path / "another").mkdir()
    return Lab(tmp_path / "another", lab.images)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often files of each folder were decoded."""
    counted: Counter[str] = Counter()
    read = streaming.read_image

    def counting(file: Path, **options: Any) -> Image.Image:
        counted[file.parts[-3]] += 1
        return read(file, **options)

    monkeypatch.setattr(streaming, "read_image", counting)
    return counted


def test_all_lanes_share_what_is_decoded(lab, reads):
    epochs = 2
    lab.run(lab.suite(**STREAMED, methods=["scratch"]))
    one = Counter(reads)
    assert one["train"] == epochs * TRAIN
    assert one["val"] == epochs * TEST + TEST  # the last to time the forward pass
    reads.clear()
    lab.run(lab.suite(**STREAMED, methods=["kd", "at", "rkd"], pairs=[{"teacher": "resnet8", "student": "wrn_10_1"}]))
    assert reads["train"] == 2 * epochs * TRAIN  # the teacher's training and the cohort's
    timed = 1 + 1 + 3  # teacher alone, teacher of the cohort, three students
    assert reads["val"] == 2 * epochs * TEST + TEST + timed * TEST  # the teacher is examined once before it teaches


def test_a_lane_comes_out_the_same_beside_others_and_in_any_number_of_processes(lab, another_lab):
    assert lab.run(lab.suite(**STREAMED, methods=["kd"]))
    assert another_lab.run(another_lab.suite(**with_data(workers=2), methods=["scratch", "kd", "at"]))
    alone = lab.outcomes()
    assert len(alone) == 2
    assert {key: another_lab.outcomes()[key] for key in alone} == alone


def test_stopped_after_every_epoch_it_ends_as_if_left_alone(lab, another_lab, one_epoch_a_run):
    changes = {"methods": ["kd", {"ft": {"paraphraser_epochs": 2}}]}
    data = {"validation": 0.2, "train_images": 36}
    assert another_lab.run(another_lab.suite(**with_data(**data), **changes))
    suite = lab.suite(**with_data(**data), **changes)
    runs = 1
    while not lab.run(suite, **one_epoch_a_run):
        runs += 1
    assert runs > 4
    assert lab.outcomes() == another_lab.outcomes()
    assert "selected_test_error_pct" in lab.record(suite.trials[0]).model_fields_set


class Broken(Method):
    """Raises at once."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        raise ValueError("of no use")


def test_nothing_more_is_read_once_every_lane_has_failed(lab, reads):
    undo = METHODS.snapshot()
    try:
        register("broken")(Broken)
        suite = lab.suite(**STREAMED, methods=["broken"])
        lab.run(suite)
        assert lab.record(suite.trials[0]).reason.startswith("ValueError: of no use")
        assert reads == {"train": 16}
    finally:
        undo()


class Vandal(Method):
    """Changes in place what all lanes are given."""

    reads = ("pooled",)

    class Params(MethodParams):
        pass

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        batch.images.zero_()
        return {"gap": (student.pooled - teacher.pooled).square().mean()}


def test_a_lane_that_spoils_the_batch_fails_and_harms_nobody(lab, another_lab):
    undo = METHODS.snapshot()
    try:
        register("vandal")(Vandal)
        suite = lab.suite(**STREAMED, methods=["vandal", "kd"])
        lab.run(suite)
        assert re.search("in ?place", lab.record(suite.trials[0]).reason or "")
        assert another_lab.run(another_lab.suite(**STREAMED, methods=["kd"]))
        alone = another_lab.outcomes()
        assert {key: lab.outcomes()[key] for key in alone} == alone
    finally:
        undo()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_precision_trains_from_files_and_is_recorded(lab, another_lab, precision):
    suite = lab.suite(**{**STREAMED, "recipe": {**STREAMED["recipe"], "precision": precision}}, methods=["kd"])
    assert lab.run(suite)
    record = lab.record(suite.trials[0])
    assert (record.status, record.precision, record.spec["recipe"]["precision"]) == ("done", precision, precision)
    if precision == "bf16":
        full = another_lab.suite(**STREAMED, methods=["kd"])
        another_lab.run(full)
        assert another_lab.record(full.trials[0]).train_loss != record.train_loss


def test_tf32_is_refused_where_it_has_no_effect(lab):
    suite = lab.suite(**{**STREAMED, "recipe": {**STREAMED["recipe"], "precision": "tf32"}})
    with pytest.raises(KdbenchError, match="tf32 has no effect on the CPU"):
        lab.run(suite)


# What goes wrong


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("splits", [("train", "val"), ("val",)])
def test_damaged_images_end_the_run_in_one_message_and_fail_no_lane(lab, splits, workers):
    suite = lab.suite(**with_data(workers=workers), methods=["scratch"])
    files = [lab.images / split / folder / "03.JPEG" for split in splits for folder in ("n00", "n01")]
    whole = [file.read_bytes() for file in files]
    for file, content in zip(files, whole, strict=True):
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError) as caught:
        lab.run(suite)
    told, way_out = str(caught.value).rsplit("\n", 1)
    assert re.fullmatch(f"cannot read {len(files)} files:" + "".join(f"\n  {file}: .+" for file in files), told)
    assert way_out.startswith("Put each file back as it was; then the same command continues. Or replace or remove it and, ")
    assert not lab.outcomes()
    for file, content in zip(files, whole, strict=True):
        file.write_bytes(content)
    assert lab.run(suite)


def test_an_image_that_cannot_be_read_is_no_result_of_the_trial_that_asked_for_it(lab, monkeypatch):
    def damaged(*_: object) -> Tensor:
        raise DataError("cannot decode it")

    monkeypatch.setattr(StreamedLoader, "first", damaged)  # it is called when a trial is over
    with pytest.raises(DataError):
        lab.run(lab.suite(**STREAMED, methods=["scratch"]))
    assert not lab.outcomes()


def test_what_is_finished_is_kept(lab, capsys, monkeypatch):
    suite = lab.suite(**STREAMED, methods=["scratch"])
    assert lab.run(suite)
    done = lab.outcomes()
    file = lab.images / "train" / "n01" / "03.JPEG"
    file.write_bytes(file.read_bytes()[:200].ljust(file.stat().st_size, b"\0"))  # the size is kept, so that decoding finds it first
    arguments = ["run", str(lab.write(**STREAMED, methods=["scratch", "kd"])), "--results", str(lab.store.root), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["kdbench", *arguments])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert end.value.code == cli.BAD_USAGE
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: cannot read {file}") and len(errors.splitlines()) == 1
    assert lab.outcomes() == done


@pytest.mark.parametrize("change", [lambda file: file.write_bytes(file.read_bytes() + b"\0"), Path.unlink])
def test_with_a_file_that_was_replaced_or_removed_it_is_other_data_and_has_another_label(lab, change):
    suite = lab.suite(**STREAMED, methods=["scratch"])
    assert lab.run(suite)
    kind, params = suite.source
    decoded, contents = (
        suite.trials[0].dataset.model_copy(update={"name": "imagefolder"}),
        kind(params, cache=lab.store.cache).contents(),
    )
    refuse_other_counts(lab.store, suite.trials[0].dataset, contents, params)
    with pytest.raises(KdbenchError, match=r"read in another way \(imagestream, now imagefolder\)"):
        refuse_other_counts(lab.store, decoded, contents, params)
    change(lab.images / "train" / "n01" / "03.JPEG")
    with pytest.raises(KdbenchError, match=r"from other images, .* Give the data set another `label`"):
        lab.run(lab.suite(**STREAMED, methods=["kd"]))
    assert lab.run(lab.suite(**with_data(label="other photographs"), methods=["scratch"]))


def test_a_process_that_is_killed_is_found_when_its_batch_is_waited_for(photographs):
    draws = feed(photographs, workers=1).epoch(generator(0), batch_size=2)
    next(draws)()
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.3)  # torch's handler of the signal would raise here, in the middle of a method's step
    with pytest.raises(DataError, match=r"a process that reads images has failed: .*fewer `workers`.*what is finished is kept"):
        list(draws)


@pytest.fixture
def spawning() -> Iterator[None]:
    """As by default on macOS and Windows."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere forking may be unsafe")
@pytest.mark.usefixtures("spawning")
def test_processes_are_forked_on_linux_whatever_python_does(photographs):
    draws = feed(photographs, workers=1).epoch(generator(0), batch_size=2)
    next(draws)()
    (worker,) = multiprocessing.active_children()
    assert isinstance(worker, multiprocessing.get_context("fork").Process)


@pytest.mark.parametrize("name", ["torchvision", "timm", "fixmatch"])
def test_what_processes_are_given_can_be_sent_to_those_that_are_not_forked(photographs, monkeypatch, name):
    crop = ResizedCrop(interpolation="bilinear" if name == "timm" else "random")
    images = feed(photographs, Augmentation(pad=0, resized_crop=crop, rand_augment=RandAugment(name=name)))
    sent = []
    monkeypatch.setattr(images, "_read", lambda reader, chunks: sent.append(reader) or [])
    for begin in (lambda: images.epoch(generator(0), batch_size=8, strong=generator(1)), images.plain_batches):
        with pytest.raises(ValueError, match="shorter"):
            next(begin())
    assert len(sent) == 2
    for reader in sent:
        assert torch.equal(pickle.loads(pickle.dumps(reader))[[0, 3]], reader[[0, 3]])


def test_a_script_that_ends_in_the_middle_of_a_pass_ends_the_processes(photographs, monkeypatch):
    """A traceback may hold the pass until then. Python's own end waits for ever for processes that leave signals to this one."""
    at_exit: list[Any] = []
    monkeypatch.setattr("kdbench.data.streaming.atexit", SimpleNamespace(register=at_exit.append, unregister=at_exit.remove))
    draws = feed(photographs, workers=1).epoch(generator(0), batch_size=2)
    next(draws)()
    (call,) = at_exit
    call()
    assert not multiprocessing.active_children()
    draws.close()
    assert not at_exit


def test_processes_that_read_go_on_when_a_signal_that_asks_to_stop_goes_to_all(photographs):
    draws = feed(photographs, workers=1).epoch(generator(0), batch_size=2)
    next(draws)()
    (worker,) = multiprocessing.active_children()
    for number in STOPS:
        os.kill(worker.pid, number)
    assert len(list(draws)) == TRAIN / 2 - 1


def test_processes_that_read_do_not_hold_the_results_directory(tmp_path):
    store, fork = Store(tmp_path, protocol=1), multiprocessing.get_context("fork")
    started, end = fork.Event(), fork.Event()

    def read() -> None:
        started.set()
        end.wait()

    with store.writing():
        reader = fork.Process(target=read)
        reader.start()
        assert started.wait(30)
    try:
        with store.writing():
            assert reader.is_alive()
    finally:
        end.set()
        reader.join()


@pytest.mark.parametrize(
    ("changes", "place", "fix"),
    [
        ({"recipe": {**STREAMED["recipe"], "augmentation": {"pad": 2}}}, "recipe.augmentation: streamed images", "Give `pad: 0`"),
        (
            {"dataset": {"name": "imagefolder", "size": 16, "channels": 3}},
            "recipe.augmentation: `resized_crop` needs streamed images",
            "name: imagestream",
        ),
        (
            {"recipe": {**STREAMED["recipe"], "augmentation": {"pad": 2, "resized_crop": {}}}},
            "recipe.augmentation: pad has no effect beside resized_crop",
            "give `pad: 0`",
        ),
        (
            {"recipe": {**STREAMED["recipe"], "augmentation": {"pad": 0, "resized_crop": {"scale": [1, 0.1]}}}},
            "recipe.augmentation.resized_crop: scale",
            "lower bound, then the upper",
        ),
        (
            {"recipe": {**STREAMED["recipe"], "augmentation": {"pad": 0, "resized_crop": {"ratio": [2, 1]}}}},
            "recipe.augmentation.resized_crop: ratio",
            "lower bound, then the upper",
        ),
        ({"teacher": {"recipe": {"augmentation": {"pad": 1, "resized_crop": None}}}}, "teacher.recipe.augmentation", "pad: 0"),
        ({"dataset": {**STREAMED["dataset"], "resize": 8}}, "dataset: resize: 8 is less than `size`", "give more"),
        ({"dataset": {**STREAMED["dataset"], "channels": 1}}, "dataset: `mean` and `std`", "1 in all"),
    ],
)
def test_what_cannot_be_is_refused_when_the_suite_is_read(lab, changes, place, fix):
    with pytest.raises(KdbenchError) as caught:
        lab.suite(**{**STREAMED, **changes})
    assert place in str(caught.value) and fix in str(caught.value)


def test_images_that_memory_cannot_hold_are_to_be_streamed(photographs, monkeypatch):
    monkeypatch.setattr("kdbench.data.imagefolder.memory_bytes", lambda: 2**30)
    ImageFolder(ImageFolder.Params(root=photographs, label="x", size=16), cache=photographs).check()
    told = "57 images of 4096x4096x3 are 2.7 GiB of pixels, held in memory twice, and this machine has 1.0 GiB;"
    with pytest.raises(KdbenchError, match=f"{told} .*`name: imagestream`"):
        ImageFolder(ImageFolder.Params(root=photographs, label="x", size=4096), cache=photographs).check()


def test_a_missing_folder_and_a_file_that_is_not_there(photographs, tmp_path):
    with pytest.raises(KdbenchError, match=r"root: there is no folder .*nowhere"):
        stream(tmp_path / "nowhere")
    root = shutil.copytree(photographs, tmp_path / "images")
    (root / "train" / "n00" / "x.JPEG").symlink_to("gone")
    source = ImageStream(ImageStream.Params(root=root, label="x", size=16), cache=root)
    for look in (source.check, source.load):
        with pytest.raises(DataError, match=r"cannot read .*n00/x.JPEG: No such file or directory. Put each file back"):
            look()


@pytest.mark.parametrize("params", [{"workers": -1}, {"size": 0}, {"label": ""}, {"mean": [0.5] * 3, "std": [0, 1, 1]}])
def test_wrong_parameters(params):
    with pytest.raises(ValidationError, match=next(iter(reversed(params)))):
        ImageStream.Params.model_validate({"root": "/images", "label": "x", "size": 16, **params})


# How folders may lie


@pytest.fixture
def tiny_imagenet(photographs: Path, tmp_path: Path) -> Path:
    """As its archive unpacks."""
    root = tmp_path / "tiny-imagenet-200"
    lines = []
    for folder in sorted((photographs / "train").iterdir()):
        shutil.copytree(folder, root / "train" / folder.name / "images")
        (root / "train" / folder.name / f"{folder.name}_boxes.txt").write_text("")
    for unlabelled in ("val", "test"):
        (root / unlabelled / "images").mkdir(parents=True)
    for i, file in enumerate(sorted((photographs / "val").rglob("*.JPEG"))):
        place = (7 * i) % TEST  # names do not come class by class
        shutil.copy(file, root / "val" / "images" / f"val_{place:02}.JPEG")
        shutil.copy(file, root / "test" / "images" / f"test_{place:02}.JPEG")
        lines.append(f"val_{place:02}.JPEG\t{file.parent.name}\t0\t0\t9\t9\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def by_content(data: Dataset) -> list[tuple[str, int]]:
    """Of the test images, the sum of pixels and the label."""
    loader = StreamedLoader(data.test, mean=data.mean, std=data.std, device="cpu")
    images = torch.cat([draw()[0] for draw in loader.plain_batches()])
    return sorted((f"{float(image.sum()):.3f}", label) for image, label in zip(images, data.test.labels.tolist(), strict=True))


def test_tiny_imagenet_is_read_as_it_is_unpacked(photographs, tiny_imagenet):
    expected, data = stream(photographs), stream(tiny_imagenet)
    assert data.classes == expected.classes
    assert torch.equal(data.train.labels, expected.train.labels)
    assert by_content(data) == by_content(expected)
    resident = ImageFolder(ImageFolder.Params(root=tiny_imagenet, label="x", size=16), cache=tiny_imagenet.parent).load()
    assert torch.equal(resident.test.labels, data.test.labels)


def test_tiny_imagenet_with_its_test_images_in_folders_of_classes(photographs, tiny_imagenet):
    shutil.rmtree(tiny_imagenet / "val" / "images")
    shutil.copytree(photographs / "val", tiny_imagenet / "val", dirs_exist_ok=True)
    assert by_content(stream(tiny_imagenet)) == by_content(stream(photographs))


def test_annotations_need_not_be_utf8(photographs, tiny_imagenet):
    annotations = tiny_imagenet / "val" / "val_annotations.txt"
    annotations.write_bytes(annotations.read_bytes().replace(b"val_00", b"val_\xe9").replace(b"\n", b"\r\n"))
    os.rename(tiny_imagenet / "val" / "images" / "val_00.JPEG", os.fsencode(tiny_imagenet) + b"/val/images/val_\xe9.JPEG")
    assert by_content(stream(tiny_imagenet)) == by_content(stream(photographs))


@pytest.mark.parametrize("line", ["", "val_00.JPEG\tn99\t0\t0\t9\t9\n"])
def test_an_image_without_a_class(tiny_imagenet, line):
    annotations = tiny_imagenet / "val" / "val_annotations.txt"
    lines = [kept for kept in annotations.read_text().splitlines(keepends=True) if not kept.startswith("val_00")]
    annotations.write_text("".join([*lines, line]))
    with pytest.raises(KdbenchError, match=r"val_annotations.txt gives val/images/val_00.JPEG no class that .*train has; unpack"):
        stream(tiny_imagenet)


def test_imagenets_test_images_as_they_are_unpacked_are_to_be_arranged(photographs, tmp_path):
    root = shutil.copytree(photographs, tmp_path / "images")
    for file in (root / "val").rglob("*.JPEG"):
        file.rename(root / "val" / f"{file.parent.name}-{file.name}")
    for folder in (root / "val").glob("n*/"):
        folder.rmdir() if folder.is_dir() else None
    with pytest.raises(KdbenchError, match="val has no class folders; arrange the images as val/<class>/"):
        stream(root)


# Recipes


def with_recipe(lab: Lab, recipe: object, /, **changes: Any) -> Recipe:
    """The shipped recipe, or one with changes, as a trial of the data set has it."""
    file = lab.write(**changes)
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "recipe": recipe}))
    return load_suite(file).trials[0].recipe


def test_tiny_imagenet_is_padded_and_cropped_in_memory_as_small_images_are(lab):
    recipe, model = with_recipe(lab, "tiny-imagenet"), with_recipe(lab, "repdistiller")
    assert recipe == model
    assert recipe.augmentation == Augmentation(pad=4)


def test_tiny_imagenet_is_streamed_with_the_standard_crop_and_all_else_as_in_memory(lab, tiny_imagenet):
    """By the line that the recipe's comment tells users to write; without it the padding is refused."""
    comment = (shipped("suites") / "recipes" / "tiny-imagenet.yaml").read_text()
    told = yaml.safe_load(comment.partition("# `recipe: ")[2].partition("`.\n")[0])
    streamed = with_data(resize=16, root=str(tiny_imagenet))
    recipe = with_recipe(lab, told, **streamed)
    assert recipe.augmentation == STANDARD
    assert recipe == with_recipe(lab, "tiny-imagenet").model_copy(update={"augmentation": STANDARD})
    with pytest.raises(KdbenchError, match=r"recipe.augmentation: streamed images .* are not padded"):
        with_recipe(lab, "tiny-imagenet", **streamed)


def test_the_recipe_of_imagenet_is_the_standard_one(lab):
    recipe = with_recipe(lab, "imagenet", **STREAMED)
    assert (recipe.epochs, recipe.batch_size, recipe.schedule.milestones, recipe.schedule.gamma) == (100, 256, (30, 60, 90), 0.1)
    assert recipe.optimiser.model_dump() == {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}
    assert recipe.augmentation == STANDARD
    assert recipe.augmentation.resized_crop == ResizedCrop(scale=(0.08, 1), ratio=(3 / 4, 4 / 3))
