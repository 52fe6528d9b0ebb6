"""Whether the balance of losses is what it says, and whether a weight that is far off is told of."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Lab
from test_method_traps import CLASSES, outputs, pair

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair
from kdbench.conformance.setting import Setting
from kdbench.data import epoch_plan
from kdbench.method.composition import Composition
from kdbench.method.specs import build_part
from kdbench.report.notes import footnotes
from kdbench.runner.frame import load_results
from kdbench.spec.recipe import Augmentation
from kdbench.spec.trial import TrialSpec
from kdbench.streams import generator
from kdbench.training.balance import imbalance
from kdbench.training.divergence import what_to_try
from kdbench.training.inputs import StepInputs
from kdbench.training.segments import STAGES, segments
from kdbench.training.single import Single


@pytest.mark.parametrize("name", ["kd", "at", "sp", "dist", "ab"])
def test_ratios_are_those_of_losses_and_of_gradient_norms(name: str) -> None:
    """By hand, on a copy of the student. AB gives the cross-entropy no weight, and is held against it all the same."""
    setting = Setting(name, "resnet8", "resnet14")
    lane = setting.lane(epochs=1)
    images, labels, indices = setting.builder.training_data(Augmentation(pad=1)).batch(
        epoch_plan(24, Augmentation(pad=1), generator(0)), 0, 24
    )
    teacher = setting.frozen_teacher(images)
    inputs = StepInputs(images, labels, indices, teacher=teacher)
    unit = Single(lane)
    while lane.position and lane.position.phase == 0:
        lane.begin_epoch()
        unit.train_step(inputs)
        lane.sum_up(data_s=0.0, teacher_s=0.0, startup_s=0.0)
        lane.end_epoch()
    lane.begin_epoch()
    assert lane.student is not None
    student, method = copy.deepcopy(lane.student), copy.deepcopy(lane.method)
    outputs = student(images)
    ce = (method.ce_weight or 1.0) * F.cross_entropy(outputs.logits, labels)
    transfer = sum(method.losses(outputs, teacher, lane.batch(inputs)).values())
    assert isinstance(transfer, torch.Tensor)

    def norm(loss: torch.Tensor) -> float:
        gradients = torch.autograd.grad(loss, list(student.parameters()), retain_graph=True, allow_unused=True)
        return float(torch.stack([g.double().square().sum() for g in gradients if g is not None]).sum().sqrt())

    unit.train_step(inputs)
    lane.sum_up(data_s=0.0, teacher_s=0.0, startup_s=0.0)
    assert lane._row["loss_ratio"] == pytest.approx(float((transfer / ce).detach()), rel=1e-5)
    assert lane._row["gradient_ratio"] == pytest.approx(norm(transfer) / norm(ce), rel=1e-3)
    wrong = (method.predict(outputs).argmax(1) != labels).double().mean()
    assert lane._row["train_error_pct"] == pytest.approx(100 * float(wrong))


def test_a_method_without_terms_has_no_ratio(lab: Lab) -> None:
    suite = lab.suite(methods=["scratch"])
    lab.run(suite)
    assert not {"loss_ratio", "gradient_ratio"} & lab.curves(suite.trials[0])[0].keys()


def composed(lab: Lab, method: Any, *, classes: int = CLASSES) -> tuple[TrialSpec, Composition]:
    """A trial with this method of a suite, and the method as it trains."""
    trial = lab.suite(methods=[method]).trials[0]
    points = [replace(outputs(4, seed=seed), logits=torch.zeros(4, classes)) for seed in (0, 1)]
    return trial, Composition({spec.name: build_part(spec, pair(*points)) for spec in trial.methods})


def told(lab: Lab, method: Any, row: dict[str, Any], *, classes: int = CLASSES) -> str | None:
    """What is said of a row of a trial with this method of a suite."""
    return imbalance(*composed(lab, method, classes=classes), {"epoch": 2, **row})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"loss_ratio": 0.005}, "0.005 times the cross-entropy in loss; raise sp.beta (now 7)."),
        ({"loss_ratio": 101.0}, "101 times the cross-entropy in loss; lower sp.beta (now 7)."),
        (
            {"loss_ratio": 0.009, "gradient_ratio": 101.0},
            "0.009 times the cross-entropy in loss and 101 times the cross-entropy in gradient; change sp.beta (now 7).",
        ),
        ({"loss_ratio": 0.01, "gradient_ratio": 100.0}, None),
        ({"loss_ratio": 101.0, "train_error_pct": 5.0}, "101 times the cross-entropy in loss; lower sp.beta (now 7)."),
        ({"loss_ratio": 101.0, "train_error_pct": 4.9}, None),  # of labels that are learnt there is no loss left
        ({"loss_ratio": 0.005, "train_error_pct": 4.9}, "0.005 times the cross-entropy in loss; raise sp.beta (now 7)."),
        ({"gradient_ratio": None}, None),
        ({}, None),
    ],
)
def test_a_weight_that_is_far_off_is_told_with_the_method_the_pair_and_the_parameter(
    row: dict[str, Any], said: str | None, lab: Lab
) -> None:
    start = "warning: sp (beta=7), wrn_10_1 -> resnet8, epoch 2: the transfer terms are "
    assert told(lab, {"sp": {"beta": 7}}, row) == (said and start + said)


SUM = {"terms": {"rkd.distance": 5.0, "rkd.angle": 10.0, "kd.divergence": 0.1, "cross_entropy": 0.1}, "loss_ratio": 151.0}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (SUM, "of rkd are 150 times the cross-entropy in loss; lower rkd.distance_weight (now 25), rkd.angle_weight (now 50)."),
        (
            {"gradient_ratio": 120.0},
            "of rkd and kd together are 120 times the cross-entropy in gradient; lower rkd.distance_weight (now 25), "
            "rkd.angle_weight (now 50), kd.alpha (now 0.9).",
        ),
        (
            {**SUM, "gradient_ratio": 300.0},
            "of rkd are 150 times the cross-entropy in loss, and those of rkd and kd together are 300 times the cross-entropy in "
            "gradient; lower rkd.distance_weight (now 25), rkd.angle_weight (now 50).",
        ),
        (
            {**SUM, "gradient_ratio": 0.003},
            "of rkd are 150 times the cross-entropy in loss, and those of rkd and kd together are 0.003 times the cross-entropy in "
            "gradient; change rkd.distance_weight (now 25), rkd.angle_weight (now 50), kd.alpha (now 0.9).",
        ),
    ],
)
def test_of_a_sum_it_is_told_which_part_is_out_of_balance(row: dict[str, Any], said: str, lab: Lab) -> None:
    assert told(lab, "rkd+kd", row) == f"warning: rkd+kd, wrn_10_1 -> resnet8, epoch 2: the transfer terms {said}"


class Once(torch.autograd.Function):
    """Lets go of what its gradient needs when that is asked for."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.kept = torch.ones_like(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        kept, ctx.kept = ctx.kept, None
        return gradient * kept


