"""What is trained together: a job and what it needs, and the jobs that make up trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from kdbench.errors import listed
from kdbench.method.specs import teacher_label
from kdbench.runner.plan import Planned
from kdbench.spec.trial import TrialSpec, digest
from kdbench.suite.teacher_stages import TeacherStage
from kdbench.wording import plural


@dataclass(frozen=True)
class Job:
    """Trials that train in lockstep: the same data set, recipe and seed, and the same teachers where they have any.

    Attributes:
        trials: one or more.
        stages: what their methods learn from the first teacher alone that this job trains, and none of the trials; None where it
            trains the trials.
    """

    trials: tuple[Planned, ...]
    stages: tuple[TeacherStage, ...] | None = None

    @cached_property
    def id(self) -> str:
        """16 hexadecimal characters."""
        return digest([sorted(planned.spec.id for planned in self.trials), sorted(stage.id for stage in self.stages or ())])

    @cached_property
    def gives(self) -> frozenset[str]:
        """What is there when it has ended: the ids of its trials or of its stages."""
        return frozenset(stage.id for stage in self.stages or ()) or frozenset(planned.spec.id for planned in self.trials)

    @cached_property
    def needs(self) -> frozenset[str]:
        """What must be there before: the ids of teachers, and of stages that it does not train."""
        teachers = {teacher.id for planned in self.trials for teacher in planned.spec.teachers}
        return frozenset(teachers.union(stage.id for stage in self.learnt)) - self.gives

    @property
    def learnt(self) -> tuple[TeacherStage, ...]:
        """What is learnt from a teacher alone that its training makes or needs."""
        return self.stages if self.stages is not None else tuple(stage for planned in self.trials for stage in planned.stages)

    @property
    def label(self) -> str:
        """For people: what it trains."""
        spec = self.trials[0].spec
        students = dict.fromkeys(planned.spec.label for planned in self.trials)
        whose = f"{listed(list(students), most=2)}, seed {spec.seed}"
        if self.stages is not None:
            return ", ".join(stage.label for stage in self.stages)
        if self.trials[0].teaches:
            names = dict.fromkeys(teacher_label(planned.spec) for planned in self.trials)
            return f"{plural('teacher', len(names))} {', '.join(names)}, seed {spec.seed}"
        return f"{spec.method}, {whose}" if len(self.trials) == 1 else f"{len(self.trials)} students, {whose}"

    @property
    def adopts(self) -> bool:
        """Whether its trials are teachers that are used as they are."""
        return not self.trials[0].spec.methods

    @property
    def teachers(self) -> tuple[TrialSpec, ...]:
        """The trials of the teachers; none where no student has any."""
        return next((planned.spec.teachers for planned in self.trials if planned.spec.teachers), ())


def jobs(trials: Iterable[Planned]) -> list[Job]:
    """The trials by recipe, teachers and seed; a suite has one data set.

    Students that need no teacher go with the first job that sees the same batches.
    """
    groups: dict[tuple[str, int], dict[tuple[str, ...], list[Planned]]] = {}
    for planned in trials:
        spec = planned.spec
        batches = (spec.recipe.model_dump_json(), spec.seed)
        groups.setdefault(batches, {}).setdefault(tuple(teacher.id for teacher in spec.teachers), []).append(planned)
    found: list[Job] = []
    for by_teachers in groups.values():
        alone = by_teachers.pop((), [])
        first, *rest = by_teachers.values() or [[]]
        found += [Job((*alone, *first)), *map(Job, map(tuple, rest))]
    return found


def jobs_of_teachers(teachers: Iterable[Planned]) -> list[Job]:
    """The same of teachers, each job after those of its own teachers."""
    found = list(teachers)
    depths = sorted({planned.spec.depth for planned in found})
    return [job for depth in depths for job in jobs(planned for planned in found if planned.spec.depth == depth)]


def with_stages(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, and before them those that train stages which several of them need: one for each teacher and seed of a stage."""
    found = list(jobs)
    users = Counter(stage for job in found for stage in job.needs - {teacher.id for teacher in job.teachers})
    shared: dict[tuple[str, int | None], tuple[Planned, dict[str, TeacherStage]]] = {}
    for planned in (planned for job in found for planned in job.trials):
        for stage in planned.stages:
            if users[stage.id] > 1:
                shared.setdefault(stage.together, (planned, {}))[1][stage.id] = stage
    return [*(Job((planned,), tuple(stages.values())) for planned, stages in shared.values()), *found]
