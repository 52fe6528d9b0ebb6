"""Splits jobs where places would be idle, so that the whole ends soonest."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from kdbench.runner.durations import Durations, LaneSeconds
from kdbench.runner.job import Job, with_stages
from kdbench.runner.plan import Status
from kdbench.runner.schedule import Task, end_s
from kdbench.suite.teacher_stages import TeacherStage

STEP = 0.95
"""The longest part of one division against that of the division before: what lies between is not tried."""

WORTH = 0.98
"""A finer division must end so much sooner, for each part pays for batches and for the teacher's passes again."""


@dataclass(frozen=True)
class _Item:
    """Trials of a job that stay in one part.

    Attributes:
        lanes: their numbers in the job.
        seconds: of each.
        before_s: of stages that they alone need.
        needs: the ids of stages that are trained in a job before.
        begun: whether one of them has a checkpoint.
    """

    lanes: tuple[int, ...]
    seconds: tuple[LaneSeconds, ...]
    before_s: float
    needs: frozenset[str]
    begun: bool

    @property
    def own_s(self) -> float:
        return self.before_s + sum(lane.own for lane in self.seconds)


@dataclass(frozen=True)
class _Part:
    lanes: tuple[int, ...]
    task: Task
    begun: bool

    @property
    def start_order(self) -> tuple[bool, float]:
        """Parts start in the order of this: first those with begun trials, and of each kind the longest first."""
        return not self.begun, -self.task.seconds


class _Divided:
    """A job, whole at first, that can be divided further and further.

    Args:
        grains: its trials as items that stay together, and then, where there are others, as smaller ones.
        durations: of jobs.
        most: into how many parts, at most.
    """

    def __init__(self, grains: Sequence[Sequence[_Item]], durations: Durations, most: int) -> None:
        self._durations, self._most, self._count = durations, most, 1
        self._grains = [sorted(items, key=lambda item: (-item.own_s, item.lanes)) for items in grains]
        self._shortest = [max(self._part([item]).task.seconds for item in items) for items in self._grains]
        self.least = self._shortest[-1]
        self.parts = self._divide()

    @property
    def longest(self) -> float:
        """Seconds of the longest part."""
        return max(part.task.seconds for part in self.parts)

    @property
    def divisible(self) -> bool:
        """Whether that can be made shorter."""
        return self.longest > self.least and self._count < self._most

    def shorten(self, limit: float) -> None:
        """Divide it into the fewest parts of which none takes longer, or into parts as short as they can be."""
        if self._shortest[0] > limit and len(self._grains) > 1:
            del self._grains[0], self._shortest[0]
            self.parts = self._divide()
        limit = max(limit, self._shortest[0])
        while self.longest > limit and self._count < self._most:
            self._count = min(self._most, max(self._count + 1, int(self._count * self.longest / limit)))
            self.parts = self._divide()

    def _divide(self) -> list[_Part]:
        """The items, the longest first, each to the part that is shortest so far."""
        items = self._grains[0]
        parts: list[list[_Item]] = [[] for _ in range(min(self._count, len(items)))]
        shortest = [(0.0, i) for i in range(len(parts))]
        for item in items:
            own_s, i = shortest[0]
            parts[i].append(item)
            heapq.heapreplace(shortest, (own_s + item.own_s, i))
        return list(map(self._part, parts))

    def _part(self, items: Sequence[_Item]) -> _Part:
        seconds = self._durations.students([lane for item in items for lane in item.seconds])
        needs = frozenset[str]().union(*(item.needs for item in items))
        task = Task(seconds + sum(item.before_s for item in items), needs)
        lanes = tuple(sorted(lane for item in items for lane in item.lanes))
        return _Part(lanes, task, any(item.begun for item in items))


def in_parts(teachers: Sequence[Job], students: Sequence[Job], *, places: int, durations: Durations) -> list[Job]:
    """What a run does at several places: the jobs of teachers and of students, split, and before them those of shared stages.

    Args:
        teachers: each after its own teachers.
        students: of which some need the teachers.
        places: how many jobs run at once.
        durations: of the jobs.
    """
    by_depth = groupby(teachers, key=lambda job: job.trials[0].spec.depth)
    levels = [*(list(level) for _, level in by_depth), students]
    return with_stages(job for level in levels for job in split(level, places=places, durations=durations))


def run_s(teachers: Sequence[Job], students: Sequence[Job], *, places: int, durations: Durations) -> float:
    """Seconds that a run takes at several places; arguments as for `in_parts`."""
    found = in_parts(teachers, students, places=places, durations=durations)
    given = frozenset[str]().union(*(job.gives for job in found))
    return end_s([Task(_seconds(job, given, durations), job.needs, job.gives) for job in found], places)


