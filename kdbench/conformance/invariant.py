"""Checks of what must be the same, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kdbench.conformance.setting import copied, evaluated, expect, fingerprint
from kdbench.conformance.subject import Subject
from kdbench.training.segments import STAGES


def untouched(subject: Subject) -> None:
    """The teacher's outputs, its weights and the batch stay as they are.

    Why: All methods of a seed share one pass of the teacher and one batch.

    Fix: Use operations that are not in place, or `clone` first.
    """
    method = subject.usual.method()
    student, teacher, batch = subject.usual.example()
    shared = {"the teacher's outputs": teacher.tensors(), "the batch": (batch.images, batch.labels, batch.indices)}
    before = {name: [value.clone() for value in values] for name, values in shared.items()}
    evaluated(method, student, teacher, batch)
    for name, values in shared.items():
        same = all(value.equal(old) for value, old in zip(values, before[name], strict=True))
        expect(same, f"it changes {name}, which other methods share. Use operations that are not in place, or clone first.")
    assert subject.alone, "the training after which the teacher is looked at"
    subject.usual.frozen.assert_unchanged()


def repeatable(subject: Subject) -> None:
    """The same seed gives the same weights.

    Why: A record must be reproducible.

    Fix: Draw random numbers from `batch.generator` alone, and keep nothing outside the instance.
    """
    lane = subject.usual.lane()
    subject.usual.train(lane)
    expect(
        fingerprint(lane) == subject.alone,
        "two trainings of one seed differ. Draw from batch.generator, and keep nothing outside the instance.",
    )


def resumable(subject: Subject) -> None:
    """Interrupted after any epoch, it ends with the weights of the uninterrupted training.

    Why: A run that is stopped and continued must give the same record.

    Fix: Keep what outlives a step in buffers: `self.register_buffer(...)`.
    """
    states: list[dict[str, Any]] = []
    subject.usual.train(subject.usual.lane(checkpoint=lambda state: states.append(copied(state))))
    for state in states:
        lane = subject.usual.lane()
        lane.restore(state)
        assert lane.position, "a checkpoint is written where training goes on"
        where = f"epoch {lane.position.epoch} of {'the stages' if lane.position.phase == STAGES else 'the main training'}"
        subject.usual.train(lane)
        expect(
            fingerprint(lane) == subject.alone,
            f"taken up again in {where}, it ends elsewhere. Keep in buffers what must outlive a step: self.register_buffer(...).",
        )


def alone_or_beside(subject: Subject) -> None:
    """Beside other methods it learns what it learns alone.

    Why: A result must not depend on which other methods run beside it.

    Fix: Keep nothing in the class or in the module.
    """
    setting = subject.usual
    ours, twin, other = setting.lane(), setting.lane(seed=1), replace(setting, name="kd").lane()
    setting.train(twin, ours, other)
    expect(
        fingerprint(ours) == subject.alone,
        "beside another instance of itself it learns something else. Keep nothing in the class or the module.",
    )
