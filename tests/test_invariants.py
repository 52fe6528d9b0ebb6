"""The invariants of the design, each a promise that the engine keeps bit for bit.

Outcomes are records and curves without what was measured; a record holds the hash of the trained weights.
"""

import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MIXED, TEST_IMAGES, TRAIN_IMAGES, Lab, Outcomes, write_images
from torch import Tensor, nn

from kdbench import SGD, Batch, KdbenchError, Losses, Method, MethodParams, Outputs, Pair, PairError, Stage
from kdbench import code as code_module
from kdbench.cli import main
from kdbench.method import METHODS, TeacherParts
from kdbench.models import MODELS, Network
from kdbench.models.resnet import resnet8
from kdbench.plan import Rerun, Status
from kdbench.plugins import load_path
from kdbench.report import error_table
from kdbench.results import load_curves, load_results
from kdbench.streams import derive, generator, seeded
from kdbench.training import stages
from kdbench.training.cohort import FrozenTeacher
from kdbench.training.lane import Lane
from kdbench.trial import TrialSpec
from kdbench.weights import read_checkpoint, read_weights, state_hash, write_weights

STEPS = 3  # of an epoch: 72 images in batches of 32
SHORT = {
    name: {key: 1 for key in METHODS.get(name).Params.model_fields if key.endswith("epochs")} | ({"negatives": 64} if name == "crd" else {})
    for name in METHODS.names()
}
"""For every method the parameters that make its stages last one epoch."""


def trials(suite: Any, method: str) -> list[TrialSpec]:
    return [trial for trial in suite.trials if trial.method == method]


def only(suite: Any, method: str) -> TrialSpec:
    (trial,) = trials(suite, method)
    return trial


def statuses(lab: Lab, suite: Any) -> dict[str, str]:
    """Of the students, by method."""
    return {planned.spec.method: planned.status.value for planned in lab.plan(suite).students}


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file of the trials."""
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.glob("trials/**/*")) if file.is_file()}


def give_teacher(lab: Lab, source: Lab, suite: Any) -> None:
    """Copy the trained teachers of `suite` and the decoded images, but nothing that methods learnt from the teachers."""
    shutil.copytree(source.store.cache, lab.store.cache)
    for teacher in suite.teachers:
        shutil.copytree(source.store.folder(teacher.id), lab.store.folder(teacher.id), ignore=shutil.ignore_patterns("stages"))


# What lanes are given and how they stand, seen from outside


def digest(*tensors: Tensor) -> str:
    return state_hash({str(i): tensor for i, tensor in enumerate(tensors)})


def norms(module: nn.Module | None) -> list[int]:
    """How many batches each batch norm has seen."""
    found = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)] if module else []
    return [int(norm.num_batches_tracked or 0) for norm in found]


@dataclass
class Seen:
    """One step of one lane, as it was before it except where stated.

    `batch` is a hash of images, labels and indices, `student` of the student's state; `optimised` are the names of the parameters
    that the optimiser has, `trainable` of those that this segment trains; `norms` how often each batch norm ran in the step.
    """

    lane: str
    seed: int | str
    segment: str
    epoch: int
    images: Tensor
    batch: str
    student: str
    staged: str
    student_trains: bool
    optimised: set[str]
    trainable: set[str]
    settings: dict[str, Any]
    student_norms: set[int] = field(default_factory=set)
    method_norms: set[int] = field(default_factory=set)


def watch(patch: pytest.MonkeyPatch) -> list[Seen]:
    """The list to which every step of every lane will be added."""
    seen: list[Seen] = []
    original = Lane.step

    def step(lane: Any, images: Tensor, labels: Tensor, indices: Tensor, teacher: Outputs | None) -> None:
        segment = lane.segments[lane._index]
        whole = nn.ModuleDict({"method": lane.method, **({"student": lane.student} if lane.student else {})})
        names = {id(parameter): name for name, parameter in whole.named_parameters()}
        staged = {id(p): p for _, stage in lane.method.stages() for module in stage.modules for p in module.parameters()}
        if segment.name == "main":
            trainable = set(names) - set(staged)
        else:
            part, name = segment.name.split(".")
            stage = next(s for p, s in lane.method.stages() if (p, s.name) == (part, name))
            trained = [*stage.modules, *([lane.student] if stage.trains_student else [])]
            trainable = {id(p) for module in trained for p in module.parameters()}
        group = lane._optimiser.param_groups[0]
        entry = Seen(
            lane=lane.name,
            seed=lane.seed,
            segment=segment.name,
            epoch=lane._epoch,
            images=images.clone(),
            batch=digest(images, labels, indices),
            student=state_hash(lane.student.state_dict()) if lane.student else "",
            staged=digest(*staged.values()),
            student_trains=bool(lane.student) and all(module.training for module in lane.student.modules()),
            optimised={names[id(p)] for group in lane._optimiser.param_groups for p in group["params"]},
            trainable={names[key] for key in trainable},
            settings={key: group[key] for key in ("lr", "momentum", "weight_decay", "nesterov")},
        )
        before = norms(lane.student), norms(lane.method)
        original(lane, images, labels, indices, teacher)
        after = norms(lane.student), norms(lane.method)
        entry.student_norms, entry.method_norms = ({b - a for a, b in zip(*counts, strict=True)} for counts in zip(before, after, strict=True))
        seen.append(entry)

    patch.setattr(Lane, "step", step)
    return seen


# Methods and a network that only tests have


@pytest.fixture
def register() -> Iterator[Callable[[str, type[Method]], None]]:
    """Adds a method until the test ends."""
    yield lambda name, method: METHODS.register(name)(method) and None
    METHODS.discard(__file__)


class Dropout(Network):
    """resnet8 with dropout before its classifier."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = resnet8(num_classes=num_classes, in_channels=in_channels)
        self.classifier = self.body.classifier
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Outputs:
        out = self.body(images)
        return Outputs(self.classifier(self.dropout(out.pooled)), out.stem, out.features, out.preactivations, out.pooled)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.body.group_norms()


