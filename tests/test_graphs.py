"""Full batches as CUDA graphs.

What a graph records can be tried on a GPU alone. What is done with graphs is tried here with rehearsed ones, which do their work
anew at each replay: who gets one, what recording leaves behind, what the graphs read, and what comes out.
"""

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Lab, Rehearsed
from invariants.probes import give_teacher
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, Outputs, Pair
from kdbench.conformance.setting import Setting
from kdbench.conformance.two_heads import NAME as TWO_HEADS
from kdbench.docs.methods import shipped_methods
from kdbench.training import cohort, graphs
from kdbench.training.device import try_out
from kdbench.training.frozen_teacher import FrozenTeacher
from kdbench.training.graph_inputs import GraphInputs
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane
from kdbench.training.single import Single
from kdbench.training.step_graph import StepGraph
from kdbench.training.watches import Stopwatch


class Reads(Method):
    """Base of the methods below."""

    reads = ("pooled",)

    def build(self, pair: Pair) -> None:
        self.adapter = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])

    def gap(self, student: Outputs, teacher: Outputs) -> Tensor:
        return (self.adapter(student.pooled) - teacher.pooled).square().mean()


class Draws(Reads):
    """Draws on the host, where a graph would repeat one draw for ever."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": self.gap(student, teacher) * torch.rand((), generator=batch.generator)}


class Counts(Reads):
    """Counts its steps in Python, which a graph would not see."""

    steps = 0

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.steps += 1
        return {"gap": self.gap(student, teacher) * self.steps}


class Replaces(Reads):
    """Keeps a slow bank in new tensors, where a graph would write to the address of the old one."""

    def build(self, pair: Pair) -> None:
        super().build(pair)
        self.register_buffer("bank", torch.ones(len(pair.labels), *pair.teacher.pooled))

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        slow = 0.999 * self.bank[batch.indices] + 0.001 * teacher.pooled
        self.bank = self.bank.index_copy(0, batch.indices, slow)
        return {"gap": self.gap(student, teacher) + slow.mean()}


class CountsInAList(Reads):
    """Counts its steps in what is no number itself."""

    def build(self, pair: Pair) -> None:
        super().build(pair)
        self.steps = {"taken": [0]}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.steps["taken"][0] += 1
        return {"gap": self.gap(student, teacher) * self.steps["taken"][0]}


class Averages(Reads):
    """Keeps a slow mean that is no buffer, so slow that two steps hardly move it."""

    def build(self, pair: Pair) -> None:
        super().build(pair)
        self.center = torch.ones(pair.teacher.pooled)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.center = 0.99999 * self.center + 0.00001 * teacher.pooled.mean(0)
        return {"gap": self.gap(student, teacher) + (student.logits.mean() - self.center.mean()).square()}


class Remembers(Reads):
    """Has attributes that stay as they are: a number that is none, and a list of parameters that are another module's."""

    def build(self, pair: Pair) -> None:
        super().build(pair)
        self.best, self.lowest = float("nan"), torch.tensor([1.0, float("nan")])
        self.watched = list(self.adapter.parameters())
        self.child = nn.Identity()
        self.child.watched = self.watched

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": self.gap(student, teacher)}


class BeginsLate(Reads):
    """Has no term in its first step, as where a memory is empty."""

    begun = False

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        begun, self.begun = self.begun, True
        return {"gap": self.gap(student, teacher)} if begun else {}


class Hides(Reads):
    """Counts its steps where nobody looks."""

    def build(self, pair: Pair) -> None:
        super().build(pair)
        self.steps = SimpleNamespace(taken=0)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.steps.taken += 1
        return {"gap": self.gap(student, teacher) * self.steps.taken}


