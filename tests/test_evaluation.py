"""An evaluation tells a network that answers in numbers from one that does not, changes nothing, and comes out the same again."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import MIXED, TEST_IMAGES, TRAIN_IMAGES, Lab, Rehearsed
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdbench import Batch, KdbenchError, Losses, Method, MethodParams, Outputs, Pair, Stage
from kdbench.models import Network, build_model
from kdbench.models.measure import macs
from kdbench.models.weights import state_hash
from kdbench.runner.plan import Rerun

NAN, INFINITY = float("nan"), float("inf")


class Wrapped(Network):
    """resnet8 whose logits go through `change`."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = build_model("resnet8", num_classes=num_classes, in_channels=in_channels)
        self.classifier = self.body.classifier
        self.build(num_classes)

    def build(self, num_classes: int) -> None:
        return

    def forward(self, images: Tensor) -> Outputs:
        out = self.body(images)
        return Outputs(self.change(out.logits), out.stem, out.features, out.preactivations, out.pooled)

    def change(self, logits: Tensor) -> Tensor:
        return logits

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.body.group_norms()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a run says."""
    lines: list[str] = []
    monkeypatch.setattr("kdbench.runner.progress.Silent.say", lambda self, text: lines.append(text))
    return lines


# Weights and answers that are not finite


def rooted(tensor: Tensor) -> Tensor:
    """0, whose gradient is NaN."""
    return (tensor - tensor.detach()).square().sum().sqrt()


class Breaks(Method):
    """Has finite losses, and breaks what `part` names."""

    reads = ("logits",)
    teacher_stages = {"lesson": ("part",)}

    class Params(MethodParams):
        part: str = "nothing"

    def build(self, pair: Pair) -> None:
        self.lesson_adapter, self.hint_adapter, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.register_buffer("mask", torch.tensor([0.0, -INFINITY, INFINITY]))

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("lesson", 1, self.lesson, (self.lesson_adapter,), trains_student=False),
            Stage("hint", 1, self.hint, (self.hint_adapter,), trains_student=True),
        )

    def broken(self, part: str, batch: Batch, tensor: Tensor) -> Tensor:
        """A term that breaks what learns `tensor`, in the last of three batches."""
        return rooted(tensor) if self.params.part == part and len(batch.labels) == 8 else 0 * tensor.sum()

    def lesson(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"lesson": self.broken("lesson", batch, self.lesson_adapter(teacher.logits))}

    def hint(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"hint": self.broken("hint", batch, self.hint_adapter(student.logits))}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        if self.params.part == "head":
            self.head.running_var.fill_(INFINITY)  # then all logits are the bias, and finite
        return {"student": self.broken("student", batch, student.pooled) if batch.epoch else 0 * student.pooled.sum()}

    def predict(self, student: Outputs) -> Tensor:
        return self.head(student.logits) if self.params.part == "head" else student.logits


class Remembers(Method):
    """Keeps what is rightly infinite, such as the logarithm of how often it has seen a class."""

    seen: Tensor

    def build(self, pair: Pair) -> None:
        self.register_buffer("seen", torch.zeros(3))

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        self.seen[0] = -INFINITY
        return {}


BROKEN = {
    "nothing": None,
    "lesson": "RuntimeError: stage breaks.lesson failed: not finite after epoch 1 of stage breaks.lesson: "
    "lesson_adapter.weight of breaks (9 of 9 values) and 1 more",
    "hint": "not finite after epoch 1 of stage breaks.hint: ",
    "student": "not finite after epoch 2 of stage main: stem.conv.weight of the student (144 of 144 values) and 26 more",
    "head": "not finite after epoch 1 of stage main: head.running_var of breaks (3 of 3 values)",
}
"""What `Breaks` breaks, and the reason that its record must give."""


def test_a_training_that_leaves_what_is_not_finite_fails_and_masks_may_hold_infinity(
    lab: Lab, register: Callable[..., None]
) -> None:
    register("breaks", Breaks)
    register("remembers", Remembers)
    suite = lab.suite(methods=[*({"breaks": {"part": part}} for part in BROKEN), "remembers"])
    lab.run(suite)
    for trial in suite.trials:
        record = lab.record(trial)
        expected = BROKEN[trial.methods[0].params["part"]] if trial.method == "breaks" else None
        assert record.status == ("failed" if expected else "done"), record
        assert (record.reason or "").startswith(expected or ""), record.reason
        assert bool(record.reason) == bool(expected), record.reason


class Mute(Wrapped):
    """Answers with NaN in evaluation where there are as many images as `images` says, to the first of them."""

    images = TEST_IMAGES

    def build(self, num_classes: int) -> None:
        self.register_buffer("mask", torch.full((num_classes,), -INFINITY))

    def change(self, logits: Tensor) -> Tensor:
        silent = not self.training and len(logits) == self.images
        return torch.cat((self.mask[None] * 0, logits[1:])) if silent else logits


class MuteInValidation(Mute):
    images = TRAIN_IMAGES // 4


class Flat(Wrapped):
    """Has a running scale, which becomes infinite in its second epoch: all its logits are 0, and finite."""

    def build(self, num_classes: int) -> None:
        self.register_buffer("scale", torch.ones(()))

    def change(self, logits: Tensor) -> Tensor:
        if self.training:
            self.scale *= 1e10
        return logits / self.scale


NOT_FINITE = {
    Wrapped: None,
    Mute: "the logits of 1 of 30 test images are not finite after epoch 1 of stage main",
    MuteInValidation: "the logits of 1 of 18 validation images are not finite after epoch 1 of stage main",
    Flat: "not finite after epoch 2 of stage main: scale of the student (1 of 1 values)",
}


def test_a_network_that_does_not_answer_in_numbers_fails(lab: Lab, register_network: Callable[..., None]) -> None:
    """Each in the first evaluation that shows it; what follows from it is no student's result."""
    for network in NOT_FINITE:
        register_network(network.__name__, network)
    pairs = [{"teacher": "resnet8", "student": network.__name__} for network in NOT_FINITE]
    suite = lab.suite(pairs=pairs, methods=["scratch"], dataset={"validation": 0.25})
    lab.run(suite)
    found = {trial.student: lab.record(trial) for trial in suite.trials}
    for network, reason in NOT_FINITE.items():
        record = found[network.__name__]
        advised = reason and f"{reason}; lower the learning rate, or set `gradient_clipping` in the recipe"
        assert (record.status, record.reason) == ("failed" if reason else "done", advised)
    assert [len(lab.curves(trial)) for trial in suite.trials] == [2, 0, 0, 1]


