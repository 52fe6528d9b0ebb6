"""What ended workers: the place where they ran, or the job that they trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdbench.runner.assignment import Died
from kdbench.runner.engines import Place

MOST_DEATHS = 2
"""So often may a job end its worker before that counts as its fault. Where workers of so many jobs died, no more of them begin."""

MOST_LOSSES = 5
"""So often in a row may a job lose its machine, and come no further, before that counts as its fault."""


@dataclass(eq=False)
class Deaths:
    """Counts how workers died.

    Attributes:
        ended: by job, at which places it ended workers.
        lost: by job, at which places machines were lost since its training came further.
        marks: by place, the jobs whose workers died there and that were not found at fault; empty where none could begin.
        left_out: places that get no more jobs, with the reason.
    """

    ended: dict[str, list[Place]] = field(default_factory=dict)
    lost: dict[str, list[Place]] = field(default_factory=dict)
    marks: dict[Place, list[str]] = field(default_factory=dict)
    left_out: dict[Place, str] = field(default_factory=dict)

    def of(self, job: str) -> set[Place]:
        """Where workers died of a job, or with it."""
        return {*self.ended.get(job, ()), *self.lost.get(job, ())}

    def worked(self, place: Place) -> None:
        """A place has done its work: what happened there before does not count."""
        self.marks.pop(place, None)

    def fault(self, job: str, place: Place, died: Died, *, further: bool) -> str:
        """What a job is at fault for; empty where it may not be.

        A job that takes its machine down each time comes no further. Machines that are only lent for a time take any job away, and
        its training goes on from a later epoch.

        Args:
            job: whose worker died.
            place: where.
            died: how.
            further: whether the job's training came further before.
        """
        if died.blameless and further:
            self.lost.pop(job, None)
            self.worked(place)
            return ""
        (self.lost if died.blameless else self.ended).setdefault(job, []).append(place)
        fault = ""
        if len(self.ended.get(job, ())) >= MOST_DEATHS:
            fault = f"its training ended {MOST_DEATHS} workers"
        elif len(self.lost.get(job, ())) >= MOST_LOSSES:
            fault = f"its machine was lost {MOST_LOSSES} times in a row, and its training came no further"
        if fault:
            for marks in self.marks.values():
                marks[:] = [mark for mark in marks if mark != job]
        elif job not in self.marks.get(place, ()):
            self._mark(place, job, died.reason)
        return fault

    def before_any_job(self, place: Place, reason: str) -> None:
        """A worker could not even begin."""
        self._mark(place, "", reason)

    def _mark(self, place: Place, job: str, reason: str) -> None:
        marks = self.marks.setdefault(place, [])
        marks.append(job)
        if len(marks) >= MOST_DEATHS:
            self.left_out[place] = reason
