"""A job as it is sent to a worker, and what the worker tells of it."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.runner.plan import Job, Planned
from kdbench.runner.progress import EpochReport, LaneReport
from kdbench.spec.record import Environment
from kdbench.suite.resolve import Suite


@dataclass(frozen=True)
class Assignment:
    """A job, and all that training it needs beside the files in its folder. It can be sent to another process.

    Attributes:
        suite: with the job's trials alone.
        fingerprint: of the images, which must be the same wherever the suite is trained.
        lanes: how many students train at once, at most.
    """

    job: Job
    suite: Suite
    fingerprint: str
    lanes: int

    @classmethod
    def of(cls, job: Job, suite: Suite, *, fingerprint: str, lanes: int) -> Assignment:
        """The job of a suite."""
        trials = tuple(planned.spec for planned in job.trials)
        return cls(job, replace(suite, trials=trials, candidates=(), tuning=None), fingerprint, lanes)

    def placed(self, folder: Path) -> Assignment:
        """The same, where the trials lie in another results folder."""
        trials = tuple(replace(planned, folder=folder / "trials" / planned.spec.id) for planned in self.job.trials)
        return replace(self, job=replace(self.job, trials=trials))

    def packed(self) -> bytes:
        """As bytes, which only a process that has loaded the same plugins can unpack."""
        return pickle.dumps(self)

    @staticmethod
    def unpacked(data: bytes) -> Assignment:
        """What `packed` gave."""
        found = pickle.loads(data)  # written by the process that started this one
        assert isinstance(found, Assignment)
        return found


@dataclass(frozen=True)
class Ready:
    """The worker has its device and waits for a job."""

    environment: Environment


@dataclass(frozen=True)
class Said:
    """A line for people."""

    text: str


@dataclass(frozen=True)
class Resumed:
    """A lane goes on from its checkpoint."""

    lane: LaneReport


@dataclass(frozen=True)
class Trained:
    """Lanes have trained one epoch, and their checkpoints are written."""

    report: EpochReport


@dataclass(frozen=True)
class Recorded:
    """A trial has ended: its folder is complete."""

    trial: str


@dataclass(frozen=True)
class Ended:
    """The job has ended, or was stopped at the end of an epoch, and the worker waits for another."""

    finished: bool


@dataclass(frozen=True)
class Died:
    """The worker is gone, or has met a fault that is no method's; what it wrote stays.

    Attributes:
        reason: what happened, for people.
        log: more of it, such as a traceback; empty where nothing is known.
        ends_run: whether it is for the user to mend if it comes again: a full disk, damaged images.
    """

    reason: str
    log: str = ""
    ends_run: bool = False


News = Ready | Said | Resumed | Trained | Recorded | Ended | Died
"""What a worker tells."""


def refuse_other_images(found: str, expected: str, *, host: str) -> None:
    """See that a worker reads the same images as the process that sent the job.

    Raises:
        KdbenchError: it does not.
    """
    if found != expected:
        raise KdbenchError(
            f"the images on {host} differ from those of the process that started the run (fingerprint {found}, there {expected}). "
            "Copy the same images to every machine."
        )


def halves(job: Job) -> list[Job]:
    """The job as two that together train the same trials; itself where it has one trial."""
    middle = (len(job.trials) + 1) // 2
    return [replace(job, trials=part) for part in (job.trials[:middle], job.trials[middle:]) if part]


def without(job: Job, ended: Iterable[str]) -> Job | None:
    """The job without some of its trials; None where none is left."""
    gone = set(ended)
    left: tuple[Planned, ...] = tuple(planned for planned in job.trials if planned.spec.id not in gone)
    return replace(job, trials=left) if left else None