def test_students_of_a_teacher_that_does_not_answer_in_numbers_are_left(
    lab: Lab, register_network: Callable[..., None], said: list[str]
) -> None:
    """Of one that is trained here, and of one that is used as it is."""
    register_network("mute", Mute)
    torch.manual_seed(0)
    torch.save(Mute(num_classes=3, in_channels=1).state_dict(), lab.root / "mute.pth")
    pairs = [{"teacher": teacher, "student": "resnet8"} for teacher in ("mute", {"model": "mute", "weights": "mute.pth"})]
    suite = lab.suite(pairs=pairs)
    lab.run(suite)
    assert {lab.record(teacher).status for teacher in suite.teachers} == {"failed"}
    assert "NotFinite: the logits of 1 of 30 test images are not finite" in [lab.record(t).reason for t in suite.teachers]
    assert {trial.method: lab.file(trial).exists() for trial in suite.trials} == {"scratch": True, "kd": False}


@pytest.mark.parametrize(
    ("name", "value"), [("classifier.bias", NAN), ("stem.norm.running_var", NAN), ("stem.norm.running_var", INFINITY)]
)
def test_weights_of_a_training_that_diverged_are_refused_before_anything_starts(name: str, value: float, lab: Lab) -> None:
    """Statistics of batch norms count; a mask may hold infinity, as that of `Mute` does."""
    state = build_model("resnet8", num_classes=3, in_channels=1).state_dict()
    state[name][1] = value
    torch.save(state, lab.root / "diverged.pth")
    for pair in (
        {"teacher": {"model": "resnet8", "weights": "diverged.pth"}, "student": "resnet8"},
        {"teacher": "resnet8", "student": {"model": "resnet8", "weights": "diverged.pth"}},
    ):
        with pytest.raises(
            KdbenchError,
            match=f"diverged.pth of resnet8: the weights hold NaN or infinity: {name} of the network \\(1 of .* values\\)\\. Give",
        ):
            lab.run(lab.suite(pairs=[pair]))
    assert not list(lab.store.root.glob("trials/*"))


