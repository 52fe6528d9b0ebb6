"""Where the device's memory is full: fewer lanes train at once, and the results stay the same."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Lab, MemoryFor
from invariants.odd_methods import Faulty
from invariants.probes import give_teacher, statuses

from kdbench import KdbenchError
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane
from kdbench.training.single import Single

METHODS = ["scratch", "kd", "at", "sp", "cc"]


@pytest.fixture(scope="module")
def plenty(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab in which `METHODS` ran with memory enough. Read it only."""
    lab = Lab(tmp_path_factory.mktemp("plenty"), images)
    assert lab.run(lab.suite(methods=METHODS))
    return lab


def test_a_cohort_that_does_not_fit_is_split_and_comes_to_the_same_end(
    lab: Lab, plenty: Lab, memory_for: MemoryFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lanes fit a step, and two an epoch: what had finished is kept, and what had begun goes on."""
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    memory_for(lambda now: 2 if now.epoch else 3)
    suite = lab.suite(methods=METHODS)
    give_teacher(lab, plenty, suite)
    assert lab.run(suite)
    assert lab.outcomes() == plenty.outcomes()
    assert [text for text in said if "memory" in text] == [
        f"{n} students at once are too many for the device's memory: {half} at once from here on." for n, half in ((5, 3), (3, 2))
    ]


def test_nobody_is_left_out_where_fewer_train_at_once_than_were_asked_for(lab: Lab, another: Lab, memory_for: MemoryFor) -> None:
    """Eight students in groups of four, of which two fit: in the second seed, too."""
    methods, short = [*METHODS, "rkd", "pkt", "nst"], {"epochs": 1, "schedule": {"milestones": []}}
    suites = [place.suite(methods=methods, recipe=short, seeds=[0, 1]) for place in (lab, another)]
    lab.run(suites[0])
    give_teacher(another, lab, suites[1])
    memory_for(lambda now: 2)
    assert another.run(suites[1], lanes=4)
    assert another.outcomes() == lab.outcomes()


@pytest.mark.parametrize("told", [False, True])
def test_nothing_is_kept_of_an_epoch_in_which_memory_was_full_without_a_word(
    told: bool, lab: Lab, plenty: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolutions that find no memory take other kernels: the run ends, and a new one goes on with fewer students."""
    suite, refused, original = lab.suite(methods=["scratch", "kd"]), [0], Lane.end_epoch
    give_teacher(lab, plenty, suite)
    for module in ("kdbench.training.cohort", "kdbench.runner.group_trainer"):
        monkeypatch.setattr(f"{module}.refused_allocations", lambda device: refused[0])
    train_step = Single.train_step

    def crowded(unit: Single, inputs: StepInputs) -> None:
        train_step(unit, inputs)
        (lane,) = unit.lanes
        if lane.name == "kd" and lane.position == (1, 1) and not refused[0]:
            refused[0] = 2
            if told:
                raise torch.OutOfMemoryError("on purpose")

    ended: list[tuple[str, int]] = []
    monkeypatch.setattr(Single, "train_step", crowded)
    monkeypatch.setattr(Lane, "end_epoch", lambda lane: (ended.append((lane.name, lane._epoch)), original(lane))[1])
    with pytest.raises(KdbenchError, match="other kernels, which round differently"):
        lab.run(suite)
    assert ("kd", 0) in ended and ("kd", 1) not in ended
    assert lab.run(suite)
    assert len(lab.outcomes()) == 3
    assert lab.outcomes() == plenty.outcomes(suite)


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
