"""What keeps a suite from running is told before images are read, by `kdbench plan --check` and by the start of a run alike."""

from typing import Any

import pytest
import torch
from conftest import TINY, Lab
from safetensors.torch import save_file
from typer.testing import CliRunner

from kdbench.cli import app
from kdbench.data.imagefolder import ImageFolder
from kdbench.errors import KdbenchError
from kdbench.models import build_model
from kdbench.runner.plan import Rerun
from kdbench.runner.preflight import preflight

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
        ({"pairs": [{**PAIR, "student": "torchvision/resnet18"}]}, "takes images of 3 channels, and these have 1"),
        ({"pairs": [{**PAIR, "teacher": "vgg8"}], "methods": ["fsp"]}, "vgg8 -> resnet8: fsp: "),
        ({"recipe": {"precision": "tf32"}}, "precision tf32 has no effect on the CPU"),
    ],
    ids=["root", "hooks", "channels", "pair", "precision"],
)
def test_each_problem_is_found_before_images_are_read(changes, message, lab, monkeypatch):
    monkeypatch.setattr(ImageFolder, "load", lambda self: pytest.fail("images were read"))
    (problem,) = told(lab, **changes)
    assert message in problem


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
    preflight(plan, plan.todo(Rerun.MISSING), cache=lab.store.cache, device=torch.device("cpu"), download=False)
    assert not (lab.store.root / "trials").exists()
    checked = CliRunner().invoke(app, ["plan", str(lab.write()), "--check", "--results", str(lab.root / "none")])
    assert checked.exit_code == 0
    assert checked.output.splitlines()[-1].startswith("checked: ")


def test_published_weights_are_fetched_by_a_run_alone(lab, monkeypatch):
    fetched = []
    monkeypatch.setattr("kdbench.training.builder.fetch", lambda weights, **_: fetched.append(weights.name) or {})
    suite = lab.suite(dataset={"channels": 3}, pairs=[{**PAIR, "student": {"model": "torchvision/resnet18", "weights": "DEFAULT"}}])
    plan = lab.plan(suite)
    cpu, todo = torch.device("cpu"), plan.todo(Rerun.MISSING)
    preflight(plan, todo, cache=lab.store.cache, device=cpu, download=False)
    assert fetched == []
    with pytest.raises(KdbenchError, match=r"weights ResNet18_Weights\.IMAGENET1K_V1"):
        preflight(plan, todo, cache=lab.store.cache, device=cpu, download=True)
    assert len(fetched) == 1