def _seconds(job: Job, given: Collection[str], durations: Durations) -> float:
    """Of a job, with those stages that no job gives."""
    if job.stages is not None:
        return durations.stage_job(job.stages)
    own = {stage.id: stage for stage in job.learnt if stage.id not in given}
    return durations.students([*map(durations.lane, job.trials)]) + durations.stages(own.values())


def split(jobs: Sequence[Job], *, places: int, durations: Durations) -> list[Job]:
    """The jobs, some as several that together train the same trials: first those with begun trials, then the others, the longest
    first.

    They are split so that all of them end soonest, as far as `durations` knows, and no further: a division counts that ends 2 %
    sooner than all coarser ones. Trials that share a stage of their own stay together where that does not hold up the rest.

    Args:
        jobs: of which none needs another one's trials.
        places: how many jobs run at once.
        durations: of the jobs.
    """
    if not jobs:
        return []
    users = Counter(stage for job in jobs for stage in {stage.id for stage in job.learnt})
    stages = {stage.id: stage for job in jobs for stage in job.learnt}
    divided = [_Divided(_grains(job, durations, users), durations, places) for job in jobs]
    chosen: list[list[_Part]] = []
    soonest, limit = math.inf, math.inf
    while True:
        for job in divided:
            job.shorten(limit)
        parts = [job.parts for job in divided]
        end = _end_s([part for found in parts for part in found], stages, durations, places)
        if end < WORTH * soonest:
            chosen, soonest = parts, end
        work = sum(part.task.seconds for found in parts for part in found)  # which grows from division to division
        bound = max(work / places, *(job.least for job in divided))
        if bound >= WORTH * soonest or not (open_ := [job.longest for job in divided if job.divisible]):
            break
        limit = STEP * max(open_)
    found = [(part, job) for parts, job in zip(chosen, jobs, strict=True) for part in parts]
    found.sort(key=lambda pair: pair[0].start_order)
    return [
        job if len(part.lanes) == len(job.trials) else replace(job, trials=tuple(job.trials[lane] for lane in part.lanes))
        for part, job in found
    ]


def _end_s(parts: Sequence[_Part], stages: Mapping[str, TeacherStage], durations: Durations, places: int) -> float:
    """When all parts have ended, and before them the stages that they need."""
    before: dict[tuple[str, int | None], list[TeacherStage]] = {}
    for need in sorted(frozenset[str]().union(*(part.task.needs for part in parts))):
        before.setdefault(stages[need].together, []).append(stages[need])
    first = [Task(durations.stage_job(found), gives=frozenset(stage.id for stage in found)) for found in before.values()]
    return end_s([*first, *(part.task for part in sorted(parts, key=lambda part: part.start_order))], places)


def _grains(job: Job, durations: Durations, users: Mapping[str, int]) -> list[list[_Item]]:
    """The trials of a job, those that share a stage which no other job needs as one item; and where there are such, each alone."""
    lanes = [durations.lane(planned) for planned in job.trials]
    learnt = [{stage.id: stage for stage in planned.stages} for planned in job.trials]
    in_lanes = Counter(stage for found in learnt for stage in found)

    def item(numbers: Iterable[int], *, elsewhere: Iterable[str]) -> _Item:
        numbers = tuple(numbers)
        needed = {stage: found for number in numbers for stage, found in learnt[number].items()}
        outside = frozenset(needed).intersection(elsewhere)
        here = [found for stage, found in needed.items() if stage not in outside]
        begun = any(job.trials[number].status is Status.STARTED for number in numbers)
        return _Item(numbers, tuple(lanes[number] for number in numbers), durations.stages(here), outside, begun)

    shared = {stage for stage in in_lanes if users[stage] > 1}
    groups: dict[str | int, list[int]] = {}  # by a stage, or of one trial by its number
    for number, found in enumerate(learnt):
        keys: list[str | int] = [stage for stage in found if stage not in shared] or [number]
        group = [*{i: None for key in keys for i in groups.get(key, ())}, number]
        groups |= dict.fromkeys([*keys, *(stage for i in group for stage in learnt[i] if stage not in shared)], group)
    together = [item(numbers, elsewhere=shared) for numbers in {tuple(group): None for group in groups.values()}]
    if len(together) == len(lanes):
        return [together]
    several = {stage for stage, count in in_lanes.items() if count > 1}
    return [together, [item([number], elsewhere=shared | several) for number in range(len(lanes))]]
