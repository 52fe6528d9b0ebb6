"""Seconds per epoch of trainings, from those that a results directory has seen. Builds no model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import NamedTuple, TypeVar

from kdbench.runner.timings import StageTiming, Timing
from kdbench.spec.recipe import Recipe
from kdbench.spec.trial import TrialSpec
from kdbench.suite.teacher_stages import TeacherStage

T = TypeVar("T")

FORWARD = 1 / 3
"""Of a training step's arithmetic; the backward pass has about twice as much."""


class Basis(StrEnum):
    """What the estimate of one training rests on."""

    MEASURED = "as measured"
    """Trainings of the same teacher, student and method."""
    SAME_STUDENT = "from the same student"
    """Trainings of the student with another teacher or, failing that, with another method."""
    SCALED = "scaled by MACs"
    """Trainings of other students, with the same method where there are any, in proportion to the networks' arithmetic."""


class Span(NamedTuple):
    """Seconds: the median of what was measured, the least and the most."""

    mid: float
    low: float
    high: float


NOTHING = Span(0.0, 0.0, 0.0)


class Setting(NamedTuple):
    """What two trainings must share for the seconds of one to say something of the other."""

    dataset: str
    image_size: int | None
    arithmetic: str
    batch_size: int


class Rates:
    """Seconds per epoch in one setting: the same images, arithmetic and size of batches."""

    def __init__(self, setting: Setting, timings: Iterable[Timing], macs: Mapping[str, Mapping[str, int]]) -> None:
        timings = list(timings)
        self.timings = [timing for timing in timings if setting_of(timing.spec) == setting]
        self.stages = [found for timing in timings for found in timing.stages if setting_of(found.stage.teacher) == setting]
        self.macs = macs.get(setting.dataset, {})
        self.own = cache(self._own)  # the seeds of a method ask for the same
        self.evaluation = cache(self._evaluation)
        self.data = cache(self._data)
        self.teacher = cache(self._passes)

    def _own(self, student: str, method: str, teachers: tuple[str, ...]) -> tuple[Span, Basis] | None:
        """The student's steps, and what that rests on; None where nothing compares."""
        of_student = [timing for timing in self.timings if _student(timing) == student]
        same = [timing for timing in of_student if timing.spec.method == method]
        exact = [timing for timing in same if taught_by(timing.spec) == teachers]
        if of_student:
            return _span([timing.own_s for timing in exact or same or of_student]), Basis.MEASURED if exact else Basis.SAME_STUDENT
        alike = [timing for timing in self.timings if timing.spec.method == method]
        for timings in (alike, self.timings):
            if found := self._scaled(student, timings, _student, lambda timing: timing.own_s):
                return found, Basis.SCALED
        return None

    def _evaluation(self, student: str) -> Span:
        """The student on the test images."""
        timings = [timing for timing in self.timings if timing.evaluation_s]
        of_student = [timing for timing in timings if timing.spec.student == student]
        return self._scaled(student, of_student or timings, _student, lambda timing: timing.evaluation_s) or NOTHING

    def _data(self) -> Span:
        """The batches."""
        return _span([timing.data_s for timing in self.timings])

    def _passes(self, name: str) -> Span:
        """The teacher's forward passes; from a training step of it, or of another network, where they were never measured."""
        reading = [timing for timing in self.timings if timing.teacher_s and len(timing.spec.teachers) == 1]
        of_teacher = [timing for timing in reading if _teacher(timing) == name]
        itself = [timing for timing in self.timings if _student(timing) == name]
        return (
            self._scaled(name, of_teacher or reading, _teacher, lambda timing: timing.teacher_s)
            or self._scaled(name, itself or self.timings, _student, lambda timing: timing.own_s * FORWARD)
            or NOTHING
        )

    def stage(self, stage: TeacherStage) -> tuple[Span, Span, Basis] | None:
        """A stage of a teacher: its own steps, what stages share, and what that rests on; None where nothing compares."""
        alike = [timing for timing in self.stages if (timing.stage.part, timing.stage.stage) == (stage.part, stage.stage)]
        name = stage.teacher.architecture
        exact = [timing for timing in alike if _taught(timing) == name]
        own = self._scaled(name, exact or alike, _taught, lambda timing: timing.own_s)
        shared = self._scaled(name, exact or alike, _taught, lambda timing: timing.shared_s)
        return (own, shared, Basis.MEASURED if exact else Basis.SCALED) if own and shared else None

    def _scaled(self, name: str, timings: Iterable[T], network: Callable[[T], str], seconds: Callable[[T], float]) -> Span | None:
        """`seconds` of the timings, each in proportion to the MACs of `name` against those of its own `network`."""
        found = [seconds(timing) * ratio for timing in timings if (ratio := self._ratio(name, network(timing)))]
        return _span(found) if found else None

    def _ratio(self, name: str, other: str) -> float | None:
        if name == other:
            return 1.0
        return self.macs[name] / self.macs[other] if name in self.macs and other in self.macs else None


def tests_in_last(recipe: Recipe, epochs: int) -> int:
    """How often a student is tested in the last epochs of its training; stages before the main one have no tests."""
    first = max(recipe.epochs - epochs, 0) + 1
    return sum(map(recipe.evaluates, range(first, recipe.epochs + 1)))


def setting_of(spec: TrialSpec) -> Setting:
    return Setting(spec.dataset.label, spec.dataset.params.get("size"), spec.recipe.arithmetic, spec.recipe.batch_size)


def _student(timing: Timing) -> str:
    return timing.spec.architecture


def taught_by(spec: TrialSpec) -> tuple[str, ...]:
    return tuple(teacher.architecture for teacher in spec.teachers)


def _teacher(timing: Timing) -> str:
    (teacher,) = timing.spec.teachers  # only a method that reads the teacher has seconds of it
    return teacher.architecture


def _taught(timing: StageTiming) -> str:
    return timing.stage.teacher.architecture


def _span(seconds: Sequence[float]) -> Span:
    return Span(statistics.median(seconds), min(seconds), max(seconds))
