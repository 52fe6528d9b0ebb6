"""What keeps a suite from running is told before images are read, by `kdbench plan --check` and by the start of a run alike."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TINY, Lab
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from kdbench.cli import app
from kdbench.data.imagefolder import ImageFolder
from kdbench.errors import KdbenchError
from kdbench.models import MODELS, build_model
from kdbench.runner.plan import Rerun
from kdbench.runner.preflight import miscomputed, preflight

PAIR: dict[str, Any] = {"teacher": "wrn_10_1", "student": "resnet8"}


def told(lab: Lab, **changes: Any) -> list[str]:
    """The problems that `plan --check` and `run` give, which must be the same and must leave nothing behind."""
    suite = lab.suite(**changes)
    checked = CliRunner().invoke(app, ["plan", str(lab.root / "tiny.yaml"), "--check", "--results", str(lab.store.root)])
    with pytest.raises(KdbenchError) as refused:
        lab.run(suite)
    assert str(checked.exception) == str(refused.value)
    assert not lab.store.root.exists()
    first, *rest = str(refused.value).split("\n* ")
    assert not rest or first == f"tiny cannot run, for {len(rest)} reasons:"
    return rest or [first]


def weights(lab: Lab, name: str, **changes: Any) -> str:
    save_file({**build_model("resnet8", num_classes=3, in_channels=1).state_dict(), **changes}, lab.root / name)
    return name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": {"root": "/nowhere"}}, "root: there is no folder /nowhere"),
        ({"pairs": [{**PAIR, "student": {"model": "resnet8", "hooks": ["stem"]}}]}, "resnet8, hooks: there is no block 'stem'"),
        (
            {"pairs": [{**PAIR, "student": "torchvision/resnet18"}], "recipe": {"precision": "bf16"}},
            "takes images of 3 channels, and",
        ),
        ({"pairs": [{**PAIR, "teacher": "vgg8"}], "methods": ["fsp"]}, "vgg8 -> resnet8: fsp: "),
        ({"recipe": {"precision": "tf32"}}, "precision tf32 has no effect on the CPU"),
        (
            {"recipe": {"precision": "bf16"}, "pairs": [{**PAIR, "student": "mobilenetv2_half"}]},
            "mobilenetv2_half cannot be trained on this CPU with images of 8x8: torch computes wrong gradients for its convolution",
        ),
    ],
    ids=["root", "hooks", "channels", "pair", "precision", "gradients"],
)
def test_each_problem_is_found_before_images_are_read(changes, message, lab, monkeypatch):
    monkeypatch.setattr(ImageFolder, "load", lambda self: pytest.fail("images were read"))
    (problem,) = told(lab, **changes)
    assert message in problem


def test_wrong_gradients_are_those_of_strides_beyond_maps_in_bf16_on_a_cpu_alone(lab):
    def refused(student: str, precision: str, device: str = "cpu", **dataset: int) -> bool:
        suite = lab.suite(recipe={"precision": precision}, pairs=[{**PAIR, "student": student}], dataset=dataset)
        return bool(miscomputed(replace(lab.builder(suite), device=torch.device(device)), suite.trials))

    assert refused("mobilenetv2_half", "bf16")
    assert not refused("mobilenetv2_half", "default")
    assert not refused("mobilenetv2_half", "bf16", "cuda")
    assert not refused("mobilenetv2_half", "bf16", size=16), "its last stride is over maps of 2x2"
    assert not refused("resnet8", "bf16")


@pytest.mark.parametrize(
    ("convolution", "recipe", "cpu", "refused"),
    [
        ((7, 8, 1, 2), {}, "AVX2", True),
        ((8, 8, 1, 2), {}, "AVX2", False),
        ((7, 8, 3, 2), {}, "AVX2", False),
        ((7, 8, 1, 2), {"precision": "bf16"}, "AVX2", False),
        ((7, 8, 1, 2), {}, "AVX512", False),
        ((6, 6, 3, 1, 2, 2, 6), {"precision": "bf16"}, "AVX512", True),
        ((6, 6, 3, 1, 2, 2, 6), {}, "AVX512", False),
        ((6, 6, 3, 1, 2, 2), {"precision": "bf16"}, "AVX512", False),
        ((6, 6, 3, 1, 2, 2), {"precision": "bf16", "stack": True}, "AVX512", True),
    ],
)
def test_which_convolutions_get_wrong_gradients(convolution, recipe, cpu, refused, lab, monkeypatch):
    forget = MODELS.snapshot()

    @MODELS.register("unlucky")
    def unlucky(*, num_classes: int, in_channels: int) -> nn.Module:
        convs = nn.Conv2d(in_channels, convolution[0], 3), nn.Conv2d(*convolution)
        return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(convolution[1], num_classes))

    try:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: cpu)
        suite = lab.suite(recipe=recipe, pairs=[{**PAIR, "student": {"model": "unlucky", "hooks": ["1"]}}])
        assert bool(miscomputed(lab.builder(suite), suite.trials)) is refused
    finally:
        forget()


def test_all_problems_are_told_at_once(lab):
    bad = weights(lab, "bad.safetensors", **{"classifier.bias": torch.full((3,), torch.nan)})
    problems = told(
        lab,
        methods=["scratch", "kd", "fsp"],
        recipe={**TINY["recipe"], "precision": "tf32"},
        pairs=[
            {"teacher": {"model": "resnet8", "weights": bad}, "student": "resnet8"},
            {"teacher": "vgg8", "student": "resnet8"},
            {"teacher": "resnet14", "student": {"model": "resnet8", "hooks": ["stem"]}},
            {"teacher": "resnet14", "student": "torchvision/resnet18"},
        ],
    )
    for message in (
        "tf32",
        "takes images of 3 channels",
        "resnet8, hooks: there is no block 'stem'",
        "NaN or infinity",
        "vgg8 -> resnet8: fsp",
    ):
        assert sum(message in problem for problem in problems) == 1
    assert len(problems) == 5


def test_a_sound_suite_passes_and_a_source_that_cannot_tell_its_images_is_loaded(lab, monkeypatch):
    monkeypatch.setattr(ImageFolder, "contents", lambda self: None)
    monkeypatch.setattr(ImageFolder, "check", lambda self: None)
    suite = lab.suite(methods=["scratch", "kd", "crd"])
    plan = lab.plan(suite)
    preflight(plan, plan.todo(Rerun.MISSING), cache=lab.store.cache, device=torch.device("cpu"), download=False, say=print)
    assert not (lab.store.root / "trials").exists()
    checked = CliRunner().invoke(app, ["plan", str(lab.write()), "--check", "--results", str(lab.root / "none")])
    assert checked.exit_code == 0
    assert checked.output.splitlines()[-1].startswith("checked: ")


def test_who_compiles_is_told_of_the_wait(lab):
    plan = lab.plan(lab.suite(recipe={"compile": True}))
    notes = preflight(plan, plan.todo(Rerun.MISSING), cache=lab.store.cache, device=torch.device("cpu"), download=False, say=print)[
        1
    ]
    assert [note for note in notes if "can take minutes" in note]


def test_where_files_are_looked_for_that_a_run_would_download(tmp_path, monkeypatch):
    file = tmp_path / "far.yaml"
    file.write_text(
        "{title: Far, dataset: {name: fashion_mnist, root: images}, recipe: digits-quick, seeds: [0], methods: [scratch, kd], "
        "pairs: [{teacher: resnet14, student: resnet8}]}"
    )
    plan = ["plan", str(file), "--results", str(tmp_path / "results")]
    checked = CliRunner().invoke(app, [*plan, "--check"])
    note = (
        f"files of FashionMNIST are not in {tmp_path}/images/FashionMNIST/raw (train-images-idx3-ubyte and 3 more): a run "
        "downloads them, which needs a network"
    )
    assert checked.exit_code == 0
    assert f"\nnote: {note}.\nchecked: " in checked.output
    assert note in json.loads(CliRunner().invoke(app, [*plan, "--check", "--json"]).output)["notes"]
    assert [*tmp_path.iterdir()] == [file]


def test_what_is_tried_out_for_long_is_told_with_its_network(lab, monkeypatch):
    monkeypatch.setattr("kdbench.runner.slow.SLOW_S", 0.2)
    monkeypatch.setattr(
        "kdbench.runner.preflight.why_not_stacked", lambda builder, trial: time.sleep(0.6 * (trial.student == "wrn_10_1"))
    )
    plan = lab.plan(lab.suite(recipe={"stack": True}, pairs=[PAIR, {**PAIR, "student": "wrn_10_1"}]))
    said: list[str] = []
    cpu, todo = torch.device("cpu"), plan.todo(Rerun.MISSING)
    preflight(plan, todo, cache=lab.store.cache, device=cpu, download=False, say=said.append)
    assert said == ["trying out whether wrn_10_1 can be stacked; this can take a minute."]


def test_published_weights_are_fetched_by_a_run_alone(lab, monkeypatch):
    fetched = []
    monkeypatch.setattr("kdbench.training.builder.fetch", lambda weights, **_: fetched.append(weights.name) or {})
    suite = lab.suite(dataset={"channels": 3}, pairs=[{**PAIR, "student": {"model": "torchvision/resnet18", "weights": "DEFAULT"}}])
    plan = lab.plan(suite)
    cpu, todo = torch.device("cpu"), plan.todo(Rerun.MISSING)
    preflight(plan, todo, cache=lab.store.cache, device=cpu, download=False, say=print)
    assert fetched == []
    with pytest.raises(KdbenchError, match=r"weights ResNet18_Weights\.IMAGENET1K_V1"):
        preflight(plan, todo, cache=lab.store.cache, device=cpu, download=True, say=print)
    assert len(fetched) == 1


class OwnNetwork(nn.Module):
    """Its `forward` applies the activation itself, where no hook sees it."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4)
        self.last, self.relu, self.fc = nn.Conv2d(4, 4, 6), nn.ReLU(), nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.relu(self.last(torch.relu(self.norm(self.first(images))))).mean((2, 3)))
        return logits