class OnceBackward(Method):
    """Its term cannot go backward twice."""

    reads = ("logits",)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"gap": F.mse_loss(Once.apply(student.logits), teacher.logits)}


def test_a_term_that_cannot_go_backward_twice_trains_in_a_sum_as_well(lab: Lab, register: Callable[..., None]) -> None:
    register("once_backward", OnceBackward)
    suite = lab.suite(methods=["once_backward+kd"])
    lab.run(suite)
    assert lab.record(suite.trials[0]).reason is None
    for row in lab.curves(suite.trials[0]):
        assert "gradient_ratio" in row


@pytest.mark.parametrize("row", [{"loss_ratio": 0.0, "gradient_ratio": 0.0}, {"loss_ratio": 0.5, "gradient_ratio": 0.0}])
def test_no_weight_mends_a_term_that_does_not_reach_the_student(row: dict[str, Any], lab: Lab) -> None:
    """Without a loss in the first of several epochs it may be a warm-up."""
    said = (
        "warning: sp, wrn_10_1 -> resnet8, epoch {}: no transfer term reaches the student: it is detached, its weight is 0, "
        "or a warm-up is too long."
    )
    assert told(lab, "sp", row) == said.format(2)
    assert told(lab, "sp", {"epoch": 1, **row}) == (said.format(1) if row["loss_ratio"] else None)


