"""Which jobs are this run's, where other runs work on the same results directory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kdbench.results.claims import Claims
from kdbench.results.store import Store
from kdbench.runner.assignment import part
from kdbench.runner.job import Job
from kdbench.runner.job_folder import bring_left_home
from kdbench.spec.record import Record

LOOK_S = 5.0
"""A job that another run has is looked at again after so long, or after a tenth of the timeout."""


@dataclass(frozen=True)
class Taken:
    """What became of a job that this run wanted.

    Attributes:
        mine: what of it this run is to train.
        left: what of it others train at present.
        ended: its trials that others have trained meanwhile.
    """

    mine: Job | None
    left: Job | None = None
    ended: tuple[str, ...] = ()


class Alone:
    """Of a run that has the directory for itself: all jobs are its own."""

    @property
    def owner(self) -> str:
        """Stands in the names of its jobs' folders. No run that claims has that name."""
        return "alone"

    def take(self, job: Job) -> Taken:
        """What of a job is this run's to train now."""
        return Taken(job)

    def release(self, job: Job) -> None:
        """A job of this run has ended, and is at home."""

    def holds(self, unit: str) -> bool:
        """Whether a trial or stage that was taken is still this run's."""
        return True

    def lost(self) -> frozenset[str]:
        """The trials and stages that others have taken over since the last call."""
        return frozenset()


@dataclass(eq=False)
class Shared(Alone):
    """Of a run that works with claims.

    Attributes:
        replaced: of trials that have a record and are to be trained again: that record.
        began: when the trials were planned.
    """

    store: Store
    claims: Claims
    replaced: Mapping[str, Record]
    began: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    later: dict[str, float] = field(default_factory=dict)

    def take(self, job: Job) -> Taken:
        units, now = sorted(job.gives), time.monotonic()
        if now < self.later.get(job.id, now):
            return Taken(None, job)
        if not self.claims.take(units[0]):
            self.later[job.id] = now + min(LOOK_S, self.claims.timeout_s / 10)
            return Taken(None, job)
        had = [units[0], *filter(self.claims.take, units[1:])]
        bring_left_home(self.store, had, owners=self.claims.owners())
        ended = {unit for unit in had if self._ended(job, unit)}  # now that nobody else can end it
        for unit in ended:
            self.claims.release(unit)
        mine = part(job, {*had} - ended)
        for planned in mine.trials if mine and mine.stages is None else ():
            self.store.make_ready(planned.spec.id, self.began)
        trials = tuple(sorted(ended)) if job.stages is None else ()
        return Taken(mine, part(job, {*units}.difference(had)), trials)

    @property
    def owner(self) -> str:
        return self.claims.owner

    def release(self, job: Job) -> None:
        for unit in job.gives:
            self.claims.release(unit)

    def holds(self, unit: str) -> bool:
        return self.claims.holds(unit)

    def lost(self) -> frozenset[str]:
        return self.claims.beat()

    def _ended(self, job: Job, unit: str) -> bool:
        for stage in job.stages or ():
            if stage.id == unit:
                teacher = self.store.record(stage.teacher.id)
                key = stage.key(teacher_sha256=teacher.weights_sha256) if teacher and teacher.weights_sha256 else ""
                return bool(key) and self.store.stage_file(stage.teacher.id, key).exists()
        record = self.store.record(unit)
        if record is None or self._is_replaced(record):
            return False
        codes = {planned.spec.id: planned.code for planned in job.trials}
        return record.method_code == codes[unit]  # a run of others may have other code

    def _is_replaced(self, record: Record) -> bool:
        before = self.replaced.get(record.trial)
        return before is not None and before.model_dump_json() == record.model_dump_json()  # as text, in which NaN equals itself


def replaced_by(jobs: Iterable[Job]) -> dict[str, Record]:
    """The records, as they were when the jobs were planned, that the jobs are to replace."""
    trials = (planned for job in jobs for planned in job.trials)
    return {planned.spec.id: record for planned in trials if (record := planned.record or planned.outdated)}