def test_nothing_is_learnt_from_a_teacher_of_an_earlier_version_that_is_not_finite(finished: Lab, said: list[str]) -> None:
    """Its record says that it is done."""
    suite = finished.suite(**{**MIXED, "methods": ["scratch", "kd"]})
    file = finished.file(suite.teachers[0], "weights.safetensors")
    state = {name: value * NAN if name == "classifier.bias" else value for name, value in load_file(file).items()}
    save_file(state, file)
    record = json.loads(finished.file(suite.teachers[0]).read_text())
    finished.file(suite.teachers[0]).write_text(json.dumps({**record, "weights_sha256": state_hash(state)}))
    finished.run(suite, rerun=Rerun.ALL)
    assert {planned.spec.method: planned.status.value for planned in finished.plan(suite).students} == {
        "scratch": "done",
        "kd": "missing",
    }
    (told,) = [line for line in said if line.startswith("nothing can be learnt from the teacher wrn_10_1: ")]
    assert "classifier.bias of the network (3 of 3 values)" in told


# Evaluations are functions of the network and of the images


class Draws(Wrapped):
    """Has a functional dropout that is never off."""

    def change(self, logits: Tensor) -> Tensor:
        return nn.functional.dropout(logits, 0.3)


def test_a_network_that_draws_in_evaluation_comes_to_the_same_end_and_its_students_say_so(
    lab: Lab,
    another: Lab,
    register_network: Callable[..., None],
    one_epoch_a_run: dict[str, Any],
    said: list[str],
    request: pytest.FixtureRequest,
) -> None:
    """In another process, which the state of the streams stands for, stopped after every epoch, alone, and with graphs."""
    register_network("draws", Draws)
    pairs = [{"teacher": "draws", "student": student} for student in ("resnet8", "draws")]
    changes = {"pairs": pairs, "recipe": {"batch_size": 24}}
    suite = lab.suite(methods=["scratch", "kd", "at"], **changes)
    lab.run(suite)
    note = "the teacher draws: it draws at random in evaluation, so that students learn from noise"
    assert [line for line in said if note in line]
    for trial in suite.trials:
        record = lab.record(trial)
        assert any(found.startswith(note) for found in record.notes) == (trial.method != "scratch")
        if trial.teacher:
            assert record.teacher_error_pct == lab.record(trial.teacher).test_error_pct, "one network, one error"
            assert record.teacher_norms_folded == 9, "folding is tried out under one and the same draw"
    alone = another.suite(methods=["kd"], **changes)
    for stopped in range(8):
        torch.manual_seed(stopped)
        another.run(alone, **one_epoch_a_run)
    assert another.outcomes() == lab.outcomes(alone)
    request.getfixturevalue("rehearsed")
    lab.run(alone, rerun=Rerun.ALL)
    assert lab.outcomes(alone) == another.outcomes()
    assert Rehearsed.made == 1, "of the student that draws nothing, and none of the teacher"


class Skips(Wrapped):
    """Leaves out a layer at random."""

    def build(self, num_classes: int) -> None:
        self.layer = nn.Linear(num_classes, num_classes)

    def change(self, logits: Tensor) -> Tensor:
        return self.layer(logits) if random.random() < 0.5 else logits


def test_the_work_of_a_network_that_leaves_out_layers_at_random_is_one_number() -> None:
    network = Skips(num_classes=3, in_channels=1)
    assert len({macs(network, (1, 8, 8)) for _ in range(12)}) == 1


class Counts(Wrapped):
    """Counts its passes in evaluation in a buffer, and answers by it."""

    def build(self, num_classes: int) -> None:
        self.register_buffer("passes", torch.ones(()))

    def change(self, logits: Tensor) -> Tensor:
        if not self.training:
            self.passes = self.passes * 1.5
        return logits + (self.passes - 1) * torch.arange(logits.shape[1], device=logits.device)


class NeverOff(Wrapped):
    """Has a batch norm that learns in evaluation, as where `F.batch_norm` is not told of it."""

    def build(self, num_classes: int) -> None:
        self.norm = nn.BatchNorm1d(num_classes)

    def change(self, logits: Tensor) -> Tensor:
        norm = self.norm
        return nn.functional.batch_norm(logits, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=True)


