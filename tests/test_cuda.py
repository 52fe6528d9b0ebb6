"""The invariants on a GPU, where full batches are CUDA graphs: `pytest tests/test_cuda.py` on a machine that has one.

Without one they are rehearsed on the CPU, with graphs that do their work anew at each replay, so that they are known to run.
"""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import Lab, Rehearsed
from invariants.probes import give_teacher

from kdbench import Batch, Losses, Method, MethodParams, Outputs
from kdbench.method.interface import METHODS
from kdbench.runner.frame import load_results
from kdbench.training import cohort
from kdbench.training.device import without_waiting
from kdbench.training.lane import Lane
from kdbench.training.single import Single


@pytest.fixture(autouse=True, params=["cuda", "rehearsed"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the tests run."""
    if request.param == "rehearsed":
        request.getfixturevalue("rehearsed")
    elif not torch.cuda.is_available():
        pytest.skip("needs CUDA")  # the other parameter rehearses the same test
    return torch.device({"rehearsed": "cpu"}.get(request.param, request.param))


@pytest.fixture
def run(device: torch.device) -> Callable[..., bool]:
    """Run a suite there."""
    return lambda lab, suite, **options: lab.run(suite, device=device.type, **options)


ROW = [
    "scratch",
    "kd",
    {"fitnets": {"hint_epochs": 2}},
    "at",
    {"ft": {"paraphraser_epochs": 2}},
    {"crd+kd": {"crd": {"negatives": 64}}},
]
CHANGES: dict[str, Any] = {"methods": ROW, "recipe": {"batch_size": 16, "epochs": 3}}
"""Four full batches of 16 an epoch, and a short one of 8."""


Row = tuple[Lab, dict[str, bool | str | None]]
"""A lab, and by method, at the end of its training: whether it had a graph, or why it had none."""


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """What `done` gives, by the type of the device."""
    return {}


@pytest.fixture
def done(device: torch.device, run: Callable[..., bool], rows: dict[str, Row], images: Path, tmp_path_factory: Any) -> Row:
    """`CHANGES` ran from start to end, once for all tests."""
    if device.type not in rows:
        lab, graphed, original = Lab(tmp_path_factory.mktemp("row"), images), dict[str, bool | str | None](), Lane.end_epoch

        def end_epoch(lane: Lane) -> None:
            graphed[lane.name] = lane.graph_refused or bool(lane.graph)
            original(lane)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Lane, "end_epoch", end_epoch)
            assert run(lab, lab.suite(**CHANGES))
        rows[device.type] = lab, graphed
    return rows[device.type]


@pytest.fixture
def row(done: Row) -> Lab:
    """A lab in which `CHANGES` are done. Read it, leave it as it is."""
    return done[0]


def test_methods_have_graphs(done):
    _, graphed = done
    assert len(graphed) == 1 + len(ROW) + 1, "the teacher, the students, and a stage of the teacher alone"
    assert set(graphed.values()) == {True}, graphed


@pytest.mark.parametrize("method", ROW, ids=lambda method: method if isinstance(method, str) else next(iter(method)))
def test_a_method_alone_gives_what_it_gives_beside_the_others(run, method, row, lab):
    suite = lab.suite(**{**CHANGES, "methods": [method]})
    give_teacher(lab, row, suite)
    run(lab, suite)
    assert lab.outcomes().items() <= row.outcomes().items()


@pytest.mark.parametrize("lanes", [1, 4])
def test_outcomes_do_not_depend_on_how_many_lanes_train_at_once(run, lanes, row, lab):
    suite = lab.suite(**CHANGES)
    give_teacher(lab, row, suite)
    run(lab, suite, lanes=lanes)
    assert lab.outcomes() == row.outcomes()


UPDATES: dict[str, Any] = {"optimiser": {"name": "adamw", "lr": 0.003}, "moving_average": 0.9, "gradient_clipping": 1.0}

OTHERS = [
    *({"precision": "bf16"}, {"precision": "tf32"}, {"compile": True}, UPDATES),
    *({"stack": True}, {"stack": True, "precision": "bf16"}, {"stack": True, **UPDATES}, {"stack": True, "compile": True}),
]


@pytest.mark.parametrize("arithmetic", OTHERS, ids=str)
def test_other_arithmetic_is_as_exact(run, device, arithmetic, lab, another):
    if device.type == "cpu" and arithmetic != {"precision": "bf16"}:
        pytest.skip("needs CUDA, or long")  # tf32 is of CUDA alone; tests/test_compiled.py and test_stack.py are of the CPU
    recipe = {**CHANGES["recipe"], **arithmetic}
    run(lab, lab.suite(methods=["kd", "at", "sp"], recipe=recipe))
    run(another, another.suite(methods=["at"], recipe=recipe))
    assert another.outcomes().items() <= lab.outcomes().items()
    assert set(load_results(lab.store.root)["status"]) == {"done"}, load_results(lab.store.root)["reason"].tolist()


class Blocks(Method):
    """Does what no graph can hold, and what is not noticed before it is recorded."""

    given: ClassVar[list[weakref.ref[torch.Tensor]]] = []

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        if Rehearsed.recording or (student.logits.is_cuda and torch.cuda.is_current_stream_capturing()):
            Blocks.given.append(weakref.ref(student.logits))
            torch.cuda.synchronize()
            raise RuntimeError("on purpose")
        return {"gap": student.logits.square().mean()}


class DrawsThere(Method):
    """Draws on the device in each step."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"noise": (student.logits * torch.rand_like(student.logits)).mean()}


def test_a_recording_that_fails_leaves_the_others_as_they_were(run, row, lab, another, register, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", torch.cuda.synchronize if torch.cuda.is_available() else lambda: None)
    register("blocks", Blocks)
    register("draws_there", DrawsThere)
    recipe = {**CHANGES["recipe"], "epochs": 2}
    suite, alone = lab.suite(methods=["kd", "draws_there", "blocks"], recipe=recipe), ["draws_there"]
    monkeypatch.setattr(Blocks, "given", [])
    gc.disable()  # which would free what the failed recording must not keep: autograd remembers the stream of it
    try:
        assert run(lab, suite)
        assert [logits() for logits in Blocks.given] == [None]
    finally:
        gc.enable()
    assert set(load_results(lab.store.root)["status"]) == {"done"}, load_results(lab.store.root)["reason"].tolist()
    monkeypatch.setattr("kdbench.runner.group_trainer.records_graphs", lambda device: False)
    run(another, another.suite(methods=alone, recipe=recipe))
    assert another.outcomes().items() <= lab.outcomes().items()


class Breaks(Method):
    """In its second epoch it raises, or its loss is no longer a number."""

    reads = ("logits",)

    class Params(MethodParams):
        how: str = "raises"

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        if batch.epoch and self.params.how == "raises":
            raise RuntimeError("on purpose")
        return {"gap": (student.logits - teacher.logits).square().mean() * (float("nan") if batch.epoch else 1.0)}


def test_a_lane_that_raises_or_diverges_fails_and_the_others_are_as_without_it(run, row, lab):
    forget = METHODS.snapshot()
    METHODS.register("breaks")(Breaks)
    try:
        suite = lab.suite(**{**CHANGES, "methods": [{"breaks": {"how": "raises"}}, {"breaks": {"how": "diverges"}}, *ROW]})
        give_teacher(lab, row, suite)
        run(lab, suite)
    finally:
        forget()
    failed = [lab.record(trial).reason for trial in suite.trials if trial.method == "breaks"]
    assert failed[0].startswith("RuntimeError: on purpose") and failed[1].startswith("the loss is nan in epoch 2")
    assert row.outcomes().items() <= lab.outcomes().items()


def test_a_run_that_stops_after_every_epoch_comes_to_the_same_end(run, row, lab, one_epoch_a_run):
    give_teacher(lab, row, suite := lab.suite(**CHANGES))
    while not run(lab, suite, **one_epoch_a_run):
        pass
    assert lab.outcomes() == row.outcomes()


def test_graphs_compute_what_steps_compute(run, row, lab, monkeypatch):
    monkeypatch.setattr("kdbench.runner.group_trainer.records_graphs", lambda device: False)
    give_teacher(lab, row, suite := lab.suite(**CHANGES))
    run(lab, suite)
    assert lab.outcomes() == row.outcomes()  # a student that is too large for graphs goes on without


def test_no_step_waits_for_the_device(run, device, row, lab, monkeypatch):
    def strictly(act):
        def strict(*args, **options):
            with without_waiting(device):
                return act(*args, **options)

        return strict

    monkeypatch.setattr(Single, "train_step", strictly(Single.train_step))
    monkeypatch.setattr(Single, "launch_step", strictly(Single.launch_step))
    give_teacher(lab, row, suite := lab.suite(**CHANGES))
    assert run(lab, suite)
    assert set(load_results(lab.store.root)["status"]) == {"done"}, load_results(lab.store.root)["reason"].tolist()


def test_one_forward_pass_of_the_teacher_serves_all(run, row, lab, monkeypatch):
    calls = []
    original = cohort.GraphInputs.run_teacher
    monkeypatch.setattr(cohort.GraphInputs, "run_teacher", lambda *given: (calls.append(1), original(*given)))
    suite = lab.suite(methods=["kd", "at", "sp"], recipe=CHANGES["recipe"])
    give_teacher(lab, row, suite)
    run(lab, suite)
    assert len(calls) == 3 * 3  # three replayed batches in each of three epochs
