"""The nine invariants of the design: each a promise of the engine, most of them kept bit for bit.

An outcome is a record and its curves without what was measured; the record holds the hash of the trained weights.
"""

import copy
import errno
import json
import os
import random
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MIXED, TEST_IMAGES, TRAIN_IMAGES, Lab, write_images
from torch import Tensor, nn

from kdbench import Batch, KdbenchError, Losses, Method, MethodParams, Outputs, Pair, Stage
from kdbench.cli import main
from kdbench.data import DATASETS, hold_out
from kdbench.method.interface import METHODS
from kdbench.models import MODELS, Network, build_model
from kdbench.models.weights import read_checkpoint, state_hash, write_weights
from kdbench.registry import Registry
from kdbench.report.tables import error_table
from kdbench.runner import teachers
from kdbench.runner.frame import load_results
from kdbench.runner.plan import Rerun
from kdbench.spec.trial import TrialSpec
from kdbench.streams import derive, generator, seeded
from kdbench.suite import code as code_of
from kdbench.suite.plugins import load_path
from kdbench.suite.resolve import Suite
from kdbench.suite.teacher_stages import TeacherStage
from kdbench.training import cohort
from kdbench.training.cohort import FrozenTeacher
from kdbench.training.lane import Lane
from kdbench.training.segments import Position

STEPS = 3
"""Of an epoch: 72 images in batches of 32."""

SHORT: dict[str, dict[str, Any]] = {
    name: {key: 1 for key in METHODS.get(name).Params.model_fields if key.endswith("epochs")} for name in METHODS.names()
}
"""Every method, its stages one epoch long."""
SHORT["crd"] = {"negatives": 64}
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
    original = Lane.step

    def step(lane: Any, images: Tensor, labels: Tensor, indices: Tensor, teacher: Outputs | None) -> None:
        with contextmanager(look)(lane, images, indices):
            original(lane, images, labels, indices, teacher)

    patch.setattr(Lane, "step", step)


@pytest.fixture
def register() -> Iterator[Callable[[str, type[Method]], None]]:
    """Adds methods that last as long as the test, from this file: an exception is a method's own where its entry's file is met."""

    def add(name: str, method: type[Method]) -> None:
        METHODS.register(name)(method)

    restore = METHODS.snapshot()
    yield add
    restore()


