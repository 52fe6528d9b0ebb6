"""What a suite would run and what is done. Builds no model and trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.method.specs import student_stage_epochs
from kdbench.models.weights import WEIGHTS
from kdbench.paths import found
from kdbench.results.layout import CHECKPOINT
from kdbench.results.store import Store
from kdbench.results.students import has_student
from kdbench.runner.tuning import Choice, choose, with_choices
from kdbench.spec.record import Record
from kdbench.spec.trial import TrialSpec
from kdbench.suite.code_hash import trial_code
from kdbench.suite.suite import Suite
from kdbench.suite.teacher_stages import TeacherStage, teacher_stages
from kdbench.wording import counted


class Status(StrEnum):
    """Where a trial stands."""

    DONE = "done"
    """It has a record, made by the present code of its method."""
    FAILED = "failed"
    """It has a record that says why it failed."""
    STALE = "stale"
    """It has a record, but the code of its method has changed since, or a teacher of it was trained again or is stale."""
    STARTED = "started"
    """It has a checkpoint, and a run continues it from there."""
    MISSING = "missing"
    """It was never begun."""
    UNTUNED = "untuned"
    """Its parameters are not chosen yet, or every setting of its method failed in tuning."""


class Rerun(StrEnum):
    """Which trials a run takes up."""

    MISSING = "missing"
    """Those without a valid record: missing, started and stale ones."""
    FAILED = "failed"
    """These, and those that failed, from their start."""
    WEIGHTS = "weights"
    """Missing, started and stale ones, and, where the suite keeps students, finished ones whose file of weights is missing or
    damaged. Trained on the same kind of machine, they get the same weights."""
    ALL = "all"
    """Every student of the suite from its start. Finished teachers are not trained again, unless they are students of it, too."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise KdbenchError(f"rerun: '{value}' is none of {', '.join(cls)}.")

    def takes_up(self, status: Status) -> bool:
        """Whether a student that stands there is taken up, whatever was kept of it."""
        valid = {Rerun.FAILED: (Status.DONE,), Rerun.ALL: ()}.get(self, (Status.DONE, Status.FAILED))
        return status not in (*valid, Status.UNTUNED)


@dataclass(frozen=True)
class Planned:
    """A trial as planning found it: all that a run needs to know of it.

    Attributes:
        spec: what is trained; of an untuned one with the suite's own parameters of its method, which it may not end up with.
        status: where it stands.
        record: what came of it, where that is valid.
        outdated: what came of it, where that is valid no more.
        folder: where its files lie.
        keeps_weights: whether the student is to be kept when it is done.
        teaches: whether it is here as a teacher of the suite.
        reason: why it is untuned.
    """

    spec: TrialSpec
    status: Status
    record: Record | None
    folder: Path
    keeps_weights: bool
    teaches: bool
    reason: str | None = None
    outdated: Record | None = None

    @cached_property
    def code(self) -> str:
        """The hash of the code of its methods, and of a plugin's student or data set."""
        return trial_code(self.spec)

    @cached_property
    def lacks_weights(self) -> bool:
        """Whether it is done and its weights are not there, as of a student that was not kept: before it teaches it is trained
        again."""
        return self.status is Status.DONE and not found(self.folder / WEIGHTS)

    @property
    def can_teach(self) -> bool:
        """Whether it has a valid record, and weights if it is done."""
        return self.record is not None and not self.lacks_weights

    @property
    def epochs(self) -> int:
        """Of its training: those of stages that train the student, too, and the main ones."""
        return self.spec.epochs + student_stage_epochs(self.spec)

    @cached_property
    def stages(self) -> tuple[TeacherStage, ...]:
        """What its methods learn from the teacher alone."""
        return tuple(teacher_stages(self.spec))


@dataclass(frozen=True)
class PlannedStage:
    """What a method is to learn from a teacher alone, and where that stands: done, started or missing."""

    stage: TeacherStage
    status: Status