@pytest.fixture
def own_network():
    restore = MODELS.snapshot()
    MODELS.register("own_network")(OwnNetwork)
    yield {"model": "own_network", "hooks": ["norm", "relu"]}
    restore()


def test_what_methods_make_of_networks_and_pairs_is_told_before_anything_trains(lab, own_network, monkeypatch):
    pairs = [{"teacher": own_network, "student": own_network}]
    suite = lab.suite(methods=["scratch", "kd", "at", "dkd"], pairs=pairs)
    label = suite.trials[0].label
    whole = f"{label}, norm: methods read the maps before relu, which `forward` applies itself. In a network of your own make that"
    flat = f"{label} -> {label}: at: 1 of 2 pairs of groups teach nothing, since they meet in maps of 1x1"
    late = "dkd: warm_up_epochs is 20, and the training ends after 2 epochs; give fewer, or train longer"

    given = ["plan", str(lab.root / "tiny.yaml"), "--check", "--results", str(lab.store.root)]
    text, as_json = (CliRunner().invoke(app, [*given, *more]).output for more in ([], ["--json"]))
    told = [line.strip() for line in text.splitlines() if "note: " in line]
    assert told == [f"note: {late}.", *(f"note: {note}." for note in json.loads(as_json)["notes"][1:])]
    assert [told[1].startswith(f"note: {whole}"), told[2:]] == [True, [f"note: {flat}."]]

    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, line: said.append(line))
    lab.run(suite)
    assert said[:3] == [*told[1:], f"note: {label} -> {label}: {late}."]
    note = f"at: the maps of {label} are read before relu, which its `forward` applies itself (norm)"
    assert {trial.method: note in lab.record(trial).notes for trial in suite.trials} == {
        "scratch": False,
        "kd": False,
        "at": True,
        "dkd": False,
    }


def test_a_network_whose_maps_no_method_reads_is_not_spoken_of(lab, own_network):
    file = lab.write(pairs=[{"teacher": own_network, "student": own_network}])
    assert "note: " not in CliRunner().invoke(app, ["plan", str(file), "--check"]).output
