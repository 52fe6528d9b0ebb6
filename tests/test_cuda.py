"""The invariants on a GPU, where full batches are CUDA graphs: `pytest tests/test_cuda.py` on a machine that has one."""

from typing import Any

import pytest
import torch

from kdbench.results import load_results
from kdbench.training import cohort
from kdbench.training.device import without_waiting
from kdbench.training.lane import Lane

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

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
CUDA = {"device": "cuda"}


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool | str | None]:
    """By method, at the end of its training: whether it had a graph, or why it had none."""
    found: dict[str, bool | str | None] = {}
    original = Lane.end_epoch

    def end_epoch(lane: Lane) -> None:
        found[lane.name] = lane.unfit or bool(lane.graph)
        original(lane)

    monkeypatch.setattr(Lane, "end_epoch", end_epoch)
    return found


def test_methods_have_graphs_but_for_those_that_draw(lab, graphed):
    assert lab.run(lab.suite(**CHANGES), **CUDA)
    assert graphed.pop("crd+kd (crd.negatives=64)") == "it draws random numbers in its steps"
    assert set(graphed.values()) == {True}, graphed


@pytest.mark.parametrize("method", ROW, ids=lambda method: method if isinstance(method, str) else next(iter(method)))
def test_a_method_alone_gives_what_it_gives_beside_the_others(method, lab, another):
    lab.run(lab.suite(**CHANGES), **CUDA)
    suite = another.suite(**{**CHANGES, "methods": [method]})
    another.run(suite, **CUDA)
    assert another.outcomes().items() <= lab.outcomes().items()


@pytest.mark.parametrize("lanes", [1, 4])
def test_outcomes_do_not_depend_on_how_many_lanes_train_at_once(lanes, lab, another):
    lab.run(lab.suite(**CHANGES), **CUDA)
    another.run(another.suite(**CHANGES), lanes=lanes, **CUDA)
    assert another.outcomes() == lab.outcomes()


def test_a_run_that_stops_after_every_epoch_comes_to_the_same_end(lab, another, one_epoch_a_run):
    lab.run(lab.suite(**CHANGES), **CUDA)
    while not another.run(another.suite(**CHANGES), **one_epoch_a_run, **CUDA):
        pass
    assert another.outcomes() == lab.outcomes()


def test_graphs_compute_what_steps_compute(lab, another, monkeypatch):
    lab.run(lab.suite(**CHANGES), **CUDA)
    monkeypatch.setattr("kdbench.run.records_graphs", lambda device: False)
    another.run(another.suite(**CHANGES), **CUDA)
    assert another.outcomes() == lab.outcomes()  # a student that is too large for graphs goes on without


def test_no_step_waits_for_the_device(lab, monkeypatch):
    def strictly(act):
        def strict(*args, **options):
            with without_waiting(torch.device("cuda")):
                return act(*args, **options)

        return strict

    monkeypatch.setattr(Lane, "step", strictly(Lane.step))
    monkeypatch.setattr(Lane, "launch_step", strictly(Lane.launch_step))
    assert lab.run(lab.suite(**CHANGES), **CUDA)
    assert set(load_results(lab.store.root)["status"]) == {"done"}, load_results(lab.store.root)["reason"].tolist()


def test_one_forward_pass_of_the_teacher_serves_all(lab, monkeypatch):
    calls = []
    original = cohort.Slots.ask
    monkeypatch.setattr(cohort.Slots, "ask", lambda slots: (calls.append(1), original(slots)))
    lab.run(lab.suite(methods=["kd", "at", "sp"], recipe=CHANGES["recipe"]), **CUDA)
    assert len(calls) == 3 * 3  # three replayed batches in each of three epochs