class WithDropout(Network):
    """resnet8 with dropout before its classifier, which has two names, as in a wrapper around a foreign network."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = build_model("resnet8", num_classes=num_classes, in_channels=in_channels)
        self.classifier = self.body.classifier

    def forward(self, images: Tensor) -> Outputs:
        out = self.body(images)
        logits = self.classifier(nn.functional.dropout(out.pooled, 0.5, self.training))
        return Outputs(logits, out.stem, out.features, out.preactivations, out.pooled)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.body.group_norms()


class Noisy(WithDropout):
    """Draws in evaluation, too: dropout that is never off, a layer that is left out now and then, and noise."""

    def forward(self, images: Tensor) -> Outputs:
        out = self.body(images)
        pooled = nn.functional.dropout(out.pooled, 0.3) * (1.0 if random.random() < 0.7 else 0.5)
        logits = self.classifier(pooled) + float(np.random.normal(scale=0.1))
        return Outputs(logits, out.stem, out.features, out.preactivations, pooled)


@pytest.fixture
def noisy(register_network: Callable[..., None]) -> str:
    """The name of a network that draws random numbers."""
    register_network("resnet8_noisy", Noisy)
    return "resnet8_noisy"


class Careless(Method):
    """Draws from the global streams, torch's, Python's and NumPy's: when it is built, in its stages and in the main training."""

    reads = ("pooled",)
    teacher_stages = {"dream": ()}
    noise: Tensor

    def build(self, pair: Pair) -> None:
        self.dreamer = nn.Linear(pair.teacher.pooled[0], 3)
        self.adapter = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])
        self.register_buffer("noise", self.draw(torch.zeros(pair.teacher.pooled)))

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("dream", 2, self.dream, (self.dreamer,), trains_student=False),
            Stage("warm", 1, self.losses, (), trains_student=True),
        )

    def draw(self, like: Tensor) -> Tensor:
        return torch.rand_like(like) * random.random() * float(np.random.rand())

    def dream(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        dream = self.dreamer(teacher.pooled)
        return {"dream": (dream - self.draw(dream) - torch.rand((), generator=batch.generator)).square().mean()}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        gap = self.adapter(student.pooled) - teacher.pooled
        weight = self.draw(gap) * self.noise + self.dreamer(teacher.pooled).mean()
        return {"gap": (gap * weight).square().mean()}


# Every method of the registry, beside all the others


@dataclass(frozen=True)
class Step:
    """What was seen of one step of a lane.

    `student` and `staged` are hashes before it: of the student, and of what a stage before the main training trained.
    `optimised` names the parameters that the optimiser has, `trainable` those that it should have. `student_norms` and
    `method_norms` say how often batch norms ran in it.
    """

    lane: Lane
    segment: str
    batch: str
    student: str
    staged: str
    student_in_training: bool
    optimised: frozenset[str]
    trainable: frozenset[str]
    student_norms: frozenset[int]
    method_norms: frozenset[int]


def parameters_to_train(lane: Lane, segment: str) -> set[int]:
    """Their `id`: in a stage what it says it trains, in the main training the student and what no stage has trained."""
    stage = next((stage for part, stage in lane.method.stages() if f"{part}.{stage.name}" == segment), None)
    student = list(lane.student.parameters()) if lane.student else []
    if stage:
        adapters = [p for module in stage.modules for p in module.parameters()]
        return {id(p) for p in [*adapters, *(student if stage.trains_student else [])]}
    staged = {id(p) for _, stage in lane.method.stages() for module in stage.modules for p in module.parameters()}
    return {id(p) for p in [*student, *lane.method.parameters()]} - staged


def refusals(lab: Lab, suite: Suite) -> dict[str, str]:
    """The methods that cannot do the suite's pair, and why."""
    bench = lab.bench(suite)
    found = ((trial.method, bench.misfits([trial], download=True)) for trial in suite.trials)
    return {method: str(problem) for method, problems in found for problem in problems}


@dataclass(frozen=True)
class Everything:
    """One run of all methods at once."""

    lab: Lab
    suite: Suite
    refused: dict[str, str]
    steps: list[Step]

    def of(self, method: str) -> list[Step]:
        """The steps of the student's lane."""
        students = [step for step in self.steps if step.lane.student and step.lane.seed == 1]
        found = [step for step in students if "+".join(step.lane.method.parts) == method]
        assert found, f"no student was trained with {method}"
        return found


@pytest.fixture(scope="module")
def everything(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Everything:
    lab = Lab(tmp_path_factory.mktemp("everything"), images)
    refused = refusals(lab, lab.suite(methods=short(*SHORT)))
    suite = lab.suite(methods=short(*(name for name in SHORT if name not in refused)), seeds=[1])
    steps = []

    def look(lane: Any, images: Tensor, indices: Tensor) -> Iterator[None]:
        segment = lane._segment.name
        names = {id(p): name for name, p in [*(lane.student or nn.Module()).named_parameters(), *lane.method.named_parameters()]}
        optimised = {id(p) for group in lane._optimiser.param_groups for p in group["params"]}
        staged = [value for _, stage in lane.method.stages() for module in stage.modules for value in module.state_dict().values()]
        student = state_hash(lane.student.state_dict()) if lane.student else ""
        in_training = bool(lane.student) and all(module.training for module in lane.student.modules())
        before = digest(*staged)
        counts = norms(lane.student), norms(lane.method)
        yield
        ran = [
            frozenset(after - before for before, after in zip(count, norms(module), strict=True))
            for count, module in zip(counts, (lane.student, lane.method), strict=True)
        ]
        steps.append(
            Step(
                lane,
                segment,
                digest(images, indices),
                student,
                before,
                in_training,
                optimised=frozenset(names[key] for key in optimised),
                trainable=frozenset(names[key] for key in parameters_to_train(lane, segment)),
                student_norms=ran[0],
                method_norms=ran[1],
            )
        )

    with pytest.MonkeyPatch.context() as patch:
        around_steps(patch, look)
        assert lab.run(suite)
    return Everything(lab, suite, refused, steps)


@pytest.fixture(params=list(SHORT))
def method(request: pytest.FixtureRequest, everything: Everything) -> str:
    """A method's name; one that refuses the pair is skipped."""
    if reason := everything.refused.get(request.param):
        pytest.skip(reason)
    return str(request.param)


def test_every_method_trains(method: str, everything: Everything) -> None:
    record = everything.lab.record(only(everything.suite, method))
    assert record.reason is None
    assert len([step for step in everything.of(method) if step.segment == "main"]) == 2 * STEPS


def test_every_method_starts_from_the_same_student(method: str, everything: Everything) -> None:
    assert everything.of(method)[0].student == everything.of("scratch")[0].student


def test_every_method_sees_the_same_batches(method: str, everything: Everything) -> None:
    mine, scratch = ([step.batch for step in everything.of(name) if step.segment == "main"] for name in (method, "scratch"))
    assert mine == scratch
    assert len(set(mine)) == len(mine)


def test_the_optimiser_has_all_that_a_method_trains_and_nothing_else(method: str, everything: Everything) -> None:
    for step in everything.of(method):
        assert step.optimised == step.trainable, step.segment


def test_what_a_stage_has_trained_is_frozen_in_the_main_training(method: str, everything: Everything) -> None:
    assert len({step.staged for step in everything.of(method) if step.segment == "main"}) == 1


def test_the_student_is_in_training_mode_in_every_step_though_it_is_evaluated_between(method: str, everything: Everything) -> None:
    assert all(step.student_in_training for step in everything.of(method))


def test_batch_norm_runs_once_in_a_step(method: str, everything: Everything) -> None:
    for step in everything.of(method):
        assert step.student_norms == {1}, step.segment
        assert step.method_norms <= {0, 1}, step.segment


def test_a_method_alone_gives_what_it_gives_beside_all_others(method: str, everything: Everything, lab: Lab) -> None:
    suite = lab.suite(methods=short(method), seeds=[1])
    give_teacher(lab, everything.lab, suite)
    lab.run(suite)
    mine = only(suite, method).id
    assert lab.outcomes()[mine] == everything.lab.outcomes()[mine]


# 1. Paired by design


def test_students_of_one_seed_see_the_same_batches_beside_any_teacher(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: dict[Lane, list[str]] = defaultdict(list)

    def look(lane: Any, images: Tensor, indices: Tensor) -> Iterator[None]:
        if lane._segment.name == "main" and lane.seed:
            batches[lane].append(digest(images, indices))
        yield

    around_steps(monkeypatch, look)
    pairs = [{"teacher": "wrn_10_1", "student": "resnet8"}, {"teacher": "resnet8", "student": "resnet14"}]
    suite = lab.suite(methods=["scratch", *short("ft", "fitnets")], pairs=pairs, seeds=[1, 2])
    lab.run(suite, lanes=2)
    assert len(batches) == len(suite.trials)
    for_seed = {seed: {tuple(seen) for lane, seen in batches.items() if lane.seed == seed} for seed in (1, 2)}
    assert [len(seen) for seen in for_seed.values()] == [1, 1]
    assert for_seed[1].isdisjoint(for_seed[2])


# 2. Cohort invariance


@pytest.mark.parametrize("lanes", [1, 2])
def test_outcomes_do_not_depend_on_how_many_lanes_train_at_once(lanes: int, undisturbed: Lab, lab: Lab) -> None:
    suite = lab.suite(**MIXED)
    lab.run(suite, lanes=lanes)
    assert lab.outcomes() == undisturbed.outcomes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_random_draws_and_other_students_in_the_cohort_change_nobody(
    precision: str, lab: Lab, another: Lab, noisy: str, register: Callable[..., None]
) -> None:
    """In training and in evaluation, of the teacher, of students and of methods."""
    register("careless", Careless)
    pairs = [{"teacher": noisy, "student": student} for student in ("resnet8", noisy, "wrn_10_1")]
    settings = {"methods": ["careless", *short("crd", "ft")], "recipe": {"precision": precision}}
    together = lab.suite(pairs=pairs, **settings)
    lab.run(together)
    for pair in reversed(pairs):
        torch.manual_seed(1)  # as in another process
        another.run(another.suite(pairs=[pair], **settings), lanes=1)
    assert another.outcomes() == lab.outcomes()
    assert len(lab.outcomes()) == 3 * 3 + 1
    assert {record["status"] for record in map(json.loads, (lines[0] for lines in lab.outcomes().values()))} == {"done"}


class Vandal(Method):
    """Changes in place what all lanes are given: the tensor that `what` names."""

    reads = ("features",)

    class Params(MethodParams):
        what: str = ""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        if batch.epoch == 1:
            getattr(teacher if self.params.what in ("logits", "pooled") else batch, self.params.what).clamp_(max=0)
        return {"gap": (student.pooled - teacher.pooled).square().mean()}


def test_methods_that_write_into_what_all_lanes_are_given_fail_and_harm_nobody(
    finished: Lab, undisturbed: Lab, register: Callable[..., None]
) -> None:
    register("vandal", Vandal)
    vandals = [{"vandal": {"what": what}} for what in ("logits", "pooled", "images", "labels", "indices")]
    suite = finished.suite(**{**MIXED, "methods": [*vandals, "kd"]})
    finished.run(suite, rerun=Rerun.ALL)
    for trial in suite.trials:
        if trial.method == "vandal":
            assert finished.record(trial).status == "failed"
            assert re.search("in ?place", finished.record(trial).reason or "")
    kd = only(suite, "kd").id
    assert finished.outcomes()[kd] == undisturbed.outcomes()[kd]


# 3. Resume invariance; see also test_killed.py


def test_a_run_that_stops_after_every_epoch_comes_to_the_same_end(
    lab: Lab, undisturbed: Lab, one_epoch_a_run: dict[str, Any]
) -> None:
    suite = lab.suite(**MIXED)
    epochs = 2 + 2 + 2 + 3  # of the teacher, the paraphraser, the hints and the students
    assert [lab.run(suite, **one_epoch_a_run) for _ in range(epochs)] == [False] * (epochs - 1) + [True]
    assert lab.outcomes() == undisturbed.outcomes()
    assert not list(lab.store.root.glob("trials/**/*checkpoint*"))


class Killed(BaseException):
    """What no engine catches."""


def test_killed_at_any_write_and_run_again_comes_to_the_same_end(
    lab: Lab, undisturbed: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two writes nothing outside the process changes, so that these are all the moments that differ."""
    choice = random.Random(0)
    replace = os.replace
    left = 0

    def dying_replace(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0 and choice.random() < 0.5:
            os.truncate(source, source.stat().st_size // 2)  # killed while it wrote
            raise Killed
        replace(source, target)
        if left == 0:
            raise Killed

    monkeypatch.setattr("os.replace", dying_replace)
    suite = lab.suite(**MIXED)
    kills = 0
    while True:
        left = choice.randint(1, 12)
        try:
            assert lab.run(suite)
            break
        except Killed:
            kills += 1
            assert kills < 100, "the runs do not come to an end"
    assert kills > 5
    monkeypatch.undo()
    assert not list(lab.store.root.glob("**/*.broken")), "a file was there before it was whole"
    assert lab.outcomes() == undisturbed.outcomes()


# 4. Streams, not a state


def test_a_stream_is_a_function_of_its_names_and_of_nothing_else() -> None:
    assert derive(0, "batches", 1, 2) == 4967048150219227996
    names: list[tuple[int | str, ...]] = [
        *((seed, purpose, epoch) for seed in range(5) for purpose in ("batches", "student") for epoch in range(5)),
        *((0,), ("0",), (0, "a", "b"), (0, "ab"), (0, "a,b"), (0, "1"), (0, 1), (1, 0), (0, "b", "a"), (0, "a", "")),
    ]
    seeds = [derive(*parts) for parts in names]
    assert len(set(seeds)) == len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seeded_block_leaves_no_trace() -> None:
    before = torch.get_rng_state()
    with seeded(0, "student"):
        first = torch.rand(3)
    torch.rand(1)
    with seeded(0, "student"):
        assert torch.equal(torch.rand(3), first)
    torch.set_rng_state(before)
    with seeded(0, "other"):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.rand(2, generator=generator(0, "x")), torch.rand(2, generator=generator(0, "x")))


def test_more_epochs_leave_the_earlier_ones_as_they_were(lab: Lab) -> None:
    methods = ["scratch", "kd", *short("crd", "ft", "fitnets")]
    curves = []
    for epochs in (2, 4):
        suite = lab.suite(methods=methods, recipe={"epochs": epochs}, teacher={"recipe": {"epochs": 2}})
        lab.run(suite)
        curves.append({trial.method: lab.outcomes()[trial.id][1:] for trial in suite.trials})
    fewer, more = curves
    assert all(more[name][: len(rows)] == rows and len(more[name]) == len(rows) + 2 for name, rows in fewer.items())


def test_more_methods_and_seeds_in_another_order_leave_the_others_as_they_were(lab: Lab, another: Lab) -> None:
    few = lab.suite(methods=["kd", *short("crd")])
    many = another.suite(
        methods=[*short("ft", "crd"), "kd"],
        seeds=[2, 0],
        pairs=[{"teacher": "resnet8", "student": "resnet8"}, {"teacher": "wrn_10_1", "student": "resnet8"}],
    )
    lab.run(few)
    another.run(many)
    assert another.outcomes(few) == lab.outcomes()


# 5. The teacher is frozen


def test_the_teacher_is_in_evaluation_mode_and_passed_once_for_all_lanes(
    lab: Lab, undisturbed: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    original = FrozenTeacher.__call__

    def call(teacher: FrozenTeacher, images: Tensor) -> Outputs:
        assert not any(module.training for module in teacher.network.modules())
        assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
        outputs = original(teacher, images)
        assert not any(tensor.requires_grad for tensor in (outputs.logits, outputs.pooled, *outputs.features))
        passes.append(len(images))
        return outputs

    monkeypatch.setattr(FrozenTeacher, "__call__", call)
    suite = lab.suite(methods=["scratch", "kd", "at", "rkd", "at+kd"], **{key: MIXED[key] for key in ("recipe", "teacher")})
    give_teacher(lab, undisturbed, suite)
    for lanes, groups in ((0, 1), (1, 4)):
        lab.run(suite, rerun=Rerun.ALL, lanes=lanes)
        assert passes[:5] == [TEST_IMAGES] * 5  # its test error, and whether it draws
        assert passes[5:] == [32, 32, 8] * 3 * groups, "once for each batch of a group that reads it, never for `scratch` alone"
        passes.clear()


def test_the_teacher_is_bitwise_the_same_after_all_methods(everything: Everything) -> None:
    (teacher,) = everything.suite.teachers
    fresh = Lab(everything.lab.root / "fresh", everything.lab.images)
    fresh.root.mkdir()
    fresh.run(fresh.suite(methods=["kd"]))
    assert fresh.outcomes()[teacher.id] == everything.lab.outcomes()[teacher.id]
    weights = [lab.file(teacher, "weights.safetensors").read_bytes() for lab in (fresh, everything.lab)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("part", ["classifier.bias", "norm.running_mean"])
def test_a_teacher_that_was_changed_is_noticed_before_anything_is_recorded(
    part: str, lab: Lab, undisturbed: Lab, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[nn.Module] = []
    original = FrozenTeacher.__init__

    def init(teacher: FrozenTeacher, network: nn.Module, **options: Any) -> None:
        original(teacher, network, **options)
        networks.append(network)

    class Poisoner(Careless):
        def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
            networks[-1].state_dict()[part].add_(1e-6)
            return {}

    monkeypatch.setattr(FrozenTeacher, "__init__", init)
    register("poisoner", Poisoner)
    suite = lab.suite(methods=["poisoner", "kd"], **{key: MIXED[key] for key in ("recipe", "teacher")})
    give_teacher(lab, undisturbed, suite)
    with pytest.raises(AssertionError, match="teacher was changed"):
        lab.run(suite)
    assert set(statuses(lab, suite).values()) <= {"missing", "started"}


# 6. Isolation


class Faulty(Method):
    """Raises on purpose, or diverges, at the place that `at` names."""

    reads = ("logits",)
    teacher_stages = {"lesson": ("at",)}

    class Params(MethodParams):
        at: str = ""

    def break_at(self, place: str) -> None:
        if self.params.at == place:
            raise RuntimeError(f"on purpose in {place}")

    def nan_at(self, place: str) -> float:
        return float("nan") if self.params.at == place else 1

    def build(self, pair: Pair) -> None:
        self.break_at("build")
        if pair.student == pair.teacher:
            self.break_at("build for equal networks")
        self.lesson_adapter, self.hint_adapter = nn.Linear(3, 3), nn.Linear(3, 3)

    def stages(self) -> tuple[Stage, ...]:
        self.break_at("stages")
        return (
            Stage("lesson", 1, self.lesson, (self.lesson_adapter,), trains_student=False),
            Stage("hint", 1, self.hint, (self.hint_adapter,), trains_student=True),
        )

    def lesson(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.break_at("lesson")
        return {"lesson": self.lesson_adapter(teacher.logits).square().mean() * self.nan_at("nan in lesson")}

    def hint(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.break_at("hint")
        return {"hint": self.hint_adapter(student.logits).square().mean() * self.nan_at("nan in hint")}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        if batch.epoch == 1:
            self.break_at("losses")
        factor = self.nan_at("nan in main") if batch.epoch == 1 else 1
        return {"main": (student.logits - teacher.logits).square().mean() * factor}

    def predict(self, student: Outputs) -> Tensor:
        self.break_at("predict")
        if not self.training:
            self.break_at("predict in evaluation")
        return student.logits


FAULTS = {
    "build": "RuntimeError: on purpose in build",
    "stages": "RuntimeError: on purpose in stages",
    "lesson": "stage faulty.lesson failed: RuntimeError: on purpose in lesson",
    "nan in lesson": "stage faulty.lesson failed: the loss is nan in epoch 1 of stage faulty.lesson (terms: lesson)",
    "hint": "RuntimeError: on purpose in hint",
    "nan in hint": "the loss is nan in epoch 1 of stage faulty.hint (terms: hint)",
    "losses": "RuntimeError: on purpose in losses",
    "nan in main": "the loss is nan in epoch 2 of stage main",
    "predict": "RuntimeError: on purpose in predict",
    "predict in evaluation": "RuntimeError: on purpose in predict in evaluation",
}
"""Where `Faulty` fails, and the reason that its record must give."""


@pytest.mark.parametrize("lanes", [0, 1])
def test_a_lane_that_raises_or_diverges_fails_with_its_reason_and_the_others_are_as_without_it(
    lanes: int, finished: Lab, undisturbed: Lab, register: Callable[..., None]
) -> None:
    register("faulty", Faulty)
    suite = finished.suite(**{**MIXED, "methods": [*({"faulty": {"at": place}} for place in FAULTS), *MIXED["methods"]]})
    finished.run(suite, rerun=Rerun.ALL, lanes=lanes)
    outcomes = finished.outcomes()
    assert {trial: outcomes[trial] for trial in undisturbed.outcomes()} == undisturbed.outcomes()
    for trial in suite.trials:
        if trial.method == "faulty":
            place = trial.methods[0].params["at"]
            record = finished.record(trial)
            assert (record.status, record.test_error_pct) == ("failed", None), place
            assert FAULTS[place] in (record.reason or ""), place
            epochs = [(row["stage"], row["epoch"]) for row in finished.curves(trial)]
            if place in ("losses", "nan in main"):
                assert epochs == [("faulty.lesson", 1), ("faulty.hint", 1), ("main", 1)], "the epochs before it are kept"


def test_a_method_that_cannot_be_built_for_a_stage_of_the_teacher_fails_alone(lab: Lab, register: Callable[..., None]) -> None:
    register("faulty", Faulty)
    pairs = [{"teacher": "wrn_10_2", "student": "resnet8"}]  # for a stage of its own the teacher stands in for the student
    suite = lab.suite(methods=[{"faulty": {"at": "build for equal networks"}}, "kd"], pairs=pairs)
    lab.run(suite)
    assert statuses(lab, suite) == {"faulty": "failed", "kd": "done"}
    reason = lab.record(only(suite, "faulty")).reason
    assert reason == "RuntimeError: stage faulty.lesson failed: RuntimeError: on purpose in build for equal networks"


class Loud(Careless):
    """Out of balance, and without a parameter to mend it."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {name: 1e6 * term for name, term in super().losses(student, teacher, batch).items()}


def test_a_warning_of_balance_harms_nobody(lab: Lab, register: Callable[..., None]) -> None:
    register("loud", Loud)
    suite = lab.suite(methods=["loud", "kd"], recipe={"optimiser": {"lr": 1e-9}})
    lab.run(suite)
    assert statuses(lab, suite) == {"loud": "done", "kd": "done"}


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("build", MemoryError("on purpose")),
        ("stages", OSError(errno.ENOSPC, "on purpose")),
        ("lesson", torch.OutOfMemoryError("on purpose")),
        ("build for equal networks", OSError(errno.EMFILE, "on purpose")),
        ("hint", MemoryError("on purpose")),
        ("losses", torch.OutOfMemoryError("on purpose")),
        ("losses", RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")),
        ("losses", torch.AcceleratorError("CUDA error: device-side assert triggered")),
        ("predict in evaluation", OSError(errno.EROFS, "on purpose")),
    ],
)
def test_a_fault_of_the_machine_ends_the_run_and_is_no_trials_result(
    place: str, fault: Exception, lab: Lab, register: Callable[..., None]
) -> None:
    class Unlucky(Faulty):
        def break_at(self, place: str) -> None:
            if self.params.at == place:
                raise fault

    register("unlucky", Unlucky)
    pairs = [{"teacher": "wrn_10_2", "student": "resnet8"}]
    suite = lab.suite(methods=[{"unlucky": {"at": place}}, "kd"], pairs=pairs)
    with pytest.raises(KdbenchError, match="what is finished is kept"):
        lab.run(suite)
    assert set(statuses(lab, suite).values()) <= {"missing", "started"}
    assert lab.run(lab.suite(methods=["kd"], pairs=pairs))


@pytest.mark.parametrize("place", ["build", "losses", "predict in evaluation"])
def test_a_file_that_a_method_does_not_find_is_the_methods_fault(place: str, lab: Lab, register: Callable[..., None]) -> None:
    class Reads(Faulty):
        def break_at(self, place: str) -> None:
            if self.params.at == place:
                Path("/nowhere/embeddings.npy").read_bytes()

    register("reads", Reads)
    suite = lab.suite(methods=[{"reads": {"at": place}}, "kd"])
    assert lab.run(suite)
    assert statuses(lab, suite) == {"reads": "failed", "kd": "done"}
    assert "/nowhere/embeddings.npy" in (lab.record(only(suite, "reads")).reason or "")


class Forgets(Method):
    """Does not say that it reads the teacher, and would be given the student's own outputs where nobody else does."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (student.logits - teacher.logits).square().mean()}


class Strays(Method):
    """Keeps its adapter where nobody finds it."""

    reads = ("pooled",)

    def build(self, pair: Pair) -> None:
        self.adapters = [nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])]

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (self.adapters[0](student.pooled) - teacher.pooled).square().mean()}


class StraysPlainly(Method):
    """Keeps what ought to learn as a plain tensor."""

    reads = ("pooled",)

    def build(self, pair: Pair) -> None:
        self.scale = torch.ones(5, requires_grad=True)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (self.scale.mean() * student.pooled - teacher.pooled).square().mean()}


class Doubles(Method):
    """Changes what the student's gradient needs."""

    reads = ("pooled",)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        gap = (student.pooled - teacher.pooled).square().mean()
        student.pooled.mul_(2)
        return {"gap": gap + student.pooled.square().mean()}


@pytest.mark.parametrize("others", [[], ["kd"]])
@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Doubles, "it changed in place a tensor that a gradient needs, such as the student's outputs; clone it before"),
        (Forgets, "RuntimeError: it uses the teacher's logits, and its `reads` names nothing. Write reads = ('logits',)."),
        (StraysPlainly, "RuntimeError: a parameter of shape (5,) gets a gradient in main, and no optimiser has it."),
        (Strays, "RuntimeError: a parameter of shape (64, 64) gets a gradient in main, and no optimiser has it. Make its module"),
    ],
)
def test_a_method_that_would_train_otherwise_than_it_seems_fails(
    method: type[Method], reason: str, others: list[str], lab: Lab, register: Callable[..., None]
) -> None:
    register("odd", method)
    suite = lab.suite(methods=["odd", *others], pairs=[{"teacher": "resnet14", "student": "resnet8"}])
    lab.run(suite)
    assert statuses(lab, suite) == {"odd": "failed"} | dict.fromkeys(others, "done")
    assert (lab.record(only(suite, "odd")).reason or "").startswith(reason)