class Spoils(Reads):
    """Writes into what all are given now and then, and draws, so that it has no graph."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        torch.rand((), generator=batch.generator)
        self.taken = getattr(self, "taken", 0) + 1
        if batch.epoch and self.taken % 3 == 2:  # the second of three batches
            batch.labels.zero_()
            teacher.logits.zero_()
        return {"gap": self.gap(student, teacher)}


class AsksForGradients(Reads):
    """Makes the images, which all lanes share, a leaf of its own graph."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        batch.images.requires_grad_()
        return {"gap": self.gap(student, teacher)}


class WarmsUp(Reads):
    """Asks for the epoch."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": self.gap(student, teacher) * (batch.epoch + 1)}


class WarmsUpByTensors(Reads):
    """Has a weight for each epoch, and draws, both by way of the batch."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        noise = batch.random(torch.rand, len(batch.labels), 1)
        order = batch.random(torch.randperm, len(batch.labels))
        gap = (self.adapter(student.pooled)[order] - teacher.pooled[order] + noise).square().mean()
        return {
            "gap": gap * batch.by_epoch(lambda epoch: (epoch + 1) / 3),
            "noise": 0.1 * self.gap(student, teacher) * noise.mean(),
        }


class DrawsBesideTheBatch(WarmsUpByTensors):
    """Draws from the generator itself, too."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {**super().losses(student, teacher, batch), "drawn": 0 * torch.rand((), generator=batch.generator)}


class Anneals(Reads):
    """Weighs the cross-entropy by the epoch: 1, 1/2 and 0 of three."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.ce_weight = 1 - batch.epoch / 2
        return {"gap": self.gap(student, teacher)}


class CountsForTheWeight(Reads):
    """Weighs the cross-entropy by how many steps it has seen."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.ce_weight = self.ce_weight / 2
        return {"gap": self.gap(student, teacher)}


class Turns(Reads):
    """Gives up the cross-entropy in the short batch at the end of its first epoch, and takes it up again in that of its second."""

    short = 0

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.short += len(batch.labels) == 12
        self.ce_weight = 1.0 if self.short != 1 else 0.0
        return {"gap": self.gap(student, teacher)}


class Waits(Reads):
    """Cannot be recorded."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        if Rehearsed.recording:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return {"gap": self.gap(student, teacher)}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """By lane, after each of its epochs: whether it had a graph, and why it had none."""
    found: dict[str, list[Any]] = {}
    original = Lane.end_epoch

    def end_epoch(lane: Lane) -> None:
        found.setdefault(lane.name, []).append(lane.graph_refused or bool(lane.graph))
        original(lane)

    monkeypatch.setattr(Lane, "end_epoch", end_epoch)
    return found


IN_FULL = {"batch_size": 24}
"""Three full batches an epoch, of which the second and the third are replayed."""


@pytest.fixture(scope="module")
def without_odd(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab in which kd, at and dml ran alone, without graphs. Read it only."""
    lab = Lab(tmp_path_factory.mktemp("without_odd"), images)
    assert lab.run(lab.suite(methods=["kd", "at", "dml"], recipe=IN_FULL))
    return lab