@dataclass(frozen=True)
class Plan:
    """Where every teacher and every student of a suite stands, and what methods learn from the teachers before.

    Attributes:
        suite: with the trials of the settings that were chosen.
        teachers: those of the students and those teachers' own, each after its own.
        stages: those that trials need which are not done.
        tuning: of the trials that choose among the settings of methods; None where the suite has none.
        choices: what was tried of each method for each pair.
    """

    suite: Suite
    teachers: tuple[Planned, ...]
    students: tuple[Planned, ...]
    stages: tuple[PlannedStage, ...] = ()
    tuning: Plan | None = None
    choices: tuple[Choice, ...] = ()

    def todo(self, rerun: Rerun) -> list[Planned]:
        """The students that a run takes up."""
        lacking = {planned.spec.id for planned in self.without_weights} if rerun is Rerun.WEIGHTS else ()
        return [planned for planned in self.students if rerun.takes_up(planned.status) or planned.spec.id in lacking]

    @property
    def used(self) -> list[TrialSpec]:
        """All trials that its results come from, tuning trials among them; of a method without a choice, those of each setting."""
        planned = [found.spec for part in (self.tuning, self) if part for found in (*part.teachers, *part.students)]
        settings = [setting for choice in self.choices if not choice.chosen for setting in choice.candidates.settings]
        return [*planned, *(trial for setting in settings for trial in setting.reported)]

    @property
    def tuned_elsewhere(self) -> list[Record]:
        """The records of its trials that another suite made to choose among settings: they are results now."""
        own = [*self.teachers, *(() if self.suite.tries_settings else self.students)]
        return [planned.record for planned in own if planned.record and planned.record.tuning]

    @property
    def untuned(self) -> tuple[Planned, ...]:
        """The students whose parameters are not chosen."""
        return tuple(planned for planned in self.students if planned.status is Status.UNTUNED)

    def phases(self, rerun: Rerun) -> list[tuple[Plan, list[Planned]]]:
        """What a run does, one after the other: the plan of the tuning trials and this one, each where it takes up any student.

        Students stand with them whose parameters the tuning trials are about to choose.
        """
        tuning = self.tuning.todo(rerun) if self.tuning else []
        students = [*self.todo(rerun), *(self.untuned if tuning else ())]
        return [(plan, found) for plan, found in ((self.tuning, tuning), (self, students)) if plan and found]

    @cached_property
    def without_weights(self) -> tuple[Planned, ...]:
        """The finished students whose weights the suite asks for, and which are not there, whole, with what feeding them needs."""
        if not self.suite.keep_students:
            return ()
        done = [(planned, planned.record) for planned in self.students if planned.status is Status.DONE]
        return tuple(planned for planned, record in done if record and not has_student(planned.folder, record))

    @property
    def without_weights_text(self) -> str | None:
        """How many they are and what to do; None where there are none."""
        if not self.without_weights:
            return None
        return (
            f"{counted(len(self.without_weights), 'finished student')} without the weights that `keep_students: true` asks for: "
            "these were not kept, or are damaged or of an earlier kdbench. `kdbench run` with --rerun weights trains the students "
            "again."
        )

    def teachers_of(self, students: Iterable[Planned], *, trained: Callable[[Planned], bool] | None = None) -> list[Planned]:
        """The teachers that some students need, and those that such a teacher needs where it must be trained; each after its own.

        Args:
            students: that are to be trained.
            trained: whether a teacher needs no training; unless given, whether it can teach.
        """
        there = trained or (lambda planned: planned.can_teach)
        needed = {teacher.id for planned in students for teacher in planned.spec.teachers}
        for planned in reversed(self.teachers):
            if planned.spec.id in needed and not there(planned):
                needed |= {teacher.id for teacher in planned.spec.teachers}
        return [planned for planned in self.teachers if planned.spec.id in needed]

    def trained_specs(self, students: Iterable[Planned]) -> list[TrialSpec]:
        """Some students, and the teachers that must be trained for them."""
        students = list(students)
        untrained = [teacher for teacher in self.teachers_of(students) if not teacher.can_teach]
        return [planned.spec for planned in (*students, *untrained)]

    def counts(self, trials: Iterable[Planned | PlannedStage]) -> dict[str, int]:
        """How many trials or stages have each status, statuses that none has left out."""
        found = Counter(trial.status for trial in trials)
        return {status.value: found[status] for status in Status if found[status]}


