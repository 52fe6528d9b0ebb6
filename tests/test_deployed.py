"""What a run keeps can be loaded as the network that its table is about."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Lab, Said
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import kdbench
from kdbench import Batch, KdbenchError, Losses, Method, Outputs
from kdbench.method.interface import METHODS
from kdbench.models import MODELS
from kdbench.runner.plan import Rerun
from kdbench.runner.run import Options, execute
from kdbench.spec.trial import TrialSpec
from kdbench.training.device import exact
from kdbench.training.evaluation import error_pct


@pytest.fixture
def plain() -> Iterator[None]:
    """A network of one's own."""
    forget = MODELS.snapshot()

    @MODELS.register("kept_plain")
    def kept_plain(*, num_classes: int, in_channels: int) -> nn.Module:
        body = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))

    yield
    forget()


def error_of(lab: Lab, trial: TrialSpec) -> float:
    """Test error in percent of what is loaded from the trial's folder."""
    network = kdbench.load_student(lab.store.folder(trial.id))
    assert not network.training
    builder = lab.builder(lab.suite())
    with exact(torch.device("cpu"), precision="fp32", image_shape=builder.dataset.image_shape):
        return error_pct(network, builder.test_data, precision="fp32")


@pytest.mark.parametrize("student", ["resnet8", "kept_plain"])
def test_a_kept_student_errs_as_its_record_says(student: str, lab: Lab, plain: None) -> None:
    hooks = {"hooks": ["0"]} if student == "kept_plain" else {}
    pairs = [{"teacher": "wrn_10_1", "student": {"model": student, **hooks}}]
    suite = lab.suite(keep_students=True, methods=["scratch", "kd", "simkd", {"simkd+at": {"ce": 0}}], pairs=pairs)
    assert lab.run(suite)
    for trial in (*suite.trials, *suite.teachers):
        assert error_of(lab, trial) == lab.record(trial).test_error_pct, trial.method
        assert lab.file(trial, "method.safetensors").exists() is ("simkd" in trial.method)


def test_what_a_kept_student_needs_is_told(lab: Lab, plain: None, tmp_path: Path) -> None:
    with pytest.raises(KdbenchError, match=r"record.json is missing. Give the folder of a finished trial"):
        kdbench.load_student(tmp_path)
    suite = lab.suite(methods=["scratch"])
    lab.run(suite)
    with pytest.raises(KdbenchError, match=r"weights.safetensors is missing. .*`keep_students: true`"):
        kdbench.load_student(lab.store.folder(suite.trials[0].id))
    pairs = [{"teacher": "wrn_10_1", "student": {"model": "kept_plain", "hooks": ["0"]}}]
    suite = lab.suite(keep_students=True, methods=["scratch"], pairs=pairs)
    lab.run(suite)
    MODELS._entries.pop("kept_plain")
    with pytest.raises(KdbenchError, match="unknown model 'kept_plain'"):
        kdbench.load_student(lab.store.folder(suite.trials[0].id))


@pytest.mark.parametrize("name", ["weights.safetensors", "method.safetensors"])
def test_a_damaged_student_is_refused(name: str, lab: Lab) -> None:
    suite = lab.suite(keep_students=True, methods=["simkd"])
    lab.run(suite)
    file = lab.file(suite.trials[0], name)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(KdbenchError, match="are not those that its training left"):
        kdbench.load_student(file.parent)
    file.write_bytes(b"nothing")
    with pytest.raises(KdbenchError, match=r"damaged or no safetensors file|Train it again"):
        kdbench.load_student(file.parent)
    file.unlink()
    with pytest.raises(KdbenchError, match=r"are not those that its training left|is missing"):
        kdbench.load_student(file.parent)
    assert not list(file.parent.glob("*.broken")), "what is loaded is not moved"


