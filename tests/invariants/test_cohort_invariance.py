"""2. Cohort invariance: a lane's result is bitwise the same alone or beside any other lanes."""

import json
import re
from collections.abc import Callable

import pytest
import torch
from conftest import MIXED, Lab

from invariants.everything import Everything
from invariants.odd_methods import Careless, Noisy
from invariants.probes import give_teacher, only, short
from kdbench import Batch, Losses, Method, MethodParams, Outputs
from kdbench.runner.plan import Rerun


def test_every_method_alone_gives_what_it_gives_beside_all_others(everything: Everything, lab: Lab) -> None:
    give_teacher(lab, everything.lab, everything.suite)
    assert lab.run(everything.suite, lanes=1)
    alone, beside = lab.outcomes(), everything.lab.outcomes()
    assert len(everything.suite.trials) > 50
    assert [trial.method for trial in everything.suite.trials if alone[trial.id] != beside[trial.id]] == []


@pytest.mark.parametrize("lanes", [1, 2])
def test_outcomes_do_not_depend_on_how_many_lanes_train_at_once(lanes: int, undisturbed: Lab, lab: Lab) -> None:
    suite = lab.suite(**MIXED)
    lab.run(suite, lanes=lanes)
    assert lab.outcomes() == undisturbed.outcomes()


@pytest.fixture
def noisy(register_network: Callable[..., None]) -> str:
    """The name of a network that draws random numbers."""
    register_network("resnet8_noisy", Noisy)
    return "resnet8_noisy"


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
