"""What a run tells while it goes: bars with the time left on a terminal, plain lines when piped, nothing for a library."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.method.specs import pair_label, teacher_label
from kdbench.spec.trial import TrialSpec
from kdbench.wording import clock

if TYPE_CHECKING:
    from kdbench.runner.engines.engine import Place
    from kdbench.runner.job import Job
    from kdbench.runner.plan import Planned
    from kdbench.spec.record import Record
    from kdbench.training.lane import Lane
    from kdbench.training.segments import Position


@dataclass(frozen=True)
class LaneReport:
    """Where a lane stands after an epoch.

    Attributes:
        trial: that it trains; None for a stage that learns from a teacher alone.
        epochs: of its main training that are behind it, all of them where it has failed.
        loss: the mean of the epoch's training loss; None where there is none.
        errors_pct: what it was tested on after the epoch, in percent.
        pair: of a student, for people; empty for others.
    """

    name: str
    trial: str | None
    epochs: int
    loss: float | None
    errors_pct: Mapping[str, float]
    pair: str = ""

    @classmethod
    def of(cls, lane: Lane, trains: Planned | None) -> LaneReport:
        """Of a lane as it is now, and the trial that it trains."""
        row = lane.rows[-1] if lane.rows else {}
        behind = lane.main_epochs if lane.failure else lane.main_epochs - lane.epochs_left
        errors: dict[str, float] = {name: float(row[name]) for name in ("test_error_pct", "validation_error_pct") if name in row}
        pair = pair_label(trains.spec) if trains and not trains.teaches else ""
        return cls(lane.name, trains.spec.id if trains else None, behind if trains else 0, row.get("train_loss"), errors, pair)


@dataclass(frozen=True)
class EpochReport:
    """An epoch that some lanes have trained side by side.

    Attributes:
        epoch: which one of its phase, from 1.
        main: whether it is of the main training; a stage comes before that.
    """

    epoch: int
    main: bool
    lanes: tuple[LaneReport, ...]

    @classmethod
    def of(cls, now: Position, lanes: Iterable[tuple[Lane, Planned | None]]) -> EpochReport:
        """Of lanes, each with the trial that it trains."""
        return cls(now.epoch + 1, bool(now.phase), tuple(LaneReport.of(lane, trains) for lane, trains in lanes))

    def text(self, *, pairs: bool) -> str:
        """For people: which epoch, and of what, with their pairs where these are asked for."""
        stage = "" if self.main else " of a stage before the main training"
        by_pair = groupby(self.lanes, key=lambda lane: f"{lane.pair}: " if pairs and lane.pair else "")
        return f"epoch {self.epoch}{stage}: {'; '.join(pair + ', '.join(lane.name for lane in lanes) for pair, lanes in by_pair)}"


@dataclass(eq=False)
class Pace:
    """How fast epochs of main trainings go by; stages before them are not counted.

    Attributes:
        total: how many there are, with those that an earlier run trained.
        behind: by trial, how many are over; at first those that checkpoints have.
        done: how many that is of all trials.
        resumed: how many of them checkpoints had, or other runs have trained.
        begun: where epochs have ended; None is this process. The first that end in each place are not timed: in them the start is.
        untimed: how many epochs these were.
        since: when the first of all ended, by the monotonic clock.
    """

    total: int
    behind: dict[str, int] = field(default_factory=dict)
    done: int = field(init=False)
    resumed: int = field(init=False)
    begun: set[Place | None] = field(default_factory=set)
    untimed: int = 0
    since: float = 0.0

    def __post_init__(self) -> None:
        self.done = self.resumed = sum(self.behind.values())

    @property
    def left_s(self) -> float | None:
        """Seconds left at the pace so far; None before there is one."""
        timed = self.done - self.resumed - self.untimed
        return (time.monotonic() - self.since) / timed * (self.total - self.done) if timed > 0 else None

    def resume(self, lane: LaneReport) -> None:
        """A lane stands at so many epochs, those of its checkpoint or none where that cannot be used: they took no time."""
        if lane.trial:
            self.resumed += lane.epochs - self.behind.get(lane.trial, 0)
            self._set(lane.trial, lane.epochs)

    def end(self, record: Record) -> None:
        """A trial has ended, here or in another run: none of its epochs is left, and those trained elsewhere took no time."""
        self.resumed += record.epochs - self.behind.get(record.trial, 0)
        self._set(record.trial, record.epochs)

    def count(self, report: EpochReport, place: Place | None = None) -> None:
        """Lanes have trained one epoch; those that failed in it have none left."""
        before = self.done
        for lane in report.lanes:
            if lane.trial:
                self._set(lane.trial, lane.epochs)
        if self.done > before and place not in self.begun:
            if not self.begun:
                self.since = time.monotonic()
            self.begun.add(place)
            self.untimed += self.done - before

    def _set(self, trial: str, epochs: int) -> None:
        self.done += epochs - self.behind.get(trial, 0)
        self.behind[trial] = epochs


@dataclass(frozen=True)
class Part:
    """What a run has before it: all of it, or of a tuned suite first the trials that choose settings, then the others.

    Attributes:
        epochs: of main trainings, those of teachers included.
        behind: by trial, how many of them its checkpoint has.
        trials: the ids of the students to train.
        done: students that were done before.
        failed: students that failed before and stay so.
        tries_settings: whether its students choose among settings, so that their test errors are no results.
        several_pairs: whether the suite has more than one.
    """

    epochs: int
    behind: Mapping[str, int] = field(default_factory=dict)
    trials: Set[str] = frozenset()
    done: int = 0
    failed: int = 0
    tries_settings: bool = False
    several_pairs: bool = False


class Progress(ABC):
    """Is told what happens in a run, and shows it: each method with a docstring that begins with what has happened is an event.

    Attributes:
        part: the run, or the part of it that is at hand.
        pace: over all its trials.
    """

    def __init__(self) -> None:
        self.part, self.pace = Part(0), Pace(0)

    def begin(self, part: Part) -> None:
        """The run, or its next part, has this before it."""
        self.part, self.pace = part, Pace(part.epochs, dict(part.behind))

    def waiting(self, jobs: int) -> None:
        """So many jobs wait for a place or for other jobs."""
        return

    def job_started(self, place: Place, job: Job, *, log: Path | None = None) -> None:
        """A job runs at a place, and what it says and warns of lies in the log."""
        return

    def job_ended(self, place: Place, *, done: bool) -> None:
        """The job at a place is done, or was stopped, or its worker died."""
        return

    def resumed(self, lane: LaneReport, place: Place | None = None) -> None:
        """A lane goes on from its checkpoint, or anew where that is of no use; the place is None for this process."""
        self.pace.resume(lane)

    def epoch(self, report: EpochReport, place: Place | None = None) -> None:
        """Lanes have trained one epoch; the place is None for this process."""
        self.pace.count(report, place)
        text = report.text(pairs=self.part.several_pairs)
        self.show(f"{place.name}: {text}" if place else text)

    def recorded(self, record: Record) -> None:
        """A trial has ended."""
        self.pace.end(record)
        self.say(outcome_text(record, teaches=record.trial not in self.part.trials))

    @abstractmethod
    def say(self, text: str) -> None:
        """A line that stays."""

    @abstractmethod
    def show(self, text: str) -> None:
        """What is going on now; `pace` is up to date."""

    def end(self) -> None:
        """The run is over, however it ended."""
        return


class Silent(Progress):
    """Tells nothing."""

    def say(self, text: str) -> None:
        return

    def show(self, text: str) -> None:
        return


class Lines(Progress):
    """Plain lines, one for the current epoch every `every_s` seconds at the most."""

    def __init__(self, *, every_s: float = 10.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._last = -every_s

    def say(self, text: str) -> None:
        print(text, flush=True)

    def show(self, text: str) -> None:
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            left = f", {clock(left_s)} left" if (left_s := self.pace.left_s) is not None else ""
            print(f"[{self.pace.done}/{self.pace.total} epochs{left}] {text}", flush=True)


class Bars(Progress):
    """One bar with the time left, and the current epoch under it."""

    def __init__(self) -> None:
        super().__init__()
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs, {task.fields[left]} left"),
        )
        self._task = self._bars.add_task("starting", total=None, left="?")

    def begin(self, part: Part) -> None:
        super().begin(part)
        self._bars.start()

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False)

    def show(self, text: str) -> None:
        left = clock(left_s) if (left_s := self.pace.left_s) is not None else "?"
        short = text if len(text) < 60 else text[:57] + "..."
        self._bars.update(self._task, completed=self.pace.done, total=self.pace.total, description=short, left=left)

    def end(self) -> None:
        self._bars.stop()


def training_text(record: Record, *, teaches: bool) -> str:
    """What was trained: `kd, wrn_40_2 -> wrn_16_2, seed 0`, or `teacher wrn_40_2, seed 0`."""
    if teaches:
        spec = TrialSpec.model_validate(record.spec)
        return f"teacher {teacher_label(spec)}" + (f", seed {record.seed}" if spec.methods else "")
    pair = f"{record.teacher} -> {record.student}" if record.teacher else record.student
    return f"{record.setting or record.method}, {pair}, seed {record.seed}"


def outcome_text(record: Record, *, teaches: bool) -> str:
    """One line on how a trial ended."""
    training = training_text(record, teaches=teaches)
    if record.status == "failed":
        return f"FAILED {training}: {record.reason}"
    if record.tuning:
        return f"tried {training}: validation error {record.validation_error_pct:.2f} %"
    return f"done {training}: test error {record.test_error_pct:.2f} %"


def for_stream() -> Progress:
    """Bars where standard output is a terminal, lines where it is not."""
    return Bars() if sys.stdout.isatty() else Lines()