class Fixed(Method):
    """Compares through a projection that is not to be learnt, beside one that is."""

    reads = ("pooled",)

    def build(self, pair: Pair) -> None:
        self.projection = nn.Linear(pair.student.pooled[0], 3).requires_grad_(False)
        self.adapter = nn.Linear(pair.teacher.pooled[0], 3)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (self.projection(student.pooled) - self.adapter(teacher.pooled)).square().mean()}


class WithAFixedScale(WithDropout):
    """A student with a parameter that is not to be learnt."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels)
        self.body.groups.requires_grad_(False)


def test_what_a_method_or_a_network_has_fixed_is_not_learnt(
    lab: Lab, register: Callable[..., None], register_network: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    register("fixed", Fixed)
    register_network("resnet8_fixed", WithAFixedScale)
    seen: list[tuple[str, str, str]] = []

    def look(lane: Lane, *batch: Tensor) -> Iterator[None]:
        yield
        if lane.name == "fixed":
            assert lane.student is not None
            learnt = digest(*lane.method.parts["fixed"].adapter.parameters())
            of_student = digest(*lane.student.body.groups.parameters())
            seen.append((digest(*lane.method.parts["fixed"].projection.parameters()), learnt, of_student))

    around_steps(monkeypatch, look)
    suite = lab.suite(methods=["fixed"], pairs=[{"teacher": "resnet14", "student": "resnet8_fixed"}])
    lab.run(suite)
    projections, adapters, of_student = (set(column) for column in zip(*seen, strict=True))
    assert len(seen) > 3 and (len(projections), len(of_student)) == (1, 1) and len(adapters) == len(seen)
    record = lab.record(only(suite, "fixed"))
    assert record.extra_params == 3 * 64 + 3
    assert lab.curves(only(suite, "fixed"))[0]["gradient_ratio"] > 0


class Optional(Faulty):
    """Its stages are left out."""

    def stages(self) -> tuple[Stage, ...]:
        return tuple(replace(stage, epochs=0) for stage in super().stages())


def test_a_stage_of_no_epochs_is_left_out(lab: Lab, register: Callable[..., None]) -> None:
    register("optional", Optional)
    suite = lab.suite(methods=["optional"])
    assert lab.run(suite)
    assert {row["stage"] for row in lab.curves(only(suite, "optional"))} == {"main"}
    with pytest.raises(ValueError, match="stage hint has -1 epochs"):
        Stage("hint", -1, lambda *given: {}, (), trains_student=True)


class AllFixed(WithDropout):
    """A student of which nothing learns."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels)
        self.requires_grad_(False)