@pytest.fixture
def as_without_graphs(lab: Lab, another: Lab, without_odd: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """Whether a method and kd, which ran in `lab`, came to the end to which they come alone and without graphs."""

    def compare(method: str) -> bool:
        monkeypatch.setattr("kdbench.runner.group_trainer.records_graphs", lambda device: False)
        alone, kd = another.suite(methods=[method], recipe=IN_FULL), without_odd.suite(methods=["kd"], recipe=IN_FULL)
        give_teacher(another, without_odd, alone)
        another.run(alone)
        assert len(lab.outcomes()) == 3
        return lab.outcomes() == another.outcomes() | without_odd.outcomes(kd)

    return compare


METHODS_IN_A_ROW = [
    "scratch",
    "kd",
    "at",
    {"ft": {"paraphraser_epochs": 2}},
    {"fitnets": {"hint_epochs": 2}},
    "dml",
    "simkd",
    "vid",
]


def test_every_lane_ends_bitwise_where_it_ends_without_graphs(lab, another, rehearsed, seen, monkeypatch):
    changes = {"methods": METHODS_IN_A_ROW, "recipe": IN_FULL}
    assert lab.run(lab.suite(**changes))
    assert Rehearsed.made > len(METHODS_IN_A_ROW)
    assert all(had is True for epochs in seen.values() for had in epochs), seen
    monkeypatch.setattr("kdbench.runner.group_trainer.records_graphs", lambda device: False)
    another.run(another.suite(**changes))
    assert lab.outcomes() == another.outcomes()


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Draws, "it draws random numbers in its steps"),
        (DrawsBesideTheBatch, "it draws random numbers in its steps"),
        (Waits, "RuntimeError: operation not permitted when stream is capturing"),
    ],
)
def test_a_method_that_can_have_no_graph_runs_without_one_and_is_named_once(
    method, reason, lab, without_odd, rehearsed, seen, register, as_without_graphs, monkeypatch
):
    register("odd", method)
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    suite = lab.suite(methods=["odd", "kd"], recipe=IN_FULL)
    give_teacher(lab, without_odd, suite)
    lab.run(suite)
    assert (seen["odd"], seen["kd"]) == ([reason, reason], [True, True])
    assert [text for text in said if "graph" in text] == [f"odd runs without CUDA graphs, more slowly: {reason}."]
    assert as_without_graphs("odd")


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Counts, "it changes Counts.steps in its steps, which is no buffer"),
        (CountsInAList, "it changes CountsInAList.steps in its steps, which is no buffer"),
        (CountsForTheWeight, "it changes CountsForTheWeight.ce_weight in its steps, which is no buffer"),
        (Averages, "it changes Averages.center in its steps, which is no buffer"),
        (Replaces, "it replaces Composition.parts.odd.bank in its steps; changed in place, it can be part of a graph"),
        (BeginsLate, "its terms change from step to step"),
    ],
)
def test_a_step_that_a_graph_would_not_repeat_has_none_and_trying_leaves_no_trace(
    method, reason, lab, without_odd, rehearsed, seen, register, as_without_graphs
):
    register("odd", method)
    suite = lab.suite(methods=["odd", "kd"], recipe=IN_FULL)
    give_teacher(lab, without_odd, suite)
    lab.run(suite)
    assert seen["odd"][0] == reason, seen
    assert as_without_graphs("odd")


def test_attributes_that_stay_as_they_are_cost_no_graph(lab, without_odd, rehearsed, seen, register):
    register("odd", Remembers)
    suite = lab.suite(methods=["odd"], recipe=IN_FULL)
    give_teacher(lab, without_odd, suite)
    lab.run(suite)
    assert set(seen["odd"]) == {True}


def test_a_graph_that_does_not_repeat_the_step_is_not_trusted(lab, without_odd, rehearsed, seen, register):
    register("odd", Hides)
    suite = lab.suite(methods=["odd"], recipe=IN_FULL)
    give_teacher(lab, without_odd, suite)
    lab.run(suite)
    assert all(found.startswith("replayed, a step leaves ") for found in seen["odd"]), seen


def unrecordable(act: Callable[..., Any]) -> Callable[..., Any]:
    def refuses(*args: Any) -> Any:
        if Rehearsed.recording:
            raise RuntimeError("operation not permitted when stream is capturing")
        return act(*args)

    return refuses


