"""What the tests of the engine look at, and how: hashes, statuses, and every step of every lane."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab
from torch import Tensor, nn

from kdbench.method.interface import METHODS
from kdbench.models.weights import state_hash
from kdbench.spec.trial import TrialSpec
from kdbench.suite.suite import Suite
from kdbench.training.inputs import StepInputs
from kdbench.training.single import Single

STEPS = 3
"""Of an epoch: 72 images in batches of 32."""

SHORT: dict[str, dict[str, Any]] = {
    name: {key: 1 for key in METHODS.get(name).Params.model_fields if key.endswith("epochs")} for name in METHODS.names()
}
"""Every method, its stages one epoch long."""
SHORT["crd"] = {"negatives": 64}
SHORT["ffl"]["peer"] = "resnet8"
SHORT["ft"]["batch_norm"] = "both"  # something that its frozen paraphraser must not update


def short(*names: str) -> list[dict[str, Any]]:
    """Entries of a suite's `methods`."""
    return [{name: SHORT[name]} for name in names]


def only(suite: Suite, method: str) -> TrialSpec:
    (trial,) = (trial for trial in suite.trials if trial.method == method)
    return trial


def statuses(lab: Lab, suite: Suite) -> dict[str, str]:
    """Of the students, by method."""
    return {planned.spec.method: planned.status.value for planned in lab.plan(suite).students}


def snapshot(lab: Lab) -> dict[Path, bytes]:
    """Every file of every trial."""
    return {file: file.read_bytes() for file in lab.store.root.glob("trials/**/*") if file.is_file()}


def give_teacher(lab: Lab, source: Lab, suite: Suite) -> None:
    """Copy the teachers and the decoded images, but nothing that methods learnt from the teachers."""
    shutil.copytree(source.store.cache, lab.store.cache)
    for teacher in suite.teachers:
        shutil.copytree(source.store.folder(teacher.id), lab.store.folder(teacher.id), ignore=shutil.ignore_patterns("stages"))


def digest(*tensors: Tensor) -> str:
    return state_hash({str(place): tensor for place, tensor in enumerate(tensors)})


def norms(module: nn.Module | None) -> list[int]:
    """How many batches each batch norm has seen."""
    found = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)] if module else []
    return [int(norm.num_batches_tracked) for norm in found if norm.num_batches_tracked is not None]


def around_steps(patch: pytest.MonkeyPatch, look: Callable[..., Iterator[None]]) -> None:
    """Run `look(lane, images, indices)` to its `yield` before every step of every lane, and to its end after it."""
    original = Single.train_step

    def train_step(unit: Single, inputs: StepInputs) -> None:
        with contextmanager(look)(unit.lanes[0], inputs.images, inputs.indices):
            original(unit, inputs)

    patch.setattr(Single, "train_step", train_step)
