"""What runs on a results directory tell of themselves: a small file for each, to be read from anywhere, without torch.

A file stands for what its run knows, and counts for as long as it is written anew.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any

from pydantic import PlainSerializer, TypeAdapter, ValidationError

from kdbench.files import write_bytes
from kdbench.results.processes import is_over, this_process

RUNS = "runs"

SILENT_AFTER_S = 120.0
"""A run whose file has not been written for so long has died, or its machine is out of reach. Clocks may differ by a minute."""


def time_text(time: datetime) -> str:
    """In UTC, as in `2026-11-27T14:02:05Z`."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


Time = Annotated[datetime, PlainSerializer(time_text, when_used="json")]


class State(StrEnum):
    """Whether a run goes on, as far as its file tells."""

    RUNNING = "running"
    """It has written lately."""
    ENDED = "ended"
    """It says how it ended."""
    KILLED = "killed"
    """Its process is gone, without a word."""
    SILENT = "silent"
    """It has not written lately, and its process cannot be seen from here."""


@dataclass(frozen=True)
class Counts:
    """Of jobs or of trials: how many of them stand where."""

    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0


@dataclass(frozen=True)
class LaneNow:
    """What a job trains, after its last epoch.

    Attributes:
        name: of the method, or of what is learnt from a teacher alone.
        trial: None for what is learnt from a teacher alone.
        epochs: of its main training that are behind it.
        train_loss: the mean of the last epoch's loss; None where it is not finite, or there is none.
        test_error_pct: the last one; None where there is none, and always where the trial chooses among settings.
        validation_error_pct: the last one; None where no images are held out.
    """

    name: str
    trial: str | None
    epochs: int
    train_loss: float | None = None
    test_error_pct: float | None = None
    validation_error_pct: float | None = None


@dataclass(frozen=True)
class JobNow:
    """A job that runs.

    Attributes:
        place: such as `cuda:1`.
        label: what it trains.
        trials: how many students of the suite it trains that have not ended; a teacher is none.
        epoch: the last one, of the main training or, where that is not `main`, of a stage before it; 0 before the first.
        epochs: of a main training.
        left_s: at its own pace; None before that is known.
        log: below the results directory; None where it has none.
    """

    place: str
    host: str
    label: str
    since: Time
    trials: int
    epoch: int
    main: bool
    epochs: int
    left_s: float | None = None
    log: str | None = None
    lanes: tuple[LaneNow, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A trial that failed in this run.

    Attributes:
        what: method, pair and seed.
        log: `failure.txt` of its folder, as a path below the results directory; None where no exception was the reason.
    """

    trial: str
    what: str
    reason: str
    log: str | None


@dataclass(frozen=True)
class Ended:
    """How a run ended: `finished`, where every trial has ended, whatever becomes of the report; `stopped`; or `error` with what to
    read."""

    how: str
    when: Time
    reason: str = ""


@dataclass(frozen=True)
class RunNow:
    """Where a run stands.

    Attributes:
        suite: its name, the stem of its file.
        process: `host`, `namespace`, `pid` and `started`.
        engine: `here`, `local` and the like.
        device: as it was asked for.
        tries_settings: whether it is at the trials that choose settings, and others come after them.
        jobs: of this run; a job has no failures.
        trials: the students that it needs in the part at hand; done and failed are also those from before. All 0 while it starts.
        epochs: of main trainings and of stages before them that are behind it, of `of_epochs`.
        left_s: seconds left at its pace so far; None before that is known.
        running: the jobs that run; of a run that has ended, those that it left unfinished.
        said: the last lines that it printed.
    """

    suite: str
    file: str
    process: dict[str, Any]
    user: str
    since: Time
    engine: str
    device: str
    tries_settings: bool = False
    jobs: Counts = Counts()
    trials: Counts = Counts()
    epochs: int = 0
    of_epochs: int = 0
    left_s: float | None = None
    running: tuple[JobNow, ...] = ()
    failures: tuple[Failure, ...] = ()
    said: tuple[str, ...] = ()
    ended: Ended | None = None

    @property
    def host(self) -> str:
        """The machine of its process."""
        return str(self.process["host"])

    @property
    def students(self) -> Iterator[tuple[JobNow, LaneNow]]:
        """What `running` has of students of the suite, each with its job."""
        return ((job, lane) for job in self.running if job.trials for lane in job.lanes if lane.trial)

    def as_json(self) -> dict[str, Any]:
        """The same as values for JSON, times in the form of `time_text`."""
        found: dict[str, Any] = _RUN.dump_python(self, mode="json")
        return found


_RUN: TypeAdapter[RunNow] = TypeAdapter(RunNow)


@dataclass(frozen=True)
class RunFile:
    """The file of the run of this process.

    Args:
        root: the results directory.
    """

    root: Path
    process: dict[str, Any] = field(default_factory=this_process)
    token: str = field(default_factory=lambda: token_hex(4))

    @property
    def path(self) -> Path:
        """`runs/HOST-PID-TOKEN.json`."""
        return self.root / RUNS / f"{self.process['host']}-{self.process['pid']}-{self.token}.json"

    def write(self, now: RunNow) -> None:
        """Write it whole; where that cannot be done, the run goes on all the same, and nobody can watch it."""
        try:
            write_bytes(self.path, _RUN.dump_json(now), durable=False)
        except OSError:
            return

    def remove(self) -> None:
        """Take it away, so that nothing tells of the run."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Found:
    """A run as it was found.

    Attributes:
        written: when its file was written.
    """

    path: Path
    now: RunNow
    state: State
    written: datetime

    @property
    def silent_s(self) -> float:
        """How long ago that was; 0 where its clock is ahead of this one."""
        return max((datetime.now(UTC) - self.written).total_seconds(), 0.0)


def find_runs(root: Path) -> list[Found]:
    """All runs of a results directory that have a file, those that began first first.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(_found(root / RUNS), key=lambda found: found.now.since)


def forget_ended(root: Path, suite: str) -> None:
    """Take away the files of a suite's runs that are over; those that another user must take away stay."""
    for found in find_runs(root):
        if found.now.suite == suite and found.state is not State.RUNNING:
            try:
                found.path.unlink(missing_ok=True)
            except OSError:
                continue


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return str(os.getuid())


def _found(folder: Path) -> Iterator[Found]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if name.startswith(".") or not name.endswith(".json"):
            continue
        path = folder / name
        try:
            now, written = _RUN.validate_json(path.read_bytes()), datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except (FileNotFoundError, ValidationError):  # taken away meanwhile, or of another version
            continue
        yield Found(path, now, _state(now, written), written)


def _state(now: RunNow, written: datetime) -> State:
    if now.ended:
        return State.ENDED
    if is_over(now.process):
        return State.KILLED
    return State.SILENT if (datetime.now(UTC) - written).total_seconds() > SILENT_AFTER_S else State.RUNNING
