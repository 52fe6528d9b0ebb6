"""Mistakes in a method that the engine finds: its trial fails, and the reason says what to change."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Lab
from invariants.probes import only, statuses
from torch import Tensor, nn

from kdbench import Batch, KdbenchError, Losses, Method, Outputs, Pair, Stage


class Doubles(Method):
    """Changes what the student's gradient needs."""

    reads = ("pooled",)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        gap = (student.pooled - teacher.pooled).square().mean()
        student.pooled.mul_(2)
        return {"gap": gap + student.pooled.square().mean()}


class Forgets(Method):
    """Does not say that it reads the teacher, and would be given the student's own outputs where nobody else does."""

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (student.logits - teacher.logits).square().mean()}


class StraysPlainly(Method):
    """Keeps what ought to learn as a plain tensor."""

    reads = ("pooled",)

    def build(self, pair: Pair) -> None:
        self.scale = torch.ones(5, requires_grad=True)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (self.scale.mean() * student.pooled - teacher.pooled).square().mean()}


class Strays(Method):
    """Keeps its adapter where nobody finds it."""

    reads = ("pooled",)

    def build(self, pair: Pair) -> None:
        self.adapters = [nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])]

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": (self.adapters[0](student.pooled) - teacher.pooled).square().mean()}


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


def test_a_weight_of_the_cross_entropy_that_is_no_number_fails_its_trial(lab: Lab, register: Callable[..., None]) -> None:
    class Learns(Method):
        def build(self, pair: Pair) -> None:
            self.ce_weight = nn.Parameter(torch.ones(()))

        def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
            return {}

    register("learns", Learns)
    suite = lab.suite(methods=["learns"])
    lab.run(suite)
    reason = lab.record(suite.trials[0]).reason or ""
    assert reason.startswith("TypeError: ce_weight of learns is a Parameter. Set a number; what learns belongs in a term.")


def test_parameters_of_another_kind_are_refused_where_the_class_is_made() -> None:
    with pytest.raises(KdbenchError, match=r"Plain: `Params` is no kdbench\.MethodParams\. Write `class Params\(MethodParams\):`"):

        class Plain(Method):
            class Params:  # type: ignore[assignment]  # it is the mistake
                beta = 1.0


def test_a_method_that_predicts_for_other_classes_fails_its_trial(lab: Lab, register: Callable[..., None]) -> None:
    class Halves(Method):
        def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
            return {}

        def predict(self, student: Outputs) -> Tensor:
            return student.logits[:, :2]

    register("halves", Halves)
    suite = lab.suite(methods=["halves"])
    lab.run(suite)
    reason = lab.record(suite.trials[0]).reason or ""
    assert re.match(r"ValueError: `predict` gives logits of shape \(32, 2\), and the student's are of shape \(32, \d+\)", reason), (
        reason
    )