class AsksForTheTeachers(Reads):
    """The same of the teacher's outputs."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        teacher.logits.requires_grad_()
        return {"gap": self.gap(student, teacher)}


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("method", [Spoils, AsksForGradients, AsksForTheTeachers])
@pytest.mark.parametrize("order", [["odd", "kd", "at"], ["kd", "odd", "dml"]])
def test_a_lane_that_spoils_what_all_are_given_fails_and_harms_nobody(
    method, order, recorded, lab, without_odd, rehearsed, register, monkeypatch
):
    """In the second full batch and later, too, where the others may have graphs or none, and the teacher may have one or none."""
    register("odd", method)
    if not recorded:
        monkeypatch.setattr(FrozenTeacher, "__call__", unrecordable(FrozenTeacher.__call__))
    suite = lab.suite(methods=order, recipe=IN_FULL)
    give_teacher(lab, without_odd, suite)
    lab.run(suite)
    others = without_odd.suite(methods=[name for name in order if name != "odd"], recipe=IN_FULL)
    assert len(lab.outcomes(others)) == 3
    assert lab.outcomes(others) == without_odd.outcomes(others)
    odd = next(trial for trial in suite.trials if trial.method == "odd")
    assert lab.record(odd).reason == "it changed in place a tensor that all lanes are given; clone it before"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which lane recorded its step in which of its epochs."""
    found: list[tuple[str, int]] = []
    original = Single.record_step

    def record_step(unit: Single, inputs: GraphInputs) -> bool:
        (lane,) = unit.lanes
        found.append((lane.name, lane.position.epoch))
        return original(unit, inputs)

    monkeypatch.setattr(Single, "record_step", record_step)
    return found


OF_ALL_EPOCHS = ["crd", "ctkd", "dkd", "kdpp", "mgd", "norm", "reviewkd", "rld", "sdd", "wkd_f", "wkd_l"]
"""Those that warm up, fall or draw."""


@pytest.mark.parametrize("names", [["odd", *OF_ALL_EPOCHS[:6]], OF_ALL_EPOCHS[6:]], ids=["first", "second"])
def test_one_recording_serves_all_epochs_of_a_method_that_warms_up_or_draws(
    names, lab, another, rehearsed, recorded, seen, register, monkeypatch
):
    register("odd", WarmsUpByTensors)
    short = {"crd": {"negatives": 16}, "wkd_f": {"decay_after": 1}, "wkd_l": {"decay_after": 1}}
    methods = [{name: short[name]} if name in short else name for name in names]
    changes = {"methods": methods, "recipe": {"batch_size": 24, "epochs": 3}}
    lab.run(lab.suite(**changes))
    assert [epoch for _, epoch in recorded] == [0] * (1 + len(names)), recorded  # the teacher's training is one more
    assert all(had is True for epochs in seen.values() for had in epochs), seen
    monkeypatch.setattr("kdbench.runner.group_trainer.records_graphs", lambda device: False)
    suite = another.suite(**changes)
    give_teacher(another, lab, suite)
    another.run(suite)
    assert lab.outcomes() == another.outcomes()


@pytest.mark.parametrize(("method", "batch_size"), [(WarmsUp, 24), (Anneals, 24), (Turns, 20)])
def test_a_graph_is_made_anew_where_it_would_keep_an_old_number(
    method, batch_size, lab, another, rehearsed, recorded, register, monkeypatch, one_epoch_a_run
):
    register("odd", method)
    changes = {"methods": ["odd", "kd"], "recipe": {"batch_size": batch_size, "epochs": 3}}
    lab.run(lab.suite(**changes))
    assert [epoch for name, epoch in recorded if name == "kd"] == [0]
    assert [epoch for name, epoch in recorded if name == "odd"] == [0, 1, 2]
    monkeypatch.setattr("kdbench.runner.group_trainer.records_graphs", lambda device: False)
    suite = another.suite(**changes)
    give_teacher(another, lab, suite)
    while not another.run(suite, **(one_epoch_a_run if method is Anneals else {})):
        pass
    assert lab.outcomes() == another.outcomes()