@pytest.mark.parametrize("method", ["reviewkd", "crd", {"sp+dkd": {"sp": {"beta": 0}}}])
def test_a_method_that_may_begin_without_effect_has_a_second_epoch(method: Any, lab: Lab) -> None:
    """By a warm-up, or as a memory bank is still empty."""
    row = {"loss_ratio": 0.5, "gradient_ratio": 0.0}
    assert told(lab, method, {"epoch": 1, **row}) is None
    assert "no transfer term reaches the student" in str(told(lab, method, row))


class TeacherAlone(Method):
    """Its term does not read the student, and no parameter weighs it."""

    reads = ("logits",)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"square": teacher.logits.square().mean()}


def test_where_no_parameter_weighs_the_part_that_is_meant_no_other_one_is_named(lab: Lab, register: Callable[..., None]) -> None:
    register("teacher_alone", TeacherAlone)
    row = {"terms": {"teacher_alone.square": 15.0, "kd.divergence": 0.1, "cross_entropy": 0.1}, "loss_ratio": 151.0}
    assert str(told(lab, "teacher_alone+kd", row)).endswith(
        "of teacher_alone are 150 times the cross-entropy in loss; lower the weight of its terms."
    )


class ByLayer(Method):
    """A weight is a list."""

    weights = ("betas",)

    class Params(MethodParams):
        betas: tuple[float, ...] = (300.0, 1e-3)

    params: Params

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"size": self.params.betas[0] * student.logits.square().mean()}


def test_a_weight_may_be_a_list(lab: Lab, register: Callable[..., None]) -> None:
    register("by_layer", ByLayer)
    said = "by_layer.betas (now (300.0, 0.001))"
    assert str(told(lab, "by_layer", {"loss_ratio": 300.0})).endswith(f"; lower {said}.")
    trial, made = composed(lab, "by_layer")
    (main,) = segments(made, torch.nn.Linear(1, 1), trial.recipe)
    assert what_to_try(made, main).startswith(f"lower the learning rate or {said}")


class AllDetached(TeacherAlone):
    """And it has no cross-entropy."""

    def build(self, pair: Pair) -> None:
        self.ce_weight = 0.0


