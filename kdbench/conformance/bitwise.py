"""Checks of what must be the same, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.setting import Setting, expect, fingerprint
from kdbench.conformance.terms import evaluate_segments
from kdbench.training.segments import STAGES


def untouched(tested: MethodUnderTest) -> None:
    """The teacher's outputs, its weights and the batch stay as they are.

    Why: All methods of a seed share one pass of the teacher and one batch.

    Fix: Use operations that are not in place, or `clone` first.
    """
    method = tested.default_setting.method()
    student, teacher, batch = tested.default_setting.example_inputs()
    shared = {"the teacher's outputs": teacher.tensors(), "the batch": (batch.images, batch.labels, batch.indices)}
    before = {name: [value.clone() for value in values] for name, values in shared.items()}
    evaluate_segments(method, student, teacher, batch)
    for name, values in shared.items():
        same = all(value.equal(old) for value, old in zip(values, before[name], strict=True))
        expect(same, f"it changes {name}, which other methods share. Use operations that are not in place, or clone first.")
    assert tested.undisturbed.fingerprint, "the training after which the teacher is looked at"
    tested.default_setting.frozen_teacher.assert_unchanged()


def repeatable(tested: MethodUnderTest) -> None:
    """The same seed gives the same weights.

    Why: A record must be reproducible.

    Fix: Draw random numbers with `batch.random`, and keep nothing outside the instance.
    """
    lane = tested.default_setting.lane()
    tested.default_setting.train(lane)
    expect(
        fingerprint(lane) == tested.undisturbed.fingerprint,
        "two trainings with the same seed differ. Draw with batch.random, and keep no state outside the instance.",
    )


def resumable(tested: MethodUnderTest) -> None:
    """Interrupted after any epoch, it ends with the weights of the uninterrupted training.

    Why: A run that is stopped and continued must give the same record.

    Fix: Keep what outlives a step in buffers: `self.register_buffer(...)`.
    """
    for state in tested.undisturbed.checkpoints:
        lane = tested.default_setting.lane()
        lane.restore(state)
        assert lane.position, "a checkpoint is written where training goes on"
        where = f"epoch {lane.position.epoch} of {'the stages' if lane.position.phase == STAGES else 'the main training'}"
        tested.default_setting.train(lane)
        expect(
            fingerprint(lane) == tested.undisturbed.fingerprint,
            f"resumed in {where}, it ends with other weights. Keep what must outlive a step in buffers: self.register_buffer(...).",
        )


OTHER = "kd"
"""A method that trains beside the one that is checked."""


@cache
def other_alone(student: str, teacher: str) -> str:
    """The fingerprint of the other method's training without anyone beside it."""
    setting = Setting(OTHER, student, teacher)
    lane = setting.lane()
    setting.train(lane)
    return fingerprint(lane)


def alone_or_beside(tested: MethodUnderTest) -> None:
    """Beside other methods it learns what it learns alone, and so do they.

    Why: A result must not depend on which other methods run beside it.

    Fix: Keep nothing in the class or in the module, and change nothing that belongs to torch or to other methods.
    """
    setting = tested.default_setting
    usual = other_alone(setting.student, setting.teacher)
    ours, twin, other = setting.lane(), setting.lane(seed=1), replace(setting, name=OTHER).lane()
    setting.train(twin, ours, other)
    expect(
        fingerprint(other) == usual,
        f"{OTHER} learns something else when it trains beside it. Change nothing that belongs to torch or to other methods.",
    )
    expect(
        fingerprint(ours) == tested.undisturbed.fingerprint,
        "it learns something else when another instance of it trains beside it. Keep no state in the class or the module.",
    )