@pytest.fixture
def dropout_network() -> Iterator[str]:
    MODELS.register("resnet8_dropout")(Dropout)
    yield "resnet8_dropout"
    MODELS.discard(__file__)


class Careless(Method):
    """Draws from torch's global stream, in its stage and after it, and in building its adapter."""

    reads = ("pooled",)

    def build(self, pair: Pair) -> None:
        self.adapter = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])
        self.register_buffer("noise", torch.randn(pair.teacher.pooled))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("warm", 1, self.losses, (), trains_student=True),)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        gap = self.adapter(student.pooled) - teacher.pooled
        return {"gap": (gap * torch.rand_like(gap) * self.noise).square().mean()}


# 1. Paired by design


@pytest.fixture(scope="module")
def everything(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Any, list[Seen]]]:
    """Every method beside all others, the suite, and every step that was seen."""
    lab = Lab(tmp_path_factory.mktemp("everything"), images)
    suite = lab.suite(methods=[{name: params} for name, params in SHORT.items()])
    with pytest.MonkeyPatch.context() as patch:
        seen = watch(patch)
        lab.run(suite)
    yield lab, suite, seen


def test_all_methods_ran(everything: tuple[Lab, Any, list[Seen]]) -> None:
    lab, suite, _ = everything
    failed = {t.spec.method: t.record.reason for t in lab.plan(suite).students if t.record and t.record.status == "failed"}
    assert not failed
    assert set(statuses(lab, suite).values()) == {"done"}


def test_every_method_starts_from_the_same_student(everything: tuple[Lab, Any, list[Seen]]) -> None:
    _, _, seen = everything
    first = {step.lane: step.student for step in reversed(seen) if step.student and step.seed == 0 and step.lane in SHORT}
    teacher_runs_first = next(step for step in seen if step.lane == "scratch").student
    students = {lane: student for lane, student in first.items() if lane != "scratch"}
    assert len(students) == len(SHORT) - 1
    assert len(set(students.values())) == 1
    assert teacher_runs_first not in students.values()


def test_every_method_sees_the_same_batches(images: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch)
    pairs = [{"teacher": "resnet14", "student": "resnet8"}, {"teacher": "resnet8", "student": "wrn_10_1"}]
    suite = lab.suite(methods=["scratch", "kd", {"ft": SHORT["ft"]}, {"fitnets": SHORT["fitnets"]}], pairs=pairs, seeds=[1, 2])
    for lanes in (1, 0):
        lab.run(suite, lanes=lanes, rerun=Rerun.ALL)
        for seed in (1, 2):
            steps = [step for step in seen if step.seed == seed and step.segment == "main"]
            by_place: dict[tuple[int, int], set[str]] = {}
            places = itertools.cycle(range(STEPS))
            for _, lane_steps in itertools.groupby(sorted(steps, key=lambda s: (s.lane, s.epoch)), key=lambda s: (s.lane, s.epoch)):
                pass
            del by_place, places
        seen.clear()


