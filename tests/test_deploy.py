"""A student as a file for other programs answers as the student does, says what feeding it needs, and is tested again."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Lab, write_images
from torch import Tensor, nn

import kdbench
from kdbench import KdbenchError, cli
from kdbench.models import MODELS
from kdbench.results.trial_folder import TrialFolder, read_folder, trial_folders
from kdbench.runner.deploy import deploy
from kdbench.runner.deploy_formats import FORMATS
from kdbench.suite.resolve import load_suite


@pytest.fixture(scope="module", autouse=True)
def foreign() -> Iterator[None]:
    """Networks of one's own: a plain one, which has no `pooled_maps`, and one that cannot be exported."""
    forget = MODELS.snapshot()

    @MODELS.register("deployed_plain")
    def plain(*, num_classes: int, in_channels: int) -> nn.Module:
        body = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, num_classes))

    class Branches(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            made = super().forward(input)
            return made if self.training or made.is_meta or made.sum().item() < 10 else made + 1

    @MODELS.register("deployed_odd")
    def odd(*, num_classes: int, in_channels: int) -> nn.Module:
        body = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU())
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), Branches(8, num_classes))

    yield
    forget()


def trained(lab: Lab, student: str = "resnet8", method: str = "scratch", **changes: Any) -> TrialFolder:
    """The folder of a student that was kept."""
    given = {"model": student, **({"hooks": ["0"]} if student.startswith("deployed") else {})}
    suite = lab.suite(keep_students=True, methods=[method], pairs=[{"teacher": "wrn_10_1", "student": given}], **changes)
    assert lab.run(suite)
    return read_folder(lab.store.folder(suite.trials[0].id))


