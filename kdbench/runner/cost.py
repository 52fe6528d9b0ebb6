"""What a plan still costs, in seconds, from the trainings that the results directory has seen. Builds no model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kdbench.results.store import Store
from kdbench.runner.durations import durations
from kdbench.runner.job import jobs, jobs_of_teachers
from kdbench.runner.plan import Plan, Planned, Rerun, Status
from kdbench.runner.rates import Basis, Rates, Span, setting_of, taught_by, tests_in_last
from kdbench.runner.split import run_s
from kdbench.runner.timings import ByDevice, Timing, timings_by_device
from kdbench.suite.teacher_stages import TeacherStage
from kdbench.wording import counted


@dataclass(frozen=True)
class Cost:
    """What remains of a plan on one device, all students of a cohort side by side.

    Attributes:
        device: where the timings come from.
        seconds: for all trainings that `bases` counts, without what compiling takes before the first steps.
        students: how many remain.
        teachers: how many must be trained before them.
        stages: how many stages must be trained that learn from a teacher alone.
        bases: how many of all these rest on what.
        measured: how many trainings were measured.
        beside_others: how many of these were measured while other jobs trained on the machine.
        devices: how many devices may train at once.
        devices_s: seconds on all of these, each as fast as the one; None where it is one.
    """

    device: str
    seconds: Span
    students: int
    teachers: int
    stages: int
    bases: Mapping[Basis, int]
    measured: int
    beside_others: int = 0
    devices: int = 1
    devices_s: float | None = None

    @property
    def unknown(self) -> int:
        """How many trainings `seconds` leaves out, because nothing that compares was measured."""
        return self.students + self.teachers + self.stages - sum(self.bases.values())


def remaining(plan: Plan) -> list[Planned]:
    """The students that a run would take up, and the teachers that it would train for them."""
    students = plan.todo(Rerun.MISSING)
    needed = plan.teachers_of(students)
    teachers = [planned for planned in needed if Rerun.MISSING.takes_up(planned.status) or planned.lacks_weights]
    failed = set[str]()  # and those that cannot be trained for want of a teacher
    for planned in (*needed, *students):
        if planned.status is Status.FAILED or not failed.isdisjoint(_teachers([planned])):
            failed.add(planned.spec.id)
    left = {planned.spec.id: planned for planned in (*teachers, *students) if planned.spec.id not in failed}
    return [planned for planned in left.values() if planned.spec.methods]  # without a method nothing is trained


def remaining_stages(plan: Plan, left: Iterable[Planned]) -> list[TeacherStage]:
    """The stages of teachers that a run would train for the students in `left`."""
    teachers = _teachers(left)
    return [entry.stage for entry in plan.stages if entry.status is not Status.DONE and entry.stage.teacher.id in teachers]


def numbers(left: Sequence[Planned]) -> tuple[int, int]:
    """How many of what remains are students, and how many are teachers of others of it."""
    teachers = _teachers(left)
    of_teachers = sum(planned.spec.id in teachers for planned in left)
    return len(left) - of_teachers, of_teachers


def _teachers(trials: Iterable[Planned]) -> set[str]:
    """The ids of all teachers of some trials."""
    return {teacher.id for planned in trials for teacher in planned.spec.teachers}


def costs(plan: Plan, store: Store, *, devices: int = 1) -> list[Cost]:
    """What remains, by device; empty where nothing remains, or nothing that compares was measured.

    Args:
        plan: of a suite.
        store: the directory whose trainings were measured.
        devices: how many devices may train at once.
    """
    left = remaining(plan)
    stages = remaining_stages(plan, left)
    by_device = timings_by_device(store) if left else {}
    found = [_cost(device, left, stages, here, store.macs()) for device, here in by_device.items()]
    found = sorted((cost for cost in found if cost.bases), key=lambda cost: -cost.measured)
    if devices == 1:
        return found
    return [replace(cost, devices=devices, devices_s=_run_s(plan, left, store, by_device, cost.device, devices)) for cost in found]


def expected(plan: Plan, store: Store, *, device: str, places: int) -> float | None:
    """Seconds that remain at several places, if the device has trained every student and teacher of them, whatever the method."""
    cost = next((cost for cost in costs(plan, store, devices=places) if cost.device == device), None)
    if cost is None or cost.unknown or Basis.SCALED in cost.bases:
        return None
    return cost.seconds.mid if cost.devices_s is None else cost.devices_s


def _run_s(plan: Plan, left: Sequence[Planned], store: Store, by_device: ByDevice, device: str, devices: int) -> float:
    """Seconds on several devices at once, with jobs as a run splits them."""
    of_teachers = _teachers(left)
    teachers = [planned for planned in left if planned.spec.id in of_teachers]
    students = [planned for planned in left if planned.spec.id not in of_teachers]
    known = durations(plan, store, by_device=by_device, device=device)
    return run_s(jobs_of_teachers(teachers), jobs(students), places=devices, durations=known)


def _cost(
    device: str,
    left: Sequence[Planned],
    stages: Sequence[TeacherStage],
    timings: Mapping[str, Timing],
    macs: Mapping[str, Mapping[str, int]],
) -> Cost:
    parts: list[tuple[Span, int]] = []
    bases: Counter[Basis] = Counter()
    epochs: dict[str, int] = {}  # of each training that something compares with
    specs = (*(planned.spec for planned in left), *(stage.teacher for stage in stages))
    rates_in = {setting: Rates(setting, timings.values(), macs) for setting in set(map(setting_of, specs))}
    for planned in left:
        spec = planned.spec
        rates = rates_in[setting_of(spec)]
        own = rates.own(spec.architecture, spec.method, taught_by(spec))
        if own is None:
            continue
        behind = timings[spec.id].epochs if planned.status is Status.STARTED and spec.id in timings else 0
        epochs[spec.id] = planned.epochs - behind
        tests = tests_in_last(spec.recipe, epochs[spec.id])
        parts += [(own[0], epochs[spec.id]), (rates.evaluation(spec.architecture), tests)]
        bases[own[1]] += 1
    teachers = _teachers(left)
    known = [planned for planned in left if planned.spec.id in epochs]
    turns = {planned.spec.id: planned.spec.depth if planned.spec.id in teachers else sys.maxsize for planned in known}
    for turn in sorted({*turns.values()}):  # teachers train before their students, in jobs of their own
        for job in jobs(planned for planned in known if turns[planned.spec.id] == turn):
            cohort = [planned.spec for planned in job.trials]
            rates = rates_in[setting_of(cohort[0])]
            parts.append((rates.data(), max(epochs[spec.id] for spec in cohort)))
            passes = max((epochs[spec.id] for spec in cohort if spec.teacher), default=0)
            parts += [(rates.teacher(teacher.architecture), passes) for teacher in job.teachers]
    shared: dict[str, list[Span]] = {}
    for stage in stages:
        if found := rates_in[setting_of(stage.teacher)].stage(stage):
            parts.append((found[0], 1))
            shared.setdefault(stage.teacher.id, []).append(found[1])
            bases[found[2]] += 1
    parts += [(max(spans), 1) for spans in shared.values()]  # all stages of a teacher train side by side
    total = Span(*(sum(span[i] * times for span, times in parts) for i in range(3)))
    measured = [timing for rates in rates_in.values() for timing in rates.timings]
    beside_others = sum(timing.beside_others for timing in measured)
    return Cost(device, total, *numbers(left), len(stages), bases, len(measured), beside_others)


def estimate_text(cost: Cost) -> str:
    """For people: how long, what that rests on, and how long on several devices."""
    mid, low, high = cost.seconds
    span = "" if _duration(low) == _duration(high) else f" ({_duration(low)} to {_duration(high)})"
    bases = [f"{cost.bases[basis]} {basis}" for basis in Basis if cost.bases.get(basis)]
    bases += [f"{cost.unknown} of unknown length and not counted"] if cost.unknown else []
    about = "more than" if cost.unknown else "about"
    trainings = networks(cost.students, cost.teachers, cost.stages)
    busy = f", {cost.beside_others} of them while other jobs trained on the machine" if cost.beside_others else ""
    return (
        f"{about} {_duration(mid)}{span} on {cost.device} for {trainings}: {', '.join(bases)}; from {cost.measured} measured in "
        f"this directory{busy}.{_at_once_text(cost)}"
    )


def _at_once_text(cost: Cost) -> str:
    if cost.devices_s is None:
        return ""
    how = f"On {cost.devices} devices of that speed at once, with jobs split as `kdbench run` splits them"
    guessed = ", with a guess for those of unknown length" if cost.unknown else ""
    return f" {how}: about {_duration(cost.devices_s)}{guessed}."


def networks(students: int, teachers: int, stages: int) -> str:
    """`1 student`, `20 students and 1 teacher`, `20 students, 1 teacher and 5 teacher stages`."""
    nouns = ((students, "student"), (teachers, "teacher"), (stages, "teacher stage"))
    *first, last = (counted(count, noun) for count, noun in nouns if count)
    return f"{', '.join(first)} and {last}" if first else last


def _duration(seconds: float) -> str:
    """With two digits: `45 s`, `3.2 min`, `12 h`, `4.5 days`."""
    for size, unit in ((86400 * 2, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            amount = seconds / {"days": 86400, "h": 3600, "min": 60}[unit]
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:,.0f} {unit}"
    return f"{seconds:.0f} s"
