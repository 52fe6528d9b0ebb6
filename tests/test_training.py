"""What a lane trains: by the recipe, what is to learn and nothing else."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import MIXED, TRAIN_IMAGES, Lab
from invariants.odd_methods import Faulty, WithDropout
from invariants.probes import STEPS, around_steps, digest, only
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, Outputs, Pair, Stage
from kdbench.report.compare import compare
from kdbench.report.tables.results import result_table
from kdbench.runner.frame import load_results
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane


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
    labels = lab.builder(suite).splits[0].labels
    logged = [0.0] * 3

    def look(lane: Any, images: Tensor, indices: Tensor) -> Iterator[None]:
        student, method = copy.deepcopy(lane.student), copy.deepcopy(lane.method)
        yield
        output = student(images)
        terms = method.losses(output, output, lane.batch(StepInputs(images, labels[indices], indices)))
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


def test_a_stage_has_its_own_rate_or_the_recipes_first_and_keeps_it(undisturbed: Lab) -> None:
    suite = undisturbed.suite(**MIXED)
    for method, stage, lr in (("ft", "ft.paraphraser", 0.1), ("fitnets", "fitnets.hint", 0.05)):
        rows = undisturbed.curves(only(suite, method))
        assert [(row["stage"], row["epoch"]) for row in rows] == [(stage, 1), (stage, 2), ("main", 1), ("main", 2), ("main", 3)]
        assert [row["lr"] for row in rows] == pytest.approx([lr, lr, 0.05, 0.005, 0.005])


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


def test_a_training_is_not_lost_because_its_work_cannot_be_counted(lab: Lab, register: Callable[..., None]) -> None:
    register("uncounted", Uncounted)
    suite = lab.suite(methods=["uncounted"])
    assert lab.run(suite)
    record = lab.record(suite.trials[0])
    assert (record.status, record.reason, record.student_macs) == ("done", None, None)
    assert any(note.startswith("multiply-accumulates are not counted: ") for note in record.notes)
    table = result_table(compare(load_results(lab.store.root), pairs=suite.pairs))
    assert table.rows


@pytest.mark.parametrize(("size", "count"), [(72, 0), (73, 1)])
def test_a_batch_of_more_images_than_there_are_is_told_of_once(
    size: int, count: int, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    lab.run(lab.suite(methods=["scratch", "kd"], recipe={"batch_size": size}))
    found = "warning: a batch of 73 takes all 72 training images, so that each epoch is a single step; lower `batch_size` in the "
    assert [line for line in said if "a batch of" in line] == [f"{found}recipe."] * count