@pytest.fixture(scope="module")
def kept(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab with students of each kind that were kept."""
    lab = Lab(tmp_path_factory.mktemp("kept"), images)
    students: list[Any] = ["resnet8", "timm/test_resnet", {"model": "deployed_plain", "hooks": ["0"]}]
    pairs = [{"teacher": "wrn_10_1", "student": student} for student in students]
    for pair in pairs[1:]:
        pair["without"] = ["norm", "simkd"]
    recipe = {"epochs": 1, "schedule": {"milestones": []}}
    assert lab.run(lab.suite(keep_students=True, methods=["kd", "norm", "simkd"], pairs=pairs, recipe=recipe))
    return lab


def read_by_others(kind: str, file: Path, folder: TrialFolder) -> Callable[[Tensor], Tensor]:
    """The file as a program without kdbench reads it, but for the one that holds no computation."""
    if kind == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(str(file))
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    if kind == "pt2":
        return torch.export.load(file).module()
    network = kdbench.load_student(folder.path, normalise=True)
    network.load_state_dict(pytest.importorskip("safetensors.torch").load_file(file))
    return network


@pytest.mark.parametrize(
    ("kind", "student", "method"),
    [
        ("safetensors", "resnet8", "simkd"),
        ("onnx", "resnet8", "simkd"),
        ("pt2", "resnet8", "norm"),
        ("pt2", "timm/test_resnet", "kd"),
        ("pt2", "deployed_plain", "kd"),
    ],
)
def test_a_file_answers_as_the_student_and_is_tested_again(kind: str, student: str, method: str, kept: Lab, tmp_path: Path) -> None:
    (folder,) = [
        folder
        for folder in trial_folders(kept.store.root).values()
        if folder.record and folder.record.student.startswith(student) and folder.record.method == method
    ]
    made = deploy(folder, kind=kind, directory=tmp_path / "app", suite=kept.suite())
    assert made.error_pct == kept.store.record(folder.trial).test_error_pct and made.test_images == 30  # type: ignore[union-attr]
    network, read = kdbench.load_student(folder.path, normalise=True), read_by_others(kind, made.file, folder)
    with torch.no_grad():
        for batch in (1, 2, 7):
            images = torch.randint(256, (batch, 1, 8, 8), dtype=torch.uint8)
            torch.testing.assert_close(read(images), network(images), rtol=1e-4, atol=1e-4)
    told = json.loads(made.metadata.read_bytes())
    assert {file.name for file in (tmp_path / "app").iterdir()} == {f"model.{kind}", f"model.{kind}.json"}
    assert told["classes"] == ["at0", "at1", "at2"]
    assert told["input"] == {
        **{"name": "images", "dtype": "uint8", "shape": ["batch", 1, 8, 8], "values": "0 to 255; grey"},
        "normalised_inside": True,
    }
    assert (told["mean"], told["std"]) == (list(network.mean or ()), list(network.std or ()))
    assert (told["image_size"], told["resize"]) == ({"height_px": 8, "width_px": 8}, {"height_px": 8, "width_px": 8})
    assert told["test_error_pct"]["of_this_file"] == told["test_error_pct"]["of_the_record"] == made.error_pct


def test_the_command(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained(lab)
    monkeypatch.chdir(lab.root)
    command = ["deploy", folder.trial[:6], "--format", "safetensors", "--results", str(lab.store.root)]
    cli.app([*command, "--suite", "tiny.yaml"], standalone_mode=False)
    error = lab.store.record(folder.trial).test_error_pct  # type: ignore[union-attr]
    file = Path("deployed") / folder.trial / "model.safetensors"
    assert capsys.readouterr().out == (
        f"{file}\n{file}.json\n"
        "It holds tensors alone. The network that `kdbench.load_student(..., normalise=True)` gives loads them.\n"
        f"Test error of the file: {error:.2f} % of 30 images, as in the record.\n"
    )
    cli.app(command, standalone_mode=False)
    told = capsys.readouterr().out
    assert "was not measured again: the record does not say where the images of 'stripes' lie. Give the suite" in told
    assert told.endswith(f"The record says {error:.2f} %.\n")
    assert json.loads(Path(f"{file}.json").read_bytes())["test_error_pct"]["of_this_file"] is None


def test_a_network_of_ones_own_is_known_by_its_suite(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (lab.root / "mine.py").write_text(
        "from kdbench import build_model, register_model\n\n\n@register_model('mine_for_test')\ndef mine(**given):\n"
        "    return build_model('resnet8', **given)\n"
    )
    forget = MODELS.snapshot()
    changes = {"methods": ["scratch"], "pairs": [{"teacher": "resnet8", "student": "mine_for_test"}]}
    suite = lab.suite(plugins=["mine.py"], keep_students=True, **changes)
    lab.run(suite)
    trial = suite.trials[0].id
    command = ["deploy", trial, "--format", "safetensors", "--results", str(lab.store.root), "--output", str(lab.root)]
    forget()
    sys.modules.pop(next(name for name in sys.modules if name.startswith("kdbench_plugin_mine_")))
    with pytest.raises(KdbenchError, match=r"'mine_for_test' is not known here\. Give the suite that .* --suite, or .* --plugin\."):
        cli.app(command, standalone_mode=False)
    cli.app([*command, "--suite", str(lab.root / "tiny.yaml")], standalone_mode=False)
    forget()
    assert "Test error of the file: " in capsys.readouterr().out


def test_a_file_is_overwritten_by_its_own_trial_alone(kept: Lab, tmp_path: Path) -> None:
    first, second = [folder for folder in trial_folders(kept.store.root).values() if folder.record and folder.record.teacher][:2]
    made = deploy(first, kind="safetensors", directory=tmp_path, suite=kept.suite())
    before = made.file.read_bytes()
    with pytest.raises(KdbenchError, match=rf"^{made.file} is of another trial, {first.trial}\. Choose another --output\.$"):
        deploy(second, kind="safetensors", directory=tmp_path)
    assert made.file.read_bytes() == before
    deploy(first, kind="safetensors", directory=tmp_path, suite=kept.suite())
    made.metadata.unlink()
    with pytest.raises(KdbenchError, match=rf"^{made.file} exists already, and kdbench did not write it\. Move it away, or choose"):
        deploy(first, kind="safetensors", directory=tmp_path)


def test_an_error_that_differs_is_told_beside_the_records(lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = trained(lab)
    record = lab.store.record(folder.trial)
    assert record and record.test_error_pct is not None
    other = record.model_copy(update={"test_error_pct": record.test_error_pct / 2, "precision": "bf16"})
    (folder.path / "record.json").write_text(other.model_dump_json())
    arguments = [folder.trial, "--format", "safetensors", "--suite", str(lab.suite().file), "--results", str(lab.store.root)]
    cli.app(["deploy", *arguments, "--output", str(tmp_path / "app")], standalone_mode=False)
    told = f"{record.test_error_pct:.2f} % of 30 images; the record says {record.test_error_pct / 2:.2f} %, with bf16 on"
    assert told in capsys.readouterr().out


def test_other_images_are_not_taken_for_the_test_images(lab: Lab, tmp_path: Path) -> None:
    folder = trained(lab)
    other = lab.suite(dataset={"root": str(write_images(tmp_path / "other", seed=1))})
    made = deploy(folder, kind="safetensors", directory=tmp_path / "app", suite=other)
    assert (made.error_pct, made.test_images) == (None, 0)
    assert made.not_measured == "the images of 'stripes' here are others than those of the record."


def test_a_data_set_that_is_found_without_a_suite(lab: Lab, tmp_path: Path) -> None:
    digits = {"name": "digits", "train_images": 100}
    tree = {**yaml.safe_load(lab.write().read_text()), "dataset": digits, "keep_students": True, "methods": ["scratch"]}
    file = lab.root / "digits.yaml"
    file.write_text(yaml.safe_dump(tree))
    suite = load_suite(file)
    assert lab.run(suite)
    folder = read_folder(lab.store.folder(suite.trials[0].id))
    made = deploy(folder, kind="safetensors", directory=tmp_path / "app")
    assert made.test_images == 360 and made.error_pct == folder.record.test_error_pct  # type: ignore[union-attr]


def test_what_cannot_be_deployed(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained(lab, "deployed_odd")
    with pytest.raises(
        KdbenchError, match=r"deployed_odd \(hooks \w+\) cannot be exported as pt2 \(.*\)\. Try another --format\.$"
    ):
        deploy(folder, kind="pt2", directory=tmp_path / "app")
    assert not list((tmp_path / "app").iterdir())
    (folder.path / "weights.safetensors").unlink()
    with pytest.raises(KdbenchError, match=r"its student was not kept\. Train it again with `kdbench run SUITE --rerun weights`"):
        deploy(folder, kind="safetensors", directory=tmp_path / "app")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(KdbenchError, match=r"--format onnx needs onnxscript\. Install them with `pip install 'kdbench\[onnx\]'`"):
        deploy(folder, kind="onnx", directory=tmp_path / "app")


def test_a_file_that_answers_otherwise_is_refused(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, whole = trained(lab), FORMATS["safetensors"]

    def spoilt(network: Any, example: Tensor, file: Path) -> None:
        network.student.classifier.bias.data.add_(1)
        whole.write(network, example, file)
        network.student.classifier.bias.data.sub_(1)

    monkeypatch.setitem(FORMATS, "safetensors", type(whole)(spoilt, whole.read))  # type: ignore[arg-type]
    with pytest.raises(KdbenchError, match=r"cannot be exported as safetensors \(Tensor-likes are not close"):
        deploy(folder, kind="safetensors", directory=tmp_path / "app")