@pytest.mark.parametrize("recipe", [{"epochs": 1, "schedule": {"milestones": []}}, {"epochs": 2}])
def test_a_method_that_ignores_the_student_is_told_of_in_its_first_epoch(
    recipe: dict[str, Any], lab: Lab, register: Callable[[str, type[Method]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    register("teacher_alone", TeacherAlone)
    register("all_detached", AllDetached)
    suite = lab.suite(methods=["teacher_alone", "all_detached"], recipe=recipe)
    lab.run(suite)
    found = "no transfer term reaches the student: it is detached, its weight is 0, or a warm-up is too long"
    (warning,) = [text for text in said if "no transfer term" in text]
    assert warning == f"warning: teacher_alone, wrn_10_1 -> resnet8, epoch 1: {found}."
    alone, detached = map(lab.record, suite.trials)
    fact = found.partition(":")[0]
    assert [note for note in alone.notes if "transfer" in note] == [f"teacher_alone: in some epoch, {fact}"]
    assert "the loss of main depends on nothing that learns. Do not detach the student's outputs" in str(detached.reason)


UNREACHED = {"loss_ratio": 0.0, "gradient_ratio": 0.0}


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"ab": {"ce_weight": 1, "kd_weight": 0}}, None),  # all of it happens in the stage before
        ({"ab+kd": {"ce": 1, "ab": {"kd_weight": 0}, "kd": {"alpha": 0}}}, None),
        ({"kd": {"alpha": 0}}, "nothing is transferred: kd.alpha = 0."),
        ({"at+kd": {"at": {"beta": 0}, "kd": {"alpha": 0}}}, "nothing is transferred: at.beta = 0, kd.alpha = 0."),
        ({"at+kd": {"at": {"beta": 0}}}, "no transfer term reaches the student: it is detached, its weight is 0, or a warm-up is"),
    ],
)
def test_a_weight_that_is_0_on_purpose_is_no_mistake_after_a_stage(method: Any, said: str | None, lab: Lab) -> None:
    found = told(lab, method, UNREACHED)
    assert (found is None) if said is None else said in (found or "")


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("kd_standardized", None),
        ("dkd", "raise dkd.alpha (now 1)."),
        ("dist", "raise dist.gamma (now 2)."),
        ("kd_standardized+dkd", "raise dkd.alpha (now 1)."),
    ],
)
def test_no_weight_is_advised_of_a_term_that_two_classes_leave_nothing_of(method: str, said: str | None, lab: Lab) -> None:
    found = told(lab, method, {"loss_ratio": 0.005}, classes=2)
    assert found is None if said is None else str(found).endswith(said)
    assert method != "kd_standardized" or told(lab, method, UNREACHED, classes=2) is None


def test_a_run_says_it_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: said.append(text))
    lab.run(lab.suite(methods=[{"sp": {"beta": 1e-6}}, "kd"]))
    assert [text.split(",")[0] for text in said if "cross-entropy in" in text] == ["warning: sp (beta=1e-06)"]


def test_a_record_notes_it_and_its_report_says_so_once_for_all_seeds(lab: Lab) -> None:
    suite = lab.suite(methods=[{"sp": {"beta": 1e-6}}, "kd"], seeds=[0, 1])
    lab.run(suite)
    found = load_results(lab.store.root)
    both = "under 0.01 times the cross-entropy in loss and under 0.01 times the cross-entropy in gradient"
    said = f"in some epoch, the transfer terms are {both}"
    notes = [note for note in footnotes(found) if "cross-entropy in" in note]
    assert notes == [f"SP (wrn_10_1 → resnet8): {said}."]
    assert not [note for trial in suite.trials if trial.method == "kd" for note in lab.record(trial).notes if "cross" in note]


@pytest.mark.parametrize(
    ("method", "terms", "changes", "said"),
    [
        ("scratch", ["cross_entropy"], {}, "lower the learning rate, or set `gradient_clipping` in the recipe"),
        ("scratch", ["cross_entropy"], {"gradient_clipping": 1.0}, "lower the learning rate"),
        (
            *("rkd+kd", ["kd.divergence", "cross_entropy"], {}),
            "lower the learning rate or kd.alpha (now 0.9), or set `gradient_clipping` in the recipe",
        ),
        ("sp+kd", [], {"gradient_clipping": 1.0}, "lower the learning rate or sp.beta (now 3000), kd.alpha (now 0.9)"),
        ({"sp": {"beta": 0}}, [], {"gradient_clipping": 1.0}, "lower the learning rate"),
        ("ft", ["reconstruction"], {"phase": STAGES}, "lower the learning rate of this stage"),
    ],
)
def test_what_to_try_where_a_training_diverges(method: Any, terms: list[str], changes: dict[str, Any], said: str, lab: Lab) -> None:
    trial, made = composed(lab, method)
    (*_, main) = segments(made, torch.nn.Linear(1, 1), trial.recipe)
    assert what_to_try(made, replace(main, **changes), terms) == said