def make_plan(suite: Suite, store: Store) -> Plan:
    """Look every trial of the suite up in the store.

    Raises:
        KdbenchError: the directory holds records of another protocol.
    """
    store.refuse_foreign_protocols()
    tuning = make_plan(suite.tuning.suite, store) if suite.tuning else None
    known = {planned.spec.id: planned.record for planned in tuning.students if planned.record} if tuning else {}
    choices = tuple(choose(candidates, known) for candidates in suite.candidates)
    suite = with_choices(suite, choices) if tuning else suite
    untuned = {trial.id: choice.open_because for choice in choices if not choice.chosen for trial in choice.candidates.provisional}
    teachers: dict[str, Planned] = {}
    begun = store.checkpoints_of_jobs()
    for spec in suite.teachers:
        teachers[spec.id] = _look_up(spec, store, teachers, begun, keeps_weights=True, teaches=True)
    students = tuple(
        Planned(spec, Status.UNTUNED, None, store.folder(spec.id), False, False, untuned[spec.id])
        if spec.id in untuned
        else _look_up(spec, store, teachers, begun, keeps_weights=suite.keep_students or spec.id in teachers, teaches=False)
        for spec in suite.trials
    )
    left = (planned.spec for planned in (*teachers.values(), *students) if Rerun.MISSING.takes_up(planned.status))
    needed = {stage.id: stage for trial in left for stage in teacher_stages(trial)}.values()
    stages = tuple(look_up_stage(stage, store, teachers[stage.teacher.id], begun) for stage in needed)
    return Plan(suite, tuple(teachers.values()), students, stages, tuning, choices)


def look_up_stage(stage: TeacherStage, store: Store, teacher: Planned, begun: Set[str] = frozenset()) -> PlannedStage:
    """Look up what a stage has learnt from a teacher; `begun` are checkpoints that jobs have which run elsewhere."""
    if not teacher.record or not teacher.record.weights_sha256:
        return PlannedStage(stage, Status.MISSING)
    key = stage.key(teacher_sha256=teacher.record.weights_sha256)
    if store.stage_file(stage.teacher.id, key).exists():
        return PlannedStage(stage, Status.DONE)
    checkpoint = store.stage_checkpoint(stage.teacher.id, key)
    started = checkpoint.exists() or checkpoint.relative_to(store.root / "trials").as_posix() in begun
    return PlannedStage(stage, Status.STARTED if started else Status.MISSING)


def _look_up(
    spec: TrialSpec, store: Store, teachers: Mapping[str, Planned], begun: Set[str], *, keeps_weights: bool, teaches: bool
) -> Planned:
    record, folder = store.record(spec.id), store.folder(spec.id)
    if record is None:
        started = store.has_checkpoint(spec.id) or f"{spec.id}/{CHECKPOINT}" in begun
        status = Status.STARTED if started else Status.MISSING
        return Planned(spec, status, None, folder, keeps_weights, teaches)
    planned = Planned(spec, Status(record.status), record, folder, keeps_weights, teaches)
    own = [teachers[teacher.id] for teacher in spec.teachers]
    outdated = any(
        teacher.status is Status.STALE or (teacher.record and teacher.record.weights_sha256 not in (None, learnt_from))
        for teacher, learnt_from in zip(own, record.teachers_sha256, strict=False)
    )
    if record.method_code != planned.code or (record.status == "done" and outdated):
        return replace(planned, status=Status.STALE, record=None, outdated=record)
    return planned