def test_a_student_of_which_nothing_learns_trains_with_what_its_method_learns(
    lab: Lab, register: Callable[..., None], register_network: Callable[..., None]
) -> None:
    register("uncounted", Uncounted)
    register_network("resnet8_all_fixed", AllFixed)
    suite = lab.suite(methods=["uncounted"], pairs=[{"teacher": "resnet14", "student": "resnet8_all_fixed"}])
    lab.run(suite)
    assert lab.record(suite.trials[0]).reason is None


class ForgetsInAStage(Method):
    """Does not say that a stage reads the teacher."""

    def build(self, pair: Pair) -> None:
        self.adapter = nn.Linear(pair.student.pooled[0], pair.student.pooled[0])

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("hint", 1, self.hint, (self.adapter,), trains_student=True),)

    def hint(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (self.adapter(student.pooled) - teacher.pooled).square().mean()}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {}


@pytest.mark.parametrize("name", ["odd", "odd+kd"])
def test_a_method_that_reads_nothing_is_given_no_teacher_in_a_stage_either(
    name: str, lab: Lab, register: Callable[..., None]
) -> None:
    register("odd", ForgetsInAStage)
    suite = lab.suite(methods=[name])
    lab.run(suite)
    assert "it uses the teacher's pooled, and its `reads` names nothing" in (lab.record(only(suite, name)).reason or "")