class OfItsOwn(Wrapped):
    """Draws from a generator that nobody can seed."""

    def build(self, num_classes: int) -> None:
        self.generator = torch.Generator()

    def change(self, logits: Tensor) -> Tensor:
        return logits if self.training else logits + torch.randn(logits.shape, generator=self.generator)


@pytest.mark.parametrize("network", [Counts, NeverOff])
def test_an_evaluation_changes_nothing(network: type[Network], lab: Lab, register_network: Callable[..., None]) -> None:
    """A student learns the same, and errs the same in the end, however often it was evaluated before."""
    register_network("odd", network)
    ends = []
    for every, held_out in ((1, 0.25), (2, 0.25)):
        suite = lab.suite(
            pairs=[{"teacher": "resnet8", "student": "odd"}],
            methods=["scratch"],
            recipe={"evaluate_every": every},
            dataset={"validation": held_out},
        )
        lab.run(suite)
        record = lab.record(suite.trials[0])
        ends.append((record.weights_sha256, record.test_error_pct, record.validation_error_pct))
    assert ends[0] == ends[1]


class FailsInHalf(Wrapped):
    """Raises in bfloat16 in evaluation."""

    def change(self, logits: Tensor) -> Tensor:
        if logits.dtype == torch.bfloat16 and not self.training:
            raise RuntimeError('"something" is not implemented for BFloat16')
        return logits


UNFIT: dict[type[Network], str] = {
    Counts: "its answers depend on what it was shown before",
    NeverOff: "its answers depend on what it was shown before",
    OfItsOwn: "its answers depend on what it was shown before",
    FailsInHalf: '"something" is not implemented for BFloat16',
}
"""Networks that train, and why nothing can be learnt from them."""


def test_nothing_is_learnt_from_a_teacher_whose_answers_are_no_function_of_the_images(
    lab: Lab, register_network: Callable[..., None], said: list[str]
) -> None:
    for network in UNFIT:
        register_network(network.__name__, network)
    pairs = [{"teacher": network.__name__, "student": "resnet8"} for network in UNFIT]
    suite = lab.suite(pairs=pairs, recipe={"precision": "bf16"}, teacher={"recipe": {"precision": "fp32"}})
    lab.run(suite)
    assert {trial.method: lab.file(trial).exists() for trial in suite.trials} == {"scratch": True, "kd": False}
    for network, reason in UNFIT.items():
        told = f"nothing can be learnt from the teacher {network.__name__}: {reason}"
        assert [line for line in said if line.startswith(told)], network


class Watches(Method):
    """Compares with a network that it has put into evaluation mode, and has a head that learns."""

    def build(self, pair: Pair) -> None:
        self.other = build_model("resnet8", num_classes=3, in_channels=1).eval().requires_grad_(False)
        self.learner = build_model("resnet8", num_classes=3, in_channels=1).eval()

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        assert not any(module.training for module in self.other.modules())
        assert all(module.training for module in self.learner.modules())
        gap = student.logits - self.other(batch.images).logits
        return {"gap": gap.square().mean(), "own": self.learner(batch.images).logits.square().mean()}


def test_a_frozen_network_of_a_method_stays_in_evaluation_mode(lab: Lab, register: Callable[..., None]) -> None:
    register("watches", Watches)
    suite = lab.suite(methods=["watches"])
    lab.run(suite)
    assert lab.record(suite.trials[0]).reason is None


class OnlyWhole(Wrapped):
    """Takes in evaluation no fewer images than there are in the test set."""

    def change(self, logits: Tensor) -> Tensor:
        if not self.training and len(logits) < TEST_IMAGES:
            raise RuntimeError("too few images")
        return logits


def test_a_training_is_not_lost_because_its_speed_cannot_be_measured(lab: Lab, register_network: Callable[..., None]) -> None:
    register_network("whole", OnlyWhole)
    suite = lab.suite(pairs=[{"teacher": "resnet8", "student": "whole"}], methods=["scratch"], recipe={"batch_size": 24})
    lab.run(suite)
    record = lab.record(suite.trials[0])
    assert (record.status, record.inference_images_per_s) == ("done", None)
    assert record.notes[-1] == "the speed of inference is not measured: RuntimeError: too few images"