def test_the_cost_of_a_step_is_that_of_the_step_alone_and_recording_is_told_apart(lab, rehearsed, monkeypatch):
    """The teacher's, too, whose pass goes beside the students' steps."""
    suite = lab.suite(methods=["kd"], recipe={"batch_size": 24})
    monkeypatch.setattr(graphs, "seconds", lambda step, device: 100.0)
    original = StepGraph.__init__

    def timed(self: StepGraph, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self.startup_s = 1000.0

    monkeypatch.setattr(StepGraph, "__init__", timed)
    lab.run(suite)
    first, second = lab.curves(suite.trials[0])
    for row in (first, second):
        assert 200 < row["teacher_s"] < 201 and row["data_s"] < 1, "of three batches one has no graph"
        assert 400 < row["train_s"] < 402
    assert 1000 <= first["startup_s"] < 1001 and second["startup_s"] == 0
    assert 0 < second["elapsed_s"] < 10, "what passed, whatever it would take alone"


@pytest.mark.parametrize("name", shipped_methods())
def test_nothing_of_a_steps_backward_pass_outlives_the_step(name):
    """It would tie the next step to the stream of this one, and a step that reaches out of its stream cannot be recorded."""
    setting = Setting(name, TWO_HEADS if name == "deit" else "resnet8", "resnet14")
    lane = setting.lane(epochs=1)
    kept: list[weakref.ref[Tensor]] = []
    lane.student.register_forward_hook(lambda student, given, outputs: kept.extend(map(weakref.ref, outputs.tensors())))
    inputs = setting.inputs(12, lane.method.views)
    unit = Single(lane)
    while lane.position:
        lane.begin_epoch()
        unit.train_step(inputs)
        assert kept and not any(tensor() is not None for tensor in kept), name
        lane.sum_up(data_s=0.0, teacher_s=0.0, startup_s=0.0)
        lane.end_epoch()


def test_a_teacher_whose_pass_cannot_be_recorded_is_asked_anew_for_each_batch(lab, without_odd, rehearsed, monkeypatch):
    suite = lab.suite(methods=["kd", "at"], recipe=IN_FULL)
    give_teacher(lab, without_odd, suite)
    original = FrozenTeacher.__call__

    def waits(teacher: FrozenTeacher, images: Tensor) -> Outputs:
        if Rehearsed.recording:
            raise RuntimeError("operation not permitted when stream is capturing")
        return original(teacher, images)

    monkeypatch.setattr(FrozenTeacher, "__call__", waits)
    assert lab.run(suite)
    assert lab.outcomes() == without_odd.outcomes(suite)


@pytest.mark.usefixtures("rehearsed")
def test_the_teachers_outputs_stay_while_those_for_the_next_batch_are_made_ready() -> None:
    """Also where a network hands its images on, or has one number for several places."""

    def teacher(step: StepInputs) -> Outputs:
        pooled = step.images.mean((2, 3))
        return Outputs(pooled[:, :1].expand(-1, 3), step.images, (step.images[:, 1:],), (step.images + 1,), pooled)

    images = torch.arange(48.0).view(2, 2, 3, 2, 2)
    present, following = (StepInputs(one, torch.zeros(2).long(), torch.arange(2)) for one in images)
    inputs = GraphInputs(present)
    for batch in (present, following):
        inputs.load(batch)
        inputs.prepare(teacher)
        inputs.run_teacher(teacher, Stopwatch(torch.device("cpu")))
        if batch is following:
            assert inputs.teacher and all(map(torch.equal, inputs.teacher.tensors(), teacher(present).tensors()))
        inputs.advance()
        assert all(map(torch.equal, inputs.step.tensors(), batch.taught(teacher(batch)).tensors()))


def test_a_student_that_is_too_large_with_a_graph_goes_on_without(lab, without_odd, rehearsed, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    original = StepGraph.__init__

    def full(self: StepGraph, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        raise torch.OutOfMemoryError("on purpose")

    monkeypatch.setattr(StepGraph, "__init__", full)
    suite = lab.suite(methods=["kd", "at"], recipe=IN_FULL)
    assert lab.run(suite)
    assert [text.split(" ")[0] for text in said if "with CUDA graphs" in text] == ["scratch", "kd", "at"]
    assert lab.outcomes() == without_odd.outcomes(suite)


def test_lanes_are_waited_for_where_another_one_ends_the_step(lab, rehearsed, monkeypatch):
    """What a cohort lets go of when memory is full is taken by the next one, while a graph might still write to it."""

    joined = {"launched": 0, "joined": 0}

    def launch(graph: Rehearsed) -> None:
        joined["launched"] += 1
        if joined["launched"] == 2:
            raise torch.OutOfMemoryError("on purpose")
        graph.replay()

    monkeypatch.setattr(Rehearsed, "launch", launch)
    monkeypatch.setattr(Rehearsed, "join", lambda graph: joined.update(joined=joined["joined"] + 1))
    assert lab.run(lab.suite(methods=["kd", "at"], recipe={"batch_size": 24}, teacher={"recipe": {"batch_size": 72}}))
    assert joined["joined"] >= joined["launched"] > 2


def test_no_more_lanes_train_at_once_than_have_a_stream_of_their_own(lab, rehearsed, monkeypatch):
    monkeypatch.setattr("kdbench.runner.group_trainer.MOST_GRAPHS", 2)
    together = []
    original = cohort._epoch
    monkeypatch.setattr(
        cohort, "_epoch", lambda now, lanes, *rest, **more: (together.append(len(lanes)), original(now, lanes, *rest, **more))
    )
    short = {"epochs": 1, "schedule": {"milestones": []}}
    for lanes in (0, 3):
        lab.run(lab.suite(methods=["kd", "at", "sp"], recipe=short, seeds=[lanes]), lanes=lanes)
    assert max(together) == 2


def test_the_first_product_of_a_process_has_the_scratch_memory_of_all_others(monkeypatch):
    """A worker tries its device out before it trains anything, and torch decides at the first product for good."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try_out(torch.device("cpu"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(
    ("problem", "recordings"),
    [
        (torch.AcceleratorError("operation failed due to a previous error during capture"), 2),
        (torch.OutOfMemoryError("too large"), 1),
        (ValueError("of a method"), 1),
    ],
)
def test_a_recording_that_fails_is_followed_by_one_that_does_not(problem, recordings, monkeypatch):
    """By the source of torch nothing can draw on the device until then. One that CUDA ended is let go, whatever a method raised."""
    recorded, kept = list[Any](), list[Any]()

    def fails() -> None:
        raise problem

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(reset=lambda: None))
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: nullcontext(recorded.append(graph)))
    monkeypatch.setattr("atexit.register", kept.append)
    with pytest.raises(type(problem), match=str(problem)):
        graphs.Graph(fails, SimpleNamespace(device="cpu"))
    assert len(recorded) == recordings
    assert [graph.reset for graph in recorded[: recordings - 1]] == kept, "torch would ask it after its end"


def test_works_beside_each_other_wait_for_what_came_before_and_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def record_event(self) -> str:
            said.append(f"event on {self.name}")
            return "event"

        def wait_event(self, event: str) -> None:
            said.append(f"{self.name} waits for the {event}")

        def wait_stream(self, other: "Stream") -> None:
            said.append(f"{self.name} waits for {other.name}")

    on = [Stream("the current one")]

    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        on.append(chosen)
        yield
        on.pop()

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: on[-1])
    monkeypatch.setattr(torch.cuda, "stream", stream)
    works = [lambda number=number: said.append(f"work {number} on {on[-1].name}") for number in range(3)]
    graphs.beside_each_other(works, [Stream("a"), Stream("b"), Stream("c")])
    assert said == [
        *("event on the current one", "work 0 on the current one"),
        *("b waits for the event", "work 1 on b", "c waits for the event", "work 2 on c"),
        *("the current one waits for b", "the current one waits for c"),
    ]
    said.clear()
    graphs.beside_each_other(works, [None, None, None])
    assert said == [f"work {number} on the current one" for number in range(3)]