class WithAMixer(WithDropout):
    """A network with random numbers that no state holds."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels)
        self.register_buffer("mixer", torch.randn(num_classes, num_classes), persistent=False)

    def forward(self, images: Tensor) -> Outputs:
        out = self.body(images)
        return Outputs(out.logits @ self.mixer, out.stem, out.features, out.preactivations, out.pooled)


def test_a_teacher_is_restored_with_what_no_state_holds(lab: Lab, register_network: Callable[..., None]) -> None:
    register_network("mixed", WithAMixer)
    suite = lab.suite(methods=["kd"], pairs=[{"teacher": "mixed", "student": "resnet8"}])
    lab.run(suite)
    assert lab.record(suite.trials[0]).teacher_error_pct == lab.record(suite.teachers[0]).test_error_pct


class Uncounted(Method):
    """Predicts with a classifier of its own, whose work cannot be counted without numbers."""

    reads = ("pooled",)

    def build(self, pair: Pair) -> None:
        self.classifier = nn.Linear(pair.student.pooled[0], pair.student.logits[0])

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"size": student.pooled.square().mean()}

    def predict(self, student: Outputs) -> Tensor:
        return self.classifier(student.pooled) / float(student.pooled.detach().abs().max())

    def deployed(self) -> tuple[Tensor, ...]:
        return tuple(self.classifier.parameters())


def test_a_training_is_not_lost_because_its_work_cannot_be_counted(lab: Lab, register: Callable[..., None]) -> None:
    register("uncounted", Uncounted)
    suite = lab.suite(methods=["uncounted"])
    assert lab.run(suite)
    record = lab.record(suite.trials[0])
    assert (record.status, record.reason, record.student_macs) == ("done", None, None)
    assert any(note.startswith("multiply-accumulates are not counted: ") for note in record.notes)
    table = error_table(load_results(lab.store.root), pairs=suite.pairs)
    assert table.rows


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (lambda gap: gap.mean(), "TypeError: losses returned a Tensor. Return a dict of named terms, such as {'distance': ...}."),
        (lambda gap: {"gap": gap.mean(1)}, "TypeError: the term 'gap' is of shape (32,). Return the mean or the sum of a tensor"),
        (lambda gap: {"gap": gap.mean().item()}, "TypeError: the term 'gap' is a float. Return the mean or the sum of a tensor"),
    ],
)
def test_what_losses_must_return_is_said_where_they_return_something_else(
    returned: Callable[[Tensor], Any], reason: str, lab: Lab, register: Callable[..., None]
) -> None:
    class Beginner(Method):
        reads = ("logits",)

        def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
            return returned((student.logits - teacher.logits).square())  # type: ignore[no-any-return]

    register("beginner", Beginner)
    suite = lab.suite(methods=["beginner"])
    lab.run(suite)
    assert (lab.record(suite.trials[0]).reason or "").startswith(reason)


@pytest.mark.parametrize("told", [False, True])
def test_nothing_is_kept_of_an_epoch_in_which_memory_was_full_without_a_word(
    told: bool, lab: Lab, another: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolutions that find no memory take other kernels: the run ends, and a new one goes on with fewer students."""
    methods = ["scratch", "kd"]
    lab.run(lab.suite(methods=methods))
    suite, refused, original = another.suite(methods=methods), [0], Lane.end_epoch
    for module in ("kdbench.training.cohort", "kdbench.runner.fitting"):
        monkeypatch.setattr(f"{module}.refused_allocations", lambda device: refused[0])
    step = Lane.step

    def crowded(lane: Lane, *batch: Any) -> None:
        step(lane, *batch)
        if lane.name == "kd" and lane.position == (1, 1) and not refused[0]:
            refused[0] = 2
            if told:
                raise torch.OutOfMemoryError("on purpose")

    ended: list[tuple[str, int]] = []
    monkeypatch.setattr(Lane, "step", crowded)
    monkeypatch.setattr(Lane, "end_epoch", lambda lane: (ended.append((lane.name, lane._epoch)), original(lane))[1])
    with pytest.raises(KdbenchError, match="other kernels, which round differently"):
        another.run(suite)
    assert ("kd", 0) in ended and ("kd", 1) not in ended
    assert another.run(suite)
    assert another.outcomes() == lab.outcomes()


def test_a_cohort_that_does_not_fit_is_split_and_comes_to_the_same_end(
    lab: Lab, another: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lanes fit a step, and two an epoch: what had finished is kept, and what had begun goes on."""
    methods = ["scratch", "kd", "at", "sp", "cc"]
    lab.run(lab.suite(methods=methods))
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    original = cohort._epoch

    def limited(now: Position, lanes: Sequence[Lane], *rest: Any, **options: Any) -> None:
        if len(lanes) > (2 if now.epoch else 3):
            raise torch.OutOfMemoryError("on purpose")
        original(now, lanes, *rest, **options)

    monkeypatch.setattr(cohort, "_epoch", limited)
    suite = another.suite(methods=methods)
    assert another.run(suite)
    assert another.outcomes() == lab.outcomes()
    assert [text for text in said if "memory" in text] == [
        f"{n} students at once are too many for the device's memory: {half} at once from here on." for n, half in ((5, 3), (3, 2))
    ]


def test_nobody_is_left_out_where_fewer_train_at_once_than_were_asked_for(
    lab: Lab, another: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight students in groups of four, of which two fit: in the second seed, too."""
    methods = ["scratch", "kd", "at", "sp", "cc", "rkd", "pkt", "nst"]
    suites = [place.suite(methods=methods, seeds=[0, 1]) for place in (lab, another)]
    lab.run(suites[0])
    original = cohort._epoch

    def limited(now: Position, lanes: Sequence[Lane], *rest: Any, **options: Any) -> None:
        if len(lanes) > 2:
            raise torch.OutOfMemoryError("on purpose")
        original(now, lanes, *rest, **options)

    monkeypatch.setattr(cohort, "_epoch", limited)
    assert another.run(suites[1], lanes=4)
    assert another.outcomes() == lab.outcomes()


class Greedy(Faulty):
    """Asks for more memory than any machine has."""

    def break_at(self, place: str) -> None:
        if place == "losses":
            torch.empty(10**14)


def test_a_method_that_is_too_large_even_alone_is_named(lab: Lab, register: Callable[..., None]) -> None:
    register("greedy", Greedy)
    suite = lab.suite(methods=["kd", "scratch", "greedy"])
    with pytest.raises(KdbenchError, match=r"the memory is full although greedy trains alone\. Make room, or leave it out"):
        lab.run(suite)
    assert statuses(lab, suite)["greedy"] != "failed"
    assert lab.run(lab.suite(methods=["kd", "scratch"]))


def test_the_exit_status_says_that_a_trial_failed(
    finished: Lab, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register("faulty", Faulty)
    file = finished.write(**{**MIXED, "methods": [{"faulty": {"at": "losses"}}]})
    monkeypatch.setattr(sys, "argv", ["kdbench", "run", str(file), "--results", str(finished.store.root), "--device", "cpu"])
    for _ in range(2):  # when it fails, and when it has failed
        with pytest.raises(SystemExit) as exit_status:
            main()
        assert exit_status.value.code == 1
        assert "1 failed" in capsys.readouterr().out


def test_a_teacher_that_diverges_takes_its_students_along_and_nobody_else(lab: Lab, another: Lab) -> None:
    suite = lab.suite(teacher={"recipe": {"optimiser": {"lr": 1e30}}})
    lab.run(suite)
    (teacher,) = lab.plan(suite).teachers
    assert teacher.status == "failed"
    assert statuses(lab, suite) == {"scratch": "done", "kd": "missing"}
    alone = another.suite(methods=["scratch"])
    another.run(alone)
    assert lab.outcomes(alone) == another.outcomes()


def test_a_failed_teacher_is_tried_again_only_when_asked(lab: Lab) -> None:
    suite = lab.suite(teacher={"recipe": {"optimiser": {"lr": 1e30}}})
    lab.run(suite)
    (teacher,) = suite.teachers
    before = lab.file(teacher).stat().st_mtime_ns
    lab.run(suite)
    assert lab.file(teacher).stat().st_mtime_ns == before
    lab.run(suite, rerun=Rerun.FAILED)
    assert lab.file(teacher).stat().st_mtime_ns > before


# 7. Only `done` counts


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def of_another_trial(file: Path) -> None:
    other = next(record for record in file.parents[1].glob("*/record.json") if record != file)
    shutil.copy(other, file)


def without_its_error(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "test_error_pct": None}))