class Rolls(Method):
    """Predicts otherwise than its student, and deploys nothing beside it."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {}

    def predict(self, student: Outputs) -> Tensor:
        return student.logits.roll(1, 1)


def test_what_a_method_predicts_with_and_what_a_constructor_draws_are_as_in_training(lab: Lab, plain: None) -> None:
    @MODELS.register("kept_drawn")
    def drawn(*, num_classes: int, in_channels: int) -> nn.Module:
        body = nn.Sequential(nn.Conv2d(in_channels, 32, 3, padding=1), nn.ReLU())
        head = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))
        order = torch.randperm(32)  # no state holds it
        head[2].register_forward_hook(lambda module, args, output: output[:, order])
        return head

    pairs = [{"teacher": "wrn_10_1", "student": {"model": "kept_drawn", "hooks": ["0"]}}]
    suite = lab.suite(keep_students=True, methods=["scratch"], pairs=pairs, recipe={"epochs": 4})
    assert lab.run(suite)
    assert error_of(lab, suite.trials[0]) == lab.record(suite.trials[0]).test_error_pct
    forget = METHODS.snapshot()
    METHODS.register("rolls")(Rolls)
    try:
        suite = lab.suite(keep_students=True, methods=["rolls"])
        assert lab.run(suite)
        (trial,) = suite.trials
        assert error_of(lab, trial) == lab.record(trial).test_error_pct
        network, images = kdbench.load_student(lab.store.folder(trial.id)), torch.randn(2, 1, 8, 8)
        assert torch.equal(network(images), network.student(images).logits.roll(1, 1))
    finally:
        forget()


def test_a_student_whose_method_predicts_is_no_teacher_by_its_own_weights_alone(lab: Lab, another: Lab) -> None:
    suite = lab.suite(keep_students=True, methods=["simkd"])
    lab.run(suite)
    file = lab.file(suite.trials[0], "weights.safetensors")
    with pytest.raises(KdbenchError, match=r"is not all of its network: the method predicts with method.safetensors"):
        another.suite(pairs=[{"teacher": {"model": suite.trials[0].student, "weights": str(file)}, "student": "resnet8"}])


# What feeding it needs


def test_a_student_that_normalises_takes_its_mean_and_std_along(lab: Lab) -> None:
    suite = lab.suite(keep_students=True, methods=["simkd"])
    lab.run(suite)
    for trial in (*suite.trials, *suite.teachers):
        bare, network = (kdbench.load_student(lab.store.folder(trial.id), normalise=normalise) for normalise in (False, True))
        images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (network.mean, network.std))
        assert torch.equal(network(images), bare((images / 255 - mean) / std))
        assert network.double()(images).dtype == torch.float64, "the buffers go with it"
        with pytest.raises(KdbenchError, match=r"images are torch\.float32 and not bytes\. Give torch\.uint8"):
            network(images / 255)
    exported = torch.export.export(network.float(), (images,)).module()
    assert torch.equal(exported(images), network(images))
    assert {"normalise.mean", "normalise.std"} <= dict(exported.named_buffers()).keys()


def of_an_earlier_version(file: Path, *, lacking: tuple[str, ...]) -> None:
    """Take entries out of the head of a file of kept weights."""
    with safe_open(file, "pt") as opened:
        head = json.loads(opened.metadata()["made_for"])
    tensors = load_file(file)
    save_file(tensors, file, {"made_for": json.dumps({key: head[key] for key in head if key not in lacking})})


def test_a_student_that_an_earlier_version_kept_says_what_it_lacks(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    suite = lab.suite(keep_students=True, methods=["scratch"])
    lab.run(suite)
    (trial,) = suite.trials
    error = error_of(lab, trial)
    assert not caplog.records
    of_an_earlier_version(lab.file(trial, "weights.safetensors"), lacking=("classes", "mean", "std", "resize"))
    with pytest.raises(KdbenchError, match=r"earlier kdbench and lacks classes, mean, std and resize\. .*--rerun weights"):
        kdbench.load_student(lab.store.folder(trial.id), normalise=True)
    assert error_of(lab, trial) == error
    assert "lacks classes, mean, std and resize" in caplog.text
    network = kdbench.load_student(lab.store.folder(trial.id))
    assert (network.mean, network.classes, network.image_shape) == (None, None, (1, 8, 8))
    assert [planned.spec for planned in lab.plan(suite).without_weights] == [trial]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("failed", r"is of a trial that has failed and left no student \(the loss is nan\)\. .*--rerun failed\.$"),
        ("no JSON", r"record.json cannot be used: it is not a whole record \(1 mistake\)\. Train it again\.$"),
        ("no head", r"is of an early kdbench, which did not note for which images it is\. Train it again"),
        ("half a head", r"weights.safetensors is damaged \(.*\)\. Train it again"),
        ("no head that is one", r"weights.safetensors is damaged \(.*\)\. Train it again"),
    ],
)
def test_a_folder_without_a_student_is_refused_in_one_sentence(change: str, told: str, lab: Lab) -> None:
    suite = lab.suite(keep_students=True, methods=["scratch"], recipe={"epochs": 1, "schedule": {"milestones": []}})
    lab.run(suite)
    (trial,) = suite.trials
    record, weights = lab.file(trial), lab.file(trial, "weights.safetensors")
    tree = json.loads(record.read_text())
    match change:
        case "failed":
            record.write_text(json.dumps({**tree, "status": "failed", "reason": "the loss is nan", "weights_sha256": None}))
        case "no JSON":
            record.write_text("{")
        case "no head":
            save_file(load_file(weights), weights)
        case "half a head":
            of_an_earlier_version(weights, lacking=("image_shape",))
        case "no head that is one":
            save_file(load_file(weights), weights, {"made_for": "photographs"})
    with pytest.raises(KdbenchError, match=told) as refused:
        kdbench.load_student(lab.store.folder(trial.id))
    assert "\n" not in str(refused.value)


# Students that a suite keeps once they are done


def test_weights_that_are_asked_for_later_or_lost_are_trained_again_to_the_same_bits(lab: Lab) -> None:
    methods = ["scratch", "kd", "simkd"]
    lab.run(lab.suite(methods=methods))
    before, suite = lab.outcomes(), lab.suite(methods=methods, keep_students=True)
    scratch, kd, simkd = suite.trials

    def lacking() -> list[TrialSpec]:
        return [planned.spec for planned in lab.plan(suite).without_weights]

    assert not lab.plan(lab.suite(methods=methods)).without_weights, "they were not asked for"
    suite = lab.suite(methods=methods, keep_students=True)
    assert lacking() == [scratch, kd, simkd]
    assert lab.run(suite)
    assert lacking() == [scratch, kd, simkd]
    assert lab.run(suite, rerun=Rerun.WEIGHTS)
    assert (lacking(), lab.outcomes()) == ([], before)
    whole = {trial.method: lab.file(trial, "weights.safetensors").read_bytes() for trial in suite.trials}
    lab.file(kd, "weights.safetensors").write_bytes(whole["kd"][:-1] + bytes([whole["kd"][-1] ^ 1]))
    lab.file(simkd, "method.safetensors").unlink()
    untouched = lab.file(scratch).stat().st_mtime_ns
    assert lacking() == [kd, simkd]
    assert lab.run(suite, rerun=Rerun.WEIGHTS)
    assert (lacking(), lab.outcomes()) == ([], before)
    assert {trial.method: lab.file(trial, "weights.safetensors").read_bytes() for trial in suite.trials} == whole
    assert lab.file(scratch).stat().st_mtime_ns == untouched


def test_who_trains_weights_again_elsewhere_is_warned_of_other_bits(lab: Lab) -> None:
    said = Said()
    lab.run(lab.suite(methods=["scratch"]))
    suite = lab.suite(methods=["scratch"], keep_students=True)
    record = lab.record(suite.trials[0])
    elsewhere = record.model_copy(update={"environment": record.environment.model_copy(update={"torch": "1.0"})})
    lab.file(suite.trials[0]).write_text(elsewhere.model_dump_json())
    execute(suite, lab.store, options=Options(device="cpu", rerun=Rerun.WEIGHTS), progress=said)
    assert any(line.startswith("warning: of the students that are trained again for their weights, 1 were") for line in said.lines)


def photographs(root: Path) -> Path:
    """Dark photographs of many sizes, whose classes differ in where a stripe is; names of classes that no number stands for."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 8)):
        for place, name in enumerate(("ash", "birch", "cedar")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                height, width = random.integers(20, 40, 2)
                pixels = random.integers(0, 40, (height, width, 3))
                pixels[:, width * (2 * place + 1) // 6 - 2 :][:, :5] += 20
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i:02}.png")
    return root


def read_by_hand(file: Path, network: nn.Module) -> Tensor:
    """Bytes (C, H, W) of a file, made as the attributes of a loaded student say."""
    image = Image.open(file)
    _, height, width = network.image_shape
    match network.resize:
        case {"height_px": h, "width_px": w}:
            image = image.resize((w, h), Image.Resampling.BILINEAR)
        case {"shorter_side_px": side}:
            scale = side / min(image.size)
            image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
            left, top = round((image.width - width) / 2), round((image.height - height) / 2)
            image = image.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("source", ["imagefolder", "imagestream"])
def test_a_student_fed_from_files_errs_as_its_record_says(source: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path, photographs(tmp_path / "photographs"))
    streamed = {"mean": [0.08, 0.08, 0.08], "std": [0.05, 0.05, 0.05], "workers": 0, "resize": 18}
    suite = lab.suite(
        keep_students=True,
        methods=["scratch"],
        dataset={"name": source, "size": 16, "channels": 3, **(streamed if source == "imagestream" else {})},
        recipe={"epochs": 6, "batch_size": 9, "augmentation": {"pad": 0}},
    )
    assert lab.run(suite)
    (trial,) = suite.trials
    record, folder = lab.record(trial), lab.store.folder(trial.id)
    bare, network = kdbench.load_student(folder), kdbench.load_student(folder, normalise=True)
    files = sorted((lab.images / "test").glob("*/*.png"))
    images = torch.stack([read_by_hand(file, network) for file in files])
    with torch.no_grad():
        logits = network(images)
        by_hand = bare((images / 255 - torch.tensor(bare.mean).view(3, 1, 1)) / torch.tensor(bare.std).view(3, 1, 1))
        unnormalised = bare(images / 255).argmax(1)
    assert torch.equal(logits, by_hand)
    wrong = [network.classes[label] != file.parent.name for label, file in zip(logits.argmax(1).tolist(), files, strict=True)]
    assert 100 * sum(wrong) / len(wrong) == pytest.approx(record.test_error_pct)
    with torch.no_grad():
        seen = torch.cat([draw()[0] for draw in lab.builder(suite).test_data.plain_batches()])
        assert torch.allclose(logits, bare(seen), atol=1e-4), "the pixels are those of the tests"
    assert (unnormalised != logits.argmax(1)).any(), "these images need it"
    for loaded in (bare, network):
        assert (loaded.classes, loaded.image_shape) == (("ash", "birch", "cedar"), (3, 16, 16))
        assert record.data is not None
        assert (loaded.mean, loaded.std, loaded.resize) == (record.data.mean, record.data.std, record.data.resize)
