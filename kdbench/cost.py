"""What a plan still costs, in seconds, from the trainings that the results directory has seen. Builds no model."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from kdbench.plan import Plan, Planned, Rerun, Status, cohorts
from kdbench.store import Store
from kdbench.trial import TrialSpec
from kdbench.wording import counted

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


@dataclass(frozen=True)
class Timing:
    """A training that was measured, whole or in part: seconds per epoch of the main training, stages before it spread over those.

    Attributes:
        spec: what was trained.
        device: where.
        own_s: the student's own steps.
        data_s: the batches, which a cohort shares.
        teacher_s: the teacher's forward passes, which a cohort shares; 0 where the method reads none.
        evaluation_s: the student on the test images, once; 0 where it was not tested after the last of these epochs.
        epochs: how many epochs of the main training are over.
    """

    spec: TrialSpec
    device: str
    own_s: float
    data_s: float
    teacher_s: float
    evaluation_s: float
    epochs: int


@dataclass(frozen=True)
class Cost:
    """What remains of a plan on one device, all students of a cohort side by side.

    Attributes:
        device: where the timings come from.
        seconds: for all trainings that `bases` counts, without what compiling takes before the first steps.
        students: how many remain.
        teachers: how many must be trained before them.
        bases: how many of both rest on what.
        measured: how many trainings were measured.
    """

    device: str
    seconds: Span
    students: int
    teachers: int
    bases: Mapping[Basis, int]
    measured: int

    @property
    def unknown(self) -> int:
        """How many trainings `seconds` leaves out, because nothing that compares was measured."""
        return self.students + self.teachers - sum(self.bases.values())


def remaining(plan: Plan) -> list[Planned]:
    """The students that a run would take up, and the teachers that it would train for them."""
    students = plan.todo(Rerun.MISSING)
    needed = plan.teachers_of(students)
    teachers = [planned for planned in needed if Rerun.MISSING.takes_up(planned.status)]
    failed = {planned.spec.id for planned in needed if planned.status is Status.FAILED}
    students = [planned for planned in students if not (planned.spec.teacher and planned.spec.teacher.id in failed)]
    left = {planned.spec.id: planned for planned in (*teachers, *students)}
    return [planned for planned in left.values() if planned.spec.methods]  # without a method nothing is trained


def numbers(left: Sequence[Planned]) -> tuple[int, int]:
    """How many of what remains are students, and how many are teachers of others of it."""
    teachers = {planned.spec.teacher.id for planned in left if planned.spec.teacher}
    of_teachers = sum(planned.spec.id in teachers for planned in left)
    return len(left) - of_teachers, of_teachers


def costs(plan: Plan, store: Store) -> list[Cost]:
    """What remains, by device; empty where nothing remains, or nothing that compares was measured."""
    left = remaining(plan)
    timings = read_timings(store) if left else {}
    by_device: dict[str, dict[str, Timing]] = {}
    for trial, timing in timings.items():
        by_device.setdefault(timing.device, {})[trial] = timing
    found = [_cost(device, left, here, store.macs()) for device, here in by_device.items()]
    return sorted((cost for cost in found if cost.bases), key=lambda cost: -cost.measured)


def read_timings(store: Store) -> dict[str, Timing]:
    """By trial, what each training of the results directory took, those that were interrupted or have failed among them."""
    found = ((file.parent.name, _timing(file)) for file in store.root.glob("trials/*/curves.jsonl"))
    return {trial: timing for trial, timing in found if timing}


def _timing(curves: Path) -> Timing | None:
    record = _json(curves.with_name("record.json"))
    spec, environment = (record.get(name) or _json(curves.with_name(f"{name}.json")) for name in ("spec", "environment"))
    row = _last_row(curves)
    try:
        trial = TrialSpec.model_validate(spec)
        if not trial.methods:
            return None  # a teacher that is used as it is
        took, epochs = (record, trial.recipe.epochs) if record.get("status") == "done" else (row, 1)
        return Timing(
            spec=trial,
            device=environment["device"],
            own_s=(took["train_s"] - took["data_s"] - took["teacher_s"]) / epochs,
            data_s=took["data_s"] / epochs,
            teacher_s=took["teacher_s"] / epochs,
            evaluation_s=row.get("evaluation_s", 0.0),
            epochs=row["epoch"] if row["stage"] == "main" else 0,
        )
    except (ValidationError, KeyError):  # broken, or of a version that had other keys: planning itself names the broken ones
        return None


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _last_row(file: Path) -> dict[str, Any]:
    """The last line alone: a file has hundreds, and a directory hundreds of files."""
    with file.open("rb") as handle:
        handle.seek(max(0, file.stat().st_size - 16384))
        lines = handle.read().splitlines()
    try:
        return dict(json.loads(lines[-1]))
    except (IndexError, ValueError):
        return {}


def _cost(device: str, left: Sequence[Planned], timings: Mapping[str, Timing], macs: Mapping[str, Mapping[str, int]]) -> Cost:
    parts: list[tuple[Span, int]] = []
    bases: Counter[Basis] = Counter()
    epochs: dict[str, int] = {}  # of each training that something compares with
    rates_in = {setting: _Rates(setting, timings.values(), macs) for setting in {_setting(planned.spec) for planned in left}}
    for planned in left:
        spec = planned.spec
        teacher = spec.teacher.student if spec.teacher else ""
        rates = rates_in[_setting(spec)]
        own = rates.own(spec.student, spec.method, teacher)
        if own is None:
            continue
        behind = timings[spec.id].epochs if planned.status is Status.STARTED and spec.id in timings else 0
        epochs[spec.id] = spec.recipe.epochs - behind
        tests = sum(map(spec.recipe.evaluates, range(behind + 1, spec.recipe.epochs + 1)))
        parts += [(own[0], epochs[spec.id]), (rates.evaluation(spec.student), tests)]
        bases[own[1]] += 1
    teachers = {planned.spec.teacher.id for planned in left if planned.spec.teacher}
    known = [planned.spec for planned in left if planned.spec.id in epochs]
    for first in (True, False):  # teachers train before their students, in cohorts of their own
        for cohort in cohorts(spec for spec in known if (spec.id in teachers) is first):
            rates, reading = rates_in[_setting(cohort[0])], [spec for spec in cohort if spec.teacher]
            parts.append((rates.data(), max(epochs[spec.id] for spec in cohort)))
            if reading and reading[0].teacher:
                parts.append((rates.teacher(reading[0].teacher.student), max(epochs[spec.id] for spec in reading)))
    total = Span(*(sum(span[i] * times for span, times in parts) for i in range(3)))
    measured = sum(len(rates.timings) for rates in rates_in.values())
    return Cost(device, total, *numbers(left), bases, measured)


class _Setting(NamedTuple):
    """What two trainings must share for the seconds of one to say something of the other."""

    dataset: str
    arithmetic: str
    batch_size: int


class _Rates:
    """Seconds per epoch in one setting: the same images, arithmetic and size of batches."""

    def __init__(self, setting: _Setting, timings: Iterable[Timing], macs: Mapping[str, Mapping[str, int]]) -> None:
        self.timings = [timing for timing in timings if _setting(timing.spec) == setting]
        self.macs = macs.get(setting.dataset, {})
        self.own = cache(self._own)  # the seeds of a method ask for the same
        self.evaluation = cache(self._evaluation)

    def _own(self, student: str, method: str, teacher: str) -> tuple[Span, Basis] | None:
        """The student's steps, and what that rests on; None where nothing compares."""
        of_student = [timing for timing in self.timings if timing.spec.student == student]
        same = [timing for timing in of_student if timing.spec.method == method]
        exact = [timing for timing in same if (timing.spec.teacher.student if timing.spec.teacher else "") == teacher]
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

    def data(self) -> Span:
        """The batches."""
        return _span([timing.data_s for timing in self.timings])

    def teacher(self, name: str) -> Span:
        """The teacher's forward passes; from a training step of it, or of another network, where they were never measured."""
        reading = [timing for timing in self.timings if timing.teacher_s]
        of_teacher = [timing for timing in reading if _teacher(timing) == name]
        itself = [timing for timing in self.timings if timing.spec.student == name]
        return (
            self._scaled(name, of_teacher or reading, _teacher, lambda timing: timing.teacher_s)
            or self._scaled(name, itself or self.timings, _student, lambda timing: timing.own_s * FORWARD)
            or NOTHING
        )

    def _scaled(
        self, name: str, timings: Iterable[Timing], network: Callable[[Timing], str], seconds: Callable[[Timing], float]
    ) -> Span | None:
        """`seconds` of the timings, each in proportion to the MACs of `name` against those of its own `network`."""
        found = [seconds(timing) * ratio for timing in timings if (ratio := self._ratio(name, network(timing)))]
        return _span(found) if found else None

    def _ratio(self, name: str, other: str) -> float | None:
        if name == other:
            return 1.0
        return self.macs[name] / self.macs[other] if name in self.macs and other in self.macs else None