def with_a_flipped_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [half, emptied, of_another_trial, without_its_error])
def test_a_damaged_record_is_set_aside_and_its_trial_done_again(
    damage: Callable[[Path], None], finished: Lab, undisturbed: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    suite = finished.suite(**MIXED)
    file = finished.file(only(suite, "ft"))
    damage(file)
    damaged = file.read_bytes()
    assert statuses(finished, suite)["ft"] == "missing"
    assert file.with_name("record.json.broken").read_bytes() == damaged
    assert "record.json.broken" in caplog.text
    finished.run(suite)
    assert finished.outcomes() == undisturbed.outcomes()


@pytest.mark.parametrize("damage", [half, emptied, with_a_flipped_bit])
def test_a_damaged_teacher_is_set_aside_and_trained_again_to_the_same_weights(
    damage: Callable[[Path], None], finished: Lab, undisturbed: Lab
) -> None:
    suite = finished.suite(**MIXED)
    (teacher,) = suite.teachers
    weights = finished.file(teacher, "weights.safetensors")
    damage(weights)
    finished.file(only(suite, "ft")).unlink()
    finished.run(suite)
    assert weights.read_bytes() == undisturbed.file(teacher, "weights.safetensors").read_bytes()
    assert weights.with_name("weights.safetensors.broken").exists()
    assert finished.outcomes() == undisturbed.outcomes()


@pytest.mark.parametrize("damage", [half, emptied, with_a_flipped_bit])
def test_a_damaged_stage_is_set_aside_and_trained_again(damage: Callable[[Path], None], finished: Lab, undisturbed: Lab) -> None:
    suite = finished.suite(**MIXED)
    (file,) = finished.file(suite.teachers[0], "stages").iterdir()
    damage(file)
    finished.file(only(suite, "ft")).unlink()
    finished.run(suite)
    assert file.with_name(f"{file.name}.broken").exists()
    assert finished.outcomes() == undisturbed.outcomes()


@pytest.mark.parametrize("damage", [half, emptied, with_a_flipped_bit])
def test_a_damaged_checkpoint_is_set_aside_and_its_trial_starts_anew(
    damage: Callable[[Path], None], lab: Lab, undisturbed: Lab, one_epoch_a_run: dict[str, Any]
) -> None:
    suite = lab.suite(**{**MIXED, "methods": ["kd", MIXED["methods"][-1]]})
    give_teacher(lab, undisturbed, suite)
    assert not lab.run(suite, **one_epoch_a_run)
    assert statuses(lab, suite) == {"kd": "started", "crd+kd": "started"}
    checkpoint = lab.file(only(suite, "kd"), "checkpoint.pt")
    damage(checkpoint)
    lab.run(suite)
    assert checkpoint.with_name("checkpoint.pt.broken").exists()
    assert lab.outcomes() == undisturbed.outcomes(suite)


def test_each_rerun_takes_up_what_it_says(finished: Lab, register: Callable[..., None]) -> None:
    register("faulty", Faulty)
    suite = finished.suite(**{**MIXED, "methods": [{"faulty": {"at": "losses"}}, "kd", "scratch"]})
    finished.run(suite)
    assert statuses(finished, suite) == {"faulty": "failed", "kd": "done", "scratch": "done"}

    def taken_up(rerun: Rerun) -> set[str]:
        files = {trial.method: finished.file(trial) for trial in suite.trials} | {"teacher": finished.file(suite.teachers[0])}
        before = {name: file.exists() and file.stat().st_mtime_ns for name, file in files.items()}
        finished.run(suite, rerun=rerun)
        return {name for name, file in files.items() if file.stat().st_mtime_ns != before[name]}

    assert taken_up(Rerun.MISSING) == set()
    assert taken_up(Rerun.FAILED) == {"faulty"}
    assert taken_up(Rerun.ALL) == {"faulty", "kd", "scratch"}
    finished.file(only(suite, "kd")).unlink()
    assert taken_up(Rerun.MISSING) == {"kd"}


def test_a_record_is_kept_until_the_trial_is_done_once_more(
    finished: Lab, undisturbed: Lab, one_epoch_a_run: dict[str, Any]
) -> None:
    suite = finished.suite(**MIXED)
    file = finished.file(only(suite, "kd"))
    before, kept = file.read_bytes(), file.with_name("record.json.replaced")
    assert not finished.run(suite, rerun=Rerun.ALL, **one_epoch_a_run)
    assert not file.exists() and kept.read_bytes() == before
    checkpoint = finished.file(only(suite, "kd"), "checkpoint.pt")
    while not checkpoint.exists():
        finished.run(suite, **one_epoch_a_run)
    assert not finished.run(suite, rerun=Rerun.ALL, stop_after_s=0)
    assert not checkpoint.exists(), "all is begun anew, what was interrupted too"
    assert finished.run(suite)
    assert not kept.exists()
    assert finished.outcomes() == undisturbed.outcomes()


def test_a_record_outlasts_a_failure_of_the_trial_that_was_to_replace_it(finished: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = finished.suite(**{**MIXED, "methods": ["kd"]})
    file = finished.file(suite.trials[0])
    before = file.read_bytes()
    monkeypatch.setattr(Lane, "_update", lambda lane, *batch, **options: 1 / 0)
    finished.run(suite, rerun=Rerun.ALL)
    assert finished.record(suite.trials[0]).status == "failed"
    assert file.with_name("record.json.replaced").read_bytes() == before


def test_a_lost_teacher_of_another_machine_is_not_replaced_beside_students_that_are_done(finished: Lab, undisturbed: Lab) -> None:
    suite = finished.suite(**MIXED)
    (teacher,) = suite.teachers
    weights = finished.file(teacher, "weights.safetensors")
    weights.unlink()
    record = json.loads(finished.file(teacher).read_text())
    finished.file(teacher).write_text(json.dumps({**record, "environment": {**record["environment"], "device": "elsewhere"}}))
    finished.file(only(suite, "ft")).unlink()
    before = snapshot(finished)
    for asked in (suite, finished.suite(**{**MIXED, "methods": ["at"]}), finished.suite(**{**MIXED, "seeds": [5]})):
        with pytest.raises(KdbenchError, match=r"another one than that of [34] finished students\. Put the file back, or"):
            finished.run(asked)
        assert snapshot(finished) == before
    assert finished.run(suite, rerun=Rerun.ALL)
    assert finished.outcomes(suite).keys() == undisturbed.outcomes(suite).keys()


def test_all_can_be_rerun_where_a_student_is_another_ones_teacher(lab: Lab) -> None:
    pairs = [{"teacher": "resnet8", "student": "resnet8"}, {"teacher": "wrn_10_1", "student": "resnet8"}]
    suite = lab.suite(pairs=pairs)
    lab.run(suite)
    before = lab.outcomes()
    assert len(before) == 4
    lab.run(suite, rerun=Rerun.ALL)
    assert lab.outcomes() == before


PLUGIN = '''"""A method."""
from kdbench import Method, register


@register("mine")
class Mine(Method):
    """Pulls the pooled vectors together."""

    reads = ("pooled",)

    def losses(self, student, teacher, batch):
        """The gap."""
        return {"gap": 2.0 * (student.pooled - teacher.pooled).square().mean()}  # twice
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """The file of the method `mine`; edit it, and `code_of._files_hash.cache_clear()` stands for a new process."""
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    restore = METHODS.snapshot()
    load_path(file)
    yield file
    restore()
    code_of._files_hash.cache_clear()


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    code_of._files_hash.cache_clear()


def test_a_trial_is_stale_when_its_methods_code_has_changed_and_only_then(lab: Lab, plugin: Path) -> None:
    suite = lab.suite(methods=["mine", "kd"])
    lab.run(suite)
    edit(plugin, "# twice", "# 2")
    edit(plugin, '"""The gap."""', '"""What is pulled together."""')
    edit(plugin, "student, teacher, batch", "student,    teacher,\n        batch")
    assert statuses(lab, suite) == {"mine": "done", "kd": "done"}
    edit(plugin, "2.0 *", "3.0 *")
    assert statuses(lab, suite) == {"mine": "stale", "kd": "done"}
    lab.run(suite)
    assert statuses(lab, suite) == {"mine": "done", "kd": "done"}


NARROW = """from kdbench.models import build_model, register_model
@register_model('narrow')
def narrow(*, num_classes, in_channels):
    return build_model('resnet8', num_classes=num_classes, in_channels=in_channels)
"""

OURS = """import kdbench
from kdbench.data.imagefolder import ImageFolder
@kdbench.register_dataset('ours')
class Ours(ImageFolder):
    std = 0.5
"""


@pytest.mark.parametrize(
    ("registry", "text", "changes", "old", "new"),
    [
        (MODELS, NARROW, {"pairs": [{"teacher": "resnet8", "student": "narrow"}]}, "resnet8", "resnet14"),
        (DATASETS, OURS, {"dataset": {"name": "ours"}}, "0.5", "0.25"),
    ],
    ids=["student", "data set"],
)
def test_a_trial_is_stale_when_a_plugin_has_changed_what_it_is_made_of(
    registry: Registry[Any], text: str, changes: dict[str, Any], old: str, new: str, lab: Lab, tmp_path: Path
) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(text)
    restore = registry.snapshot()
    try:
        load_path(file)
        suite = lab.suite(methods=["kd"], **changes)
        lab.run(suite)
        assert statuses(lab, suite) == {"kd": "done"}
        edit(file, old, new)
        assert statuses(lab, suite) == {"kd": "stale"}
    finally:
        restore()
        code_of._files_hash.cache_clear()


def test_the_hash_of_code_is_the_same_on_every_python(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(PLUGIN + "def f(a=None, *b): return f'{a!r:>{3}}' or [] or None\n")
    assert code_of._files_hash((str(file),)) == "b2e79069ec26e30e"


def test_a_checkpoint_of_other_code_is_not_gone_on_from(lab: Lab, plugin: Path, one_epoch_a_run: dict[str, Any]) -> None:
    suite = lab.suite(methods=["mine"])
    while not lab.store.has_checkpoint(only(suite, "mine").id):
        lab.run(suite, **one_epoch_a_run)
    edit(plugin, "2.0 *", "3.0 *")
    lab.run(suite)
    assert lab.file(only(suite, "mine"), "checkpoint.pt.broken").exists()
    assert [row["epoch"] for row in lab.curves(only(suite, "mine"))] == [1, 2]


def test_students_of_a_stale_teacher_are_stale(finished: Lab, undisturbed: Lab) -> None:
    suite = finished.suite(**MIXED)
    file = finished.file(suite.teachers[0])
    file.write_text(json.dumps({**json.loads(file.read_text()), "method_code": "0" * 16}))
    assert statuses(finished, suite) == {"scratch": "done"} | dict.fromkeys(("kd", "fitnets", "ft", "crd+kd"), "stale")
    finished.run(suite)
    assert finished.outcomes() == undisturbed.outcomes()


def retrain_otherwise(lab: Lab, teacher: TrialSpec) -> None:
    """Leave the teacher as another version of the code might have trained it."""
    from safetensors.torch import load_file

    file = lab.file(teacher, "weights.safetensors")
    weights = {name: value * 1.01 if value.is_floating_point() else value for name, value in load_file(file).items()}
    write_weights(file, weights)
    record = json.loads(lab.file(teacher).read_text())
    lab.file(teacher).write_text(json.dumps({**record, "weights_sha256": state_hash(weights)}))


def test_students_and_stages_of_a_teacher_that_has_changed_are_done_again(finished: Lab) -> None:
    suite = finished.suite(**{**MIXED, "methods": MIXED["methods"][-2:]})
    (teacher,) = suite.teachers
    retrain_otherwise(finished, teacher)
    assert statuses(finished, suite) == {"ft": "stale", "crd+kd": "stale"}
    finished.run(suite)
    continued = finished.outcomes()
    shutil.rmtree(finished.file(teacher, "stages"))
    finished.run(suite, rerun=Rerun.ALL)
    assert finished.outcomes() == continued


# 8. An honest headline


def test_the_headline_is_the_last_epoch_and_the_best_is_told_apart(everything: Everything) -> None:
    differ = 0
    for trial in everything.suite.trials:
        record = everything.lab.record(trial)
        errors = [row["test_error_pct"] for row in everything.lab.curves(trial) if row["stage"] == "main"]
        assert record.test_error_pct == errors[-1]
        assert (record.best_test_error_pct, record.best_epoch) == (min(errors), errors.index(min(errors)) + 1)
        assert (record.validation_error_pct, record.selected_test_error_pct, record.selected_epoch) == (None, None, None)
        differ += record.test_error_pct != record.best_test_error_pct
    assert differ, "no trial tells the two apart"


def test_a_student_is_tested_as_often_as_the_recipe_says_and_in_any_case_at_the_end(lab: Lab, another: Lab) -> None:
    suite = lab.suite(recipe={"epochs": 5, "evaluate_every": 2})
    lab.run(suite)
    another.run(another.suite(recipe={"epochs": 5}))
    for trial in suite.trials:
        rows = [row for row in lab.curves(trial) if row["stage"] == "main"]
        assert [row["epoch"] for row in rows if "test_error_pct" in row] == [2, 4, 5]
        assert lab.record(trial).test_error_pct == rows[-1]["test_error_pct"]
        assert lab.record(trial).best_epoch in (2, 4, 5)
    ends = [
        {(record.method, record.weights_sha256) for record in map(place.record, place.suite(recipe=recipe).trials)}
        for place, recipe in ((lab, {"epochs": 5, "evaluate_every": 2}), (another, {"epochs": 5}))
    ]
    assert ends[0] == ends[1], "testing less often changes what is learnt"


def test_selection_looks_at_validation_images_alone_and_they_are_not_trained_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: set[bytes] = set()

    def look(lane: Any, images: Tensor, indices: Tensor) -> Iterator[None]:
        trained_on.update(image.contiguous().numpy().tobytes() for image in images)
        yield

    around_steps(monkeypatch, look)
    settings = {"recipe": {"epochs": 6, "augmentation": {"pad": 0, "flip": False}}, "methods": ["scratch", *short("ft")]}
    suite = lab.suite(dataset={"validation": 0.25}, **settings)
    lab.run(suite)
    differ = 0
    for trial in suite.trials:
        record, rows = lab.record(trial), [row for row in lab.curves(trial) if row["stage"] == "main"]
        validation = [row["validation_error_pct"] for row in rows]
        selected = validation.index(min(validation))
        assert record.validation_error_pct == validation[-1]
        assert record.selected_epoch == selected + 1
        assert record.selected_test_error_pct == rows[selected]["test_error_pct"]
        assert record.test_error_pct == rows[-1]["test_error_pct"]
        differ += record.selected_epoch != record.best_epoch
    assert differ, "no trial tells selection on validation from selection on test images"
    source, params = suite.source
    dataset = source(params, cache=lab.store.cache).load()
    _, held = hold_out(dataset.train, fraction=0.25)
    assert held is not None
    levels = (held.images.permute(0, 3, 1, 2) / 255 - dataset.mean[0]) / dataset.std[0]
    assert len(trained_on) == TRAIN_IMAGES - len(held)
    seen = torch.frombuffer(bytearray(b"".join(trained_on)), dtype=torch.float32).view(-1, 64)
    assert torch.cdist(levels.flatten(1), seen).min() > 0.1


# 9. No mixing


def test_a_directory_of_another_protocol_is_refused(finished: Lab) -> None:
    suite = finished.suite(**MIXED)
    file = finished.file(only(suite, "kd"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "protocol": 0}))
    other = finished.suite(methods=["sp"])
    before = snapshot(finished)
    for refused in (suite, other):
        with pytest.raises(KdbenchError, match=r"protocol 0.*--results"):
            finished.run(refused)
    assert snapshot(finished) == before


@pytest.mark.parametrize("changes", [MIXED, {"methods": ["sp"], "seeds": [9]}], ids=["the same trials", "other trials"])
def test_other_images_under_the_same_label_are_refused(changes: dict[str, Any], finished: Lab, tmp_path: Path) -> None:
    images = write_images(tmp_path / "others", seed=1)
    suite = Lab(finished.root, images).suite(**changes)
    before = snapshot(finished)
    with pytest.raises(KdbenchError, match=r"stripes.*other images.*`label`"):
        finished.run(suite, rerun=Rerun.ALL)
    assert snapshot(finished) == before
    assert finished.run(Lab(finished.root, images).suite(methods=["scratch"], dataset={"label": "other stripes"}))


def test_a_record_says_what_it_was_made_by(undisturbed: Lab) -> None:
    for trial in undisturbed.suite(**MIXED).trials:
        record = undisturbed.record(trial)
        assert record.core_code == code_of.core_code()
        assert record.method_code == code_of.method_code(trial.methods)
        assert (record.protocol, record.precision) == (trial.protocol, "fp32")
        assert len(record.data_fingerprint) == 16
        assert record.environment.torch == torch.__version__


def test_tables_refuse_to_mix_precisions(lab: Lab) -> None:
    for precision in ("fp32", "bf16"):
        lab.run(lab.suite(recipe={"precision": precision}, teacher={"recipe": {"precision": "fp32"}}))
    results = load_results(lab.store.root)
    pairs = [("wrn_10_1", "resnet8")]
    assert error_table(results[results["precision"] == "fp32"], pairs=pairs).rows
    with pytest.raises(KdbenchError, match="precisions"):
        error_table(results, pairs=pairs)


# What is learnt from the teacher alone


@pytest.fixture
def trained_stages(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The stages of teachers that were trained, side by side where they stand in one list."""
    labels: list[list[str]] = []
    original = teachers.train_teacher_stages

    def train(wanted: Mapping[Path, TeacherStage], **options: Any) -> dict[str, str] | None:
        labels.append([stage.label for stage in wanted.values()])
        return original(wanted, **options)

    monkeypatch.setattr(teachers, "train_teacher_stages", train)
    return labels


def kept_stages(lab: Lab, teacher: TrialSpec) -> dict[str, list[str]]:
    """By file, the hashes of what was learnt."""
    kept = {file.stem: read_checkpoint(file) for file in lab.file(teacher, "stages").iterdir()}
    return {key: [state_hash(module) for module in state["modules"]] for key, state in kept.items() if state}


SHARED: dict[str, Any] = {
    "methods": [{"ft": SHORT["ft"]}, {"ft+kd": {"ft": {**SHORT["ft"], "beta": 100}}}],
    "recipe": {"epochs": 1, "schedule": {}},
    "pairs": [
        {"teacher": "wrn_10_1", "student": "resnet8"},
        {"teacher": "wrn_10_1", "student": "wrn_10_1", "recipe": {"precision": "bf16"}},
    ],
    "seeds": [0, 1],
}
"""Eight students that need one stage of one teacher, each seed its own."""


def test_a_stage_is_trained_once_for_each_seed_whoever_asks_and_side_by_side(
    lab: Lab, another: Lab, trained_stages: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    call = FrozenTeacher.__call__
    monkeypatch.setattr(FrozenTeacher, "__call__", lambda teacher, images: (passes.append(len(images)), call(teacher, images))[1])
    suite = lab.suite(**SHARED)
    (teacher,) = suite.teachers
    lab.run(suite)
    assert trained_stages == [["ft.paraphraser (seed 0)", "ft.paraphraser (seed 1)"]]
    of_training = [images for images in passes if images != TEST_IMAGES]
    assert of_training[:4] == [32, 32, 8, 32], "one pass for each batch of the epoch of all stages, then those of students"
    kept = kept_stages(lab, teacher)
    assert len(set(map(str, kept.values()))) == 2, "the seeds draw apart"

    trained_stages.clear()
    another.run(another.suite(**{**SHARED, "methods": SHARED["methods"][1:], "pairs": SHARED["pairs"][1:], "seeds": [1]}))
    lab.run(lab.suite(**{**SHARED, "methods": [{"ft": {**SHORT["ft"], "k": 1.0}}], "pairs": SHARED["pairs"][:1], "seeds": [0]}))
    assert trained_stages == [["ft.paraphraser (seed 1)"], ["ft.paraphraser (seed 0)"]]
    assert kept_stages(another, teacher).items() <= kept.items()
    assert len(kept_stages(lab, teacher)) == 3


def test_one_training_of_a_stage_serves_all_seeds_where_the_suite_says_so(lab: Lab, trained_stages: list[list[str]]) -> None:
    settings = {**SHARED, "methods": [*SHARED["methods"][:1], "kd"], "pairs": SHARED["pairs"][:1], "seeds": [0, 1]}
    suites = [lab.suite(**settings, stages=stages) for stages in ("per-seed", "per-teacher")]
    assert lab.run(suites[0], lanes=1) and lab.run(suites[1])
    assert trained_stages == [["ft.paraphraser (seed 0)"], ["ft.paraphraser (seed 1)"], ["ft.paraphraser"]], "with lanes: 1"
    records = [[lab.record(trial) for trial in suite.trials] for suite in suites]
    assert [[record.stages for record in found] for found in records] == [
        ["per-seed", "per-seed", None, None],
        ["per-teacher", "per-teacher", None, None],
    ]
    reconstructions = [[lab.curves(trial)[0]["train_loss"] for trial in suite.trials if trial.stages] for suite in suites]
    assert len({*reconstructions[0], *reconstructions[1]}) == 3, "two draws for two seeds, one for both"
    assert records[0][2:] == records[1][2:], "kd is one trial of both suites"


def test_stages_that_do_not_fit_and_stop_after_every_epoch_come_to_the_same_end(
    lab: Lab,
    another: Lab,
    one_epoch_a_run: dict[str, Any],
    register: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register("careless", Careless)
    settings = {**SHARED, "methods": ["careless"], "pairs": SHARED["pairs"][:1]}
    lab.run(lab.suite(**settings))
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    original = cohort._epoch

    def limited(now: Position, lanes: Sequence[Lane], *rest: Any, **options: Any) -> None:
        if len(lanes) > 1:
            raise torch.OutOfMemoryError("on purpose")
        original(now, lanes, *rest, **options)

    monkeypatch.setattr(cohort, "_epoch", limited)
    suite = another.suite(**{**settings, "seeds": [1, 0]})
    stop_after_s = one_epoch_a_run["stop_after_s"] + 1  # the attempt to train two at once is a tick of the clock, too
    assert any(another.run(suite, stop_after_s=stop_after_s) for _ in range(20))
    assert "2 stages at once are too many for the device's memory: 1 at once from here on." in said
    assert another.outcomes() == lab.outcomes()
    assert kept_stages(another, suite.teachers[0]) == kept_stages(lab, suite.teachers[0])
    assert not list(another.store.root.glob("trials/**/*checkpoint*"))


class Undeclared(Faulty):
    """Has a stage of the teacher alone, of which its class says nothing."""

    teacher_stages = {}


def test_a_stage_of_the_teacher_alone_is_declared_where_planning_can_see_it(lab: Lab, register: Callable[..., None]) -> None:
    register("undeclared", Undeclared)
    suite = lab.suite(methods=["undeclared", "kd"])
    lab.run(suite)
    assert statuses(lab, suite) == {"undeclared": "failed", "kd": "done"}
    assert "Write teacher_stages = {'lesson': " in (lab.record(only(suite, "undeclared")).reason or "")
    with pytest.raises(KdbenchError, match=r"Mistaken: stage lesson depends on att .*no such parameter\. Mend the names\."):
        type("Mistaken", (Faulty,), {"teacher_stages": {"lesson": ("at", "att")}})


# The recipe is what is trained


def test_the_optimiser_does_what_the_recipe_says(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays a student's steps by the formula of SGD with momentum and weight decay."""
    recipe = {
        "epochs": 4,
        "optimiser": {"lr": 0.04, "momentum": 0.8, "weight_decay": 0.01, "nesterov": False},
        "schedule": {"milestones": [1, 3], "gamma": 0.5},
    }
    rates: list[float] = []
    buffers: dict[nn.Parameter, Tensor] = {}

    def look(lane: Any, images: Tensor, indices: Tensor) -> Iterator[None]:
        lr = 0.04 * 0.5 ** ((lane._epoch >= 1) + (lane._epoch >= 3))
        before = [parameter.detach().clone() for parameter in lane.student.parameters()]
        yield
        rates.append(lr)
        for parameter, was in zip(lane.student.parameters(), before, strict=True):
            step = parameter.grad + 0.01 * was
            buffers[parameter] = 0.8 * buffers[parameter] + step if parameter in buffers else step
            torch.testing.assert_close(parameter.detach(), was - lr * buffers[parameter])

    around_steps(monkeypatch, look)
    suite = lab.suite(methods=["scratch"], recipe=recipe)
    lab.run(suite)
    assert len(rates) == 4 * STEPS
    rows = lab.curves(suite.trials[0])
    assert [row["lr"] for row in rows] == pytest.approx([0.04, 0.02, 0.02, 0.01])


class Halves(Method):
    """Has no terms, and weighs the cross-entropy by a half of what the epoch says: 1/2, 1/4 and 0 of three."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.ce_weight = 0.5 - batch.epoch / 4
        return {}


class Doubled(Method):
    """Weighs the cross-entropy twice when it is built."""

    def build(self, pair: Pair) -> None:
        self.ce_weight = 2

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"size": student.pooled.square().mean()}


def test_the_cross_entropy_weighs_what_the_losses_have_set_in_the_step(
    lab: Lab, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the loop of a user's own, on copies of the student and of the method."""
    register("halves", Halves)
    register("doubled", Doubled)
    suite = lab.suite(methods=["halves+doubled"], recipe={"epochs": 3})
    labels = lab.bench(suite).splits[0].labels
    logged = [0.0] * 3

    def look(lane: Any, images: Tensor, indices: Tensor) -> Iterator[None]:
        student, method = copy.deepcopy(lane.student), copy.deepcopy(lane.method)
        yield
        output = student(images)
        terms = method.losses(output, output, lane._batch(images, labels[indices], indices))
        entropy = method.ce_weight * nn.functional.cross_entropy(method.predict(output), labels[indices])
        (sum(terms.values()) + entropy).backward()
        assert method.ce_weight == 1 - lane._epoch / 2
        logged[lane._epoch] += float(entropy.detach()) * len(indices)
        for ours, by_hand in zip(lane.student.parameters(), student.parameters(), strict=True):
            torch.testing.assert_close(torch.zeros_like(ours) if ours.grad is None else ours.grad, by_hand.grad)

    around_steps(monkeypatch, look)
    lab.run(suite)
    assert lab.record(suite.trials[0]).reason is None, "what the look asserts fails the lane"
    rows = [row["terms"] for row in lab.curves(suite.trials[0])]
    assert [row.get("cross_entropy", 0.0) for row in rows] == pytest.approx([total / TRAIN_IMAGES for total in logged])
    assert [row.keys() for row in rows] == [{"doubled.size", "cross_entropy"}] * 2 + [{"doubled.size"}]
    assert lab.curves(suite.trials[0])[2]["loss_ratio"] > 0, "held against the cross-entropy all the same"


def test_a_weight_of_the_cross_entropy_that_is_no_number_fails_its_trial(lab: Lab, register: Callable[..., None]) -> None:
    class Learns(Halves):
        def build(self, pair: Pair) -> None:
            self.ce_weight = nn.Parameter(torch.ones(()))

        def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
            return {}

    register("learns", Learns)
    suite = lab.suite(methods=["learns"])
    lab.run(suite)
    reason = lab.record(suite.trials[0]).reason or ""
    assert reason.startswith("TypeError: ce_weight of learns is a Parameter. Set a number; what learns belongs in a term.")


def test_a_stage_has_its_own_rate_or_the_recipes_first_and_keeps_it(undisturbed: Lab) -> None:
    suite = undisturbed.suite(**MIXED)
    for method, stage, lr in (("ft", "ft.paraphraser", 0.1), ("fitnets", "fitnets.hint", 0.05)):
        rows = undisturbed.curves(only(suite, method))
        assert [(row["stage"], row["epoch"]) for row in rows] == [(stage, 1), (stage, 2), ("main", 1), ("main", 2), ("main", 3)]
        assert [row["lr"] for row in rows] == pytest.approx([lr, lr, 0.05, 0.005, 0.005])
