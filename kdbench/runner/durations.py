"""How long jobs take, for planning: from what was measured or, where nothing was, from the arithmetic of the networks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from kdbench.results.store import Store
from kdbench.runner.plan import Plan, Planned, Status
from kdbench.runner.rates import FORWARD, Rates, setting_of, taught_by, tests_in_last
from kdbench.runner.timings import ByDevice, Timing
from kdbench.spec.trial import TrialSpec
from kdbench.suite.teacher_stages import TeacherStage

JOB_S = 1.0
"""Seconds that every job takes before its first step: files, networks and the teacher's parts are made ready."""

ASSUMED_MACS_PER_S = 1e11
ASSUMED_IMAGES = 50_000
ASSUMED_MACS = 50_000_000
"""Where nothing was measured: the speed of a device, the images of an epoch, and the work of a network that was never counted. Only
the ratios of jobs depend on them, and of one job to `JOB_S`."""

ASSUMED_DATA_MACS = 2_000_000
"""The same of the batches: what an image costs before a network sees it."""


class LaneSeconds(NamedTuple):
    """What one trial adds to a job.

    Attributes:
        own: its own steps and tests.
        data: its batches, which trials that train side by side share.
        teacher: the teachers' passes, which those share that read a teacher; 0 where it reads none.
    """

    own: float
    data: float
    teacher: float


class StageSeconds(NamedTuple):
    """What a stage of a teacher takes.

    Attributes:
        own: its own steps.
        shared: the batches and the teacher's passes, which stages that train side by side share.
    """

    own: float
    shared: float


@dataclass(frozen=True)
class Durations:
    """Seconds of jobs.

    Attributes:
        lane: of a trial, from where it stands to its end.
        stage: of a stage; nothing where it is done.
        lanes: how many students train at once, at most; 0 for all of a job.
    """

    lane: Callable[[Planned], LaneSeconds]
    stage: Callable[[TeacherStage], StageSeconds]
    lanes: int = 0

    def students(self, lanes: Sequence[LaneSeconds]) -> float:
        """Of trials in one job, without the stages of their teacher."""
        turns = math.ceil(len(lanes) / self.lanes) if self.lanes else 1
        shared = max(lane.data for lane in lanes) + max(lane.teacher for lane in lanes)
        return JOB_S + sum(lane.own for lane in lanes) + turns * shared

    def stages(self, stages: Iterable[TeacherStage]) -> float:
        """Of stages that train side by side in a job."""
        found = list(map(self.stage, stages))
        return sum(stage.own for stage in found) + max((stage.shared for stage in found), default=0.0)

    def stage_job(self, stages: Iterable[TeacherStage]) -> float:
        """Of a job that trains stages alone."""
        return JOB_S + self.stages(stages)


def durations(plan: Plan, store: Store, *, by_device: ByDevice, device: str, lanes: int = 0) -> Durations:
    """Those of a plan's jobs.

    Args:
        plan: what is to be trained.
        store: the directory whose trainings were measured.
        by_device: these, as `timings_by_device` reads them.
        device: the name of the device as records have it. Where none was measured on it, those of another device stand in.
        lanes: how many students train at once, at most; 0 for all of a job.
    """
    timings = by_device.get(device) or max(by_device.values(), key=len, default={})
    done = frozenset(entry.stage.id for entry in plan.stages if entry.status is Status.DONE)
    estimate = _Estimate(timings, store.macs(), done)
    return Durations(estimate.lane, estimate.stage, lanes)


class _Estimate:
    def __init__(self, timings: Mapping[str, Timing], macs: Mapping[str, Mapping[str, int]], done: frozenset[str]) -> None:
        self._timings, self._macs, self._done = timings, macs, done
        self._rates = cache(lambda setting: Rates(setting, timings.values(), macs))

    def lane(self, planned: Planned) -> LaneSeconds:
        spec = planned.spec
        rates: Rates = self._rates(setting_of(spec))
        recipe, epochs = spec.recipe, planned.epochs
        if planned.status is Status.STARTED and spec.id in self._timings:
            epochs -= self._timings[spec.id].epochs
        return LaneSeconds(
            own=self._own(spec, rates) * epochs + rates.evaluation(spec.architecture).mid * tests_in_last(recipe, epochs),
            data=self._data(rates) * epochs,
            teacher=sum(
                self._pass(teacher, rates) * epochs + rates.evaluation(teacher.architecture).mid for teacher in spec.teachers
            ),
        )

    def stage(self, stage: TeacherStage) -> StageSeconds:
        if stage.id in self._done:
            return StageSeconds(0.0, 0.0)
        rates: Rates = self._rates(setting_of(stage.teacher))
        if found := rates.stage(stage):
            return StageSeconds(found[0].mid, found[1].mid)
        epochs = stage.epochs or 1  # a survey is one pass
        one = self._pass(stage.teacher, rates)
        return StageSeconds(one * epochs, (one + self._data(rates)) * epochs)

    def _own(self, spec: TrialSpec, rates: Rates) -> float:
        if found := rates.own(spec.architecture, spec.method, taught_by(spec)):
            return found[0].mid
        if rates.timings:  # of networks whose work is not known
            return statistics.median(timing.own_s for timing in rates.timings)
        return self._assumed(spec) / FORWARD

    def _pass(self, teacher: TrialSpec, rates: Rates) -> float:
        return rates.teacher(teacher.architecture).mid if rates.timings else self._assumed(teacher)

    def _data(self, rates: Rates) -> float:
        return rates.data().mid if rates.timings else ASSUMED_DATA_MACS * ASSUMED_IMAGES / ASSUMED_MACS_PER_S

    def _assumed(self, spec: TrialSpec) -> float:
        """Seconds of one pass of a network over the training images."""
        macs = self._macs.get(spec.dataset.label, {}).get(spec.architecture, ASSUMED_MACS)
        return macs * ASSUMED_IMAGES / ASSUMED_MACS_PER_S