def _setting(spec: TrialSpec) -> _Setting:
    return _Setting(spec.dataset.label, spec.recipe.arithmetic, spec.recipe.batch_size)


def _student(timing: Timing) -> str:
    return timing.spec.student


def _teacher(timing: Timing) -> str:
    assert timing.spec.teacher, "only a method that reads the teacher has seconds of it"
    return timing.spec.teacher.student


def _span(seconds: Sequence[float]) -> Span:
    return Span(statistics.median(seconds), min(seconds), max(seconds))


def told(cost: Cost) -> str:
    """Two sentences for people: how long, and what that rests on."""
    mid, low, high = cost.seconds
    span = "" if _duration(low) == _duration(high) else f" ({_duration(low)} to {_duration(high)})"
    bases = [f"{cost.bases[basis]} {basis}" for basis in Basis if cost.bases.get(basis)]
    bases += [f"{cost.unknown} of unknown length and not counted"] if cost.unknown else []
    about = "more than" if cost.unknown else "about"
    return (
        f"{about} {_duration(mid)}{span} on {cost.device} for {networks(cost.students, cost.teachers)}: {', '.join(bases)}; from "
        f"{cost.measured} measured in this directory."
    )


def networks(students: int, teachers: int) -> str:
    """`1 student`, `20 students and 1 teacher`."""
    return " and ".join(counted(count, noun) for count, noun in ((students, "student"), (teachers, "teacher")) if count)


def _duration(seconds: float) -> str:
    """With two digits: `45 s`, `3.2 min`, `12 h`, `4.5 days`."""
    for size, unit in ((86400 * 2, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            amount = seconds / {"days": 86400, "h": 3600, "min": 60}[unit]
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:,.0f} {unit}"
    return f"{seconds:.0f} s"
