"""5. The teacher is frozen: its parameters and its batch-norm buffers stay bitwise as they were."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import MIXED, TEST_IMAGES, Lab
from torch import Tensor, nn

from invariants.everything import Everything
from invariants.odd_methods import Careless, WithDropout
from invariants.probes import give_teacher, statuses
from kdbench import Batch, Losses, Outputs
from kdbench.runner.plan import Rerun
from kdbench.training.frozen_teacher import FrozenTeacher


def test_the_teacher_is_in_evaluation_mode_and_passed_once_for_all_lanes(
    lab: Lab, undisturbed: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    original = FrozenTeacher.__call__

    def call(teacher: FrozenTeacher, images: Tensor) -> Outputs:
        assert not any(module.training for module in teacher.network.modules())
        assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
        outputs = original(teacher, images)
        assert not any(tensor.requires_grad for tensor in (outputs.logits, outputs.pooled, *outputs.features))
        passes.append(len(images))
        return outputs

    answers: list[int] = []
    of_teacher = FrozenTeacher.logits

    def logits(teacher: FrozenTeacher, images: Tensor) -> Tensor:
        answers.append(len(images))
        return of_teacher(teacher, images)

    monkeypatch.setattr(FrozenTeacher, "__call__", call)
    monkeypatch.setattr(FrozenTeacher, "logits", logits)
    suite = lab.suite(methods=["scratch", "kd", "at", "rkd", "at+kd"], **{key: MIXED[key] for key in ("recipe", "teacher")})
    give_teacher(lab, undisturbed, suite)
    for lanes, groups in ((0, 1), (1, 4)):
        lab.run(suite, rerun=Rerun.ALL, lanes=lanes)
        assert passes[:4] == [TEST_IMAGES] * 4  # its test error, and whether it draws
        assert passes[4:] == [32, 32, 8] * 3 * groups, "once for each batch of a group that reads it, never for `scratch` alone"
        assert answers[1:] == [TEST_IMAGES] * groups, "once for each test batch of a group, when its students are tested last"
        answers.clear()
        passes.clear()


def test_the_teacher_is_bitwise_the_same_after_all_methods(everything: Everything) -> None:
    (teacher,) = everything.suite.teachers
    fresh = Lab(everything.lab.root / "fresh", everything.lab.images)
    fresh.root.mkdir()
    fresh.run(fresh.suite(methods=["kd"]))
    assert fresh.outcomes()[teacher.id] == everything.lab.outcomes()[teacher.id]
    weights = [lab.file(teacher, "weights.safetensors").read_bytes() for lab in (fresh, everything.lab)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("part", ["classifier.bias", "norm.running_mean"])
def test_a_teacher_that_was_changed_is_noticed_before_anything_is_recorded(
    part: str, lab: Lab, undisturbed: Lab, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[nn.Module] = []
    original = FrozenTeacher.__init__

    def init(teacher: FrozenTeacher, network: nn.Module, **options: Any) -> None:
        original(teacher, network, **options)
        networks.append(network)

    class Poisoner(Careless):
        def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
            networks[-1].state_dict()[part].add_(1e-6)
            return {}

    monkeypatch.setattr(FrozenTeacher, "__init__", init)
    register("poisoner", Poisoner)
    suite = lab.suite(methods=["poisoner", "kd"], **{key: MIXED[key] for key in ("recipe", "teacher")})
    give_teacher(lab, undisturbed, suite)
    with pytest.raises(AssertionError, match="teacher was changed"):
        lab.run(suite)
    assert set(statuses(lab, suite).values()) <= {"missing", "started"}


class WithAMixer(WithDropout):
    """A network with random numbers that no state holds."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels)
        self.register_buffer("mixer", torch.randn(num_classes, num_classes), persistent=False)

    def forward(self, images: Tensor) -> Outputs:
        out = self.body(images)
        return Outputs(out.logits @ self.mixer, out.stem, out.features, out.preactivations, out.pooled)


def test_a_teacher_is_restored_with_what_no_state_holds(lab: Lab, register_network: Callable[..., None]) -> None:
    register_network("mixed", WithAMixer)
    suite = lab.suite(methods=["kd"], pairs=[{"teacher": "mixed", "student": "resnet8"}])
    lab.run(suite)
    assert lab.record(suite.trials[0]).teacher_error_pct == lab.record(suite.teachers[0]).test_error_pct
