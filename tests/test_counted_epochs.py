"""An epoch of a stage counts as any other: in the plan, in the progress of a run, and in what is left."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Lab, Said
from engine import InProcess
from invariants.odd_methods import Careless, Faulty

from kdbench.catalogue.plan import plan_as_text
from kdbench.method.interface import METHODS
from kdbench.method.specs import build_part, resolve_methods, stage_epochs
from kdbench.runner import run
from kdbench.runner.run import Options, execute
from kdbench.suite.contradictions import _tiny_pair
from kdbench.suite.teacher_stages import teacher_stages

STAGES: dict[str, Any] = {
    "methods": [{"ft": {"paraphraser_epochs": 3}}, {"fitnets+kd": {"fitnets": {"hint_epochs": 2}}}, "kd"],
    "seeds": [0, 1],
}
"""A teacher of 2 epochs; two stages of 3, for two seeds; and for each seed 2 epochs of three students, and 2 of a hint stage."""

EPOCHS = 2 + 2 * 3 + 2 * (3 * 2 + 2)


class Seen(Said):
    """Keeps what was done, and what there was to do, after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[tuple[int, int]] = []

    def show(self, text: str) -> None:
        self.counts.append((self.pace.done, self.pace.total))


@pytest.mark.parametrize("name", [name for name in METHODS.names() if stage_epochs(METHODS.get(name).Params().model_dump())])
def test_the_epochs_of_its_stages_are_known_before_a_method_is_built(lab: Lab, name: str) -> None:
    (trial,) = lab.suite(methods=[name]).trials
    stages = build_part(resolve_methods(name, {})[0], _tiny_pair()).stages()
    planned = lab.plan(lab.suite(methods=[name])).students[0]
    assert planned.epochs == 2 + sum(stage.epochs for stage in stages if stage.trains_student)
    of_teacher = {f"{name}.{stage.name}": stage.epochs for stage in stages if not stage.trains_student}
    assert {stage.name: stage.epochs for stage in teacher_stages(trial)} == of_teacher


@pytest.mark.parametrize("elsewhere", [False, True])
def test_each_epoch_moves_the_count_and_the_last_one_completes_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    engine = InProcess("a", "b", cache=lab.store.cache) if elsewhere else None
    monkeypatch.setattr(run, "choose_engine", lambda name, device, **more: engine)
    suite, told = lab.suite(**STAGES), Seen()
    assert f", {EPOCHS} epochs. How long that takes" in plan_as_text(lab.plan(suite), [], None)
    assert execute(suite, lab.store, options=Options(device="cpu"), progress=told)
    done = [done for done, _ in told.counts]
    assert done == sorted({*done}), "it never stands still"
    assert {total for _, total in told.counts} == {EPOCHS} and done[-1] == EPOCHS


def test_what_is_left_after_a_stop_is_what_was_not_trained(lab: Lab, one_epoch_a_run: dict[str, Any]) -> None:
    """Also where it stops within a stage; and epochs of an earlier run take no time in this one."""
    suite, left, runs = lab.suite(**STAGES), EPOCHS, 0
    while left:
        told = Seen()
        execute(suite, lab.store, options=Options(device="cpu", **one_epoch_a_run), progress=told)
        left -= told.pace.done - told.pace.resumed
        assert told.pace.total - told.pace.done == left
        runs += 1
    assert runs > 10


def test_stages_that_no_parameter_counts_and_trials_that_fail_are_not_in_the_way(lab: Lab, register: Callable[..., None]) -> None:
    register("careless", Careless)
    register("faulty", Faulty)
    broken = [{"faulty": {"at": place}} for place in ("build for equal networks", "lesson", "nan in hint", "losses")]
    for methods in (["careless", {"ft": {"paraphraser_epochs": 2}}], *([one, "kd"] for one in broken)):
        suite, told = lab.suite(methods=methods), Seen()
        assert execute(suite, lab.store, options=Options(device="cpu"), progress=told)
        assert told.pace.done == told.pace.total
        assert all(done <= total for done, total in told.counts)
        if "careless" in methods:  # each of its two stages is counted as a whole once its first epoch has ended
            assert {total for _, total in told.counts} == {8, 8 + 2, 8 + 2 + 1}
