"""A job as it is sent to a worker, and what the worker tells of it."""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.runner.job import Job
from kdbench.runner.plan import Planned
from kdbench.runner.progress import EpochReport, LaneReport
from kdbench.spec.record import Environment
from kdbench.suite.code_hash import trial_code
from kdbench.suite.suite import Suite


@dataclass(frozen=True)
class Assignment:
    """A job, and all that training it needs beside the files in its folder. It can be sent to another process.

    Attributes:
        suite: with the job's trials alone.
        fingerprint: of the images, which must be the same wherever the suite is trained.
        lanes: how many students train at once, at most.
        device_timeout_s: seconds after which a worker gives up a device that has not answered.
        codes: for each trial the hash of its code, which must be the same, too.
    """

    job: Job
    suite: Suite
    fingerprint: str
    lanes: int
    device_timeout_s: float
    codes: tuple[str, ...]

    @classmethod
    def of(cls, job: Job, suite: Suite, *, fingerprint: str, lanes: int, device_timeout_s: float) -> Assignment:
        """The job of a suite."""
        trials = tuple(planned.spec for planned in job.trials)
        codes = tuple(planned.code for planned in job.trials)
        own = replace(suite, trials=trials, candidates=(), tuning=None)
        return cls(job, own, fingerprint, lanes, device_timeout_s, codes)

    def placed(self, folder: Path) -> Assignment:
        """The same, where the trials lie in another results folder."""
        trials = tuple(replace(planned, folder=folder / "trials" / planned.spec.id) for planned in self.job.trials)
        return replace(self, job=replace(self.job, trials=trials))

    def packed(self) -> bytes:
        """As bytes, which only a process that has loaded the same plugins can unpack."""
        return pickle.dumps(self)

    def packed_to_travel(self) -> tuple[bytes, dict[str, Path]]:
        """As bytes for another machine, and the files that must lie there in the job's folder, by their paths in it.

        These are weights and whatever else trials name. What a data set names each machine has itself.
        """
        _, params = self.suite.source
        pickler = _Travelling({value for _, value in params if isinstance(value, Path)} | {self.suite.file})
        pickler.dump(self)
        return pickler.buffer.getvalue(), {name: file for file, name in pickler.names.items()}

    @staticmethod
    def unpacked(data: bytes, folder: Path) -> Assignment:
        """What was packed. Files that travelled with it lie in the folder."""
        found = _Arriving(data, folder).load()
        assert isinstance(found, Assignment)
        return found


class _Travelling(pickle.Pickler):
    """Notes in `names` every path to a file that is packed, but for those that stay."""

    def __init__(self, stay: Collection[Path]) -> None:
        self.buffer = io.BytesIO()
        self.names: dict[Path, str] = {}
        self._stay = stay
        super().__init__(self.buffer)

    def persistent_id(self, value: object) -> str | None:
        """The path in the job's folder where the file will lie; None for anything else."""
        if not isinstance(value, Path) or value in self._stay or not value.is_file():
            return None
        return self.names.setdefault(value, f"files/{len(self.names)}/{value.name}")


class _Arriving(pickle.Unpickler):
    """Finds files that travelled in the job's folder."""

    def __init__(self, data: bytes, folder: Path) -> None:
        super().__init__(io.BytesIO(data))  # written by the process that started this one
        self._folder = folder

    def persistent_load(self, name: str) -> Path:
        """The file of this name."""
        return self._folder / name


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
        blameless: whether it cannot be the job's fault: the machine is lost, say.
    """

    reason: str
    log: str = ""
    ends_run: bool = False
    blameless: bool = False


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


def refuse_other_code(assignment: Assignment, *, host: str) -> None:
    """See that a worker has the same code as the process that sent the job.

    Raises:
        KdbenchError: it has not.
    """
    for planned, code in zip(assignment.job.trials, assignment.codes, strict=True):
        if trial_code(planned.spec) != code:
            raise KdbenchError(
                f"the code of {planned.spec.method} on {host} differs from that of the process that started the run. Install the "
                "same on every machine, and change no file of a method while it runs."
            )


def halves(job: Job) -> list[Job]:
    """The job as two that together train the same trials; itself where it has one trial."""
    middle = (len(job.trials) + 1) // 2
    return [replace(job, trials=part) for part in (job.trials[:middle], job.trials[middle:]) if part]


def without(job: Job, ended: Iterable[str]) -> Job | None:
    """The job without some of its trials; None where none is left."""
    return part(job, {planned.spec.id for planned in job.trials}.difference(ended)) if job.stages is None else job


def part(job: Job, units: Collection[str]) -> Job | None:
    """The job with those alone of its trials, or of its stages, that have these ids; None where it has none of them."""
    if job.stages is not None:
        stages = tuple(stage for stage in job.stages if stage.id in units)
        return replace(job, stages=stages) if stages else None
    trials: tuple[Planned, ...] = tuple(planned for planned in job.trials if planned.spec.id in units)
    return replace(job, trials=trials) if trials else None
