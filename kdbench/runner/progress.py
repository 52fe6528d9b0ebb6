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
from kdbench.runner.pace import Pace
from kdbench.spec.trial import TrialSpec
from kdbench.suite.teacher_stages import TeacherStage
from kdbench.training.segments import MAIN, STAGES
from kdbench.wording import clock

if TYPE_CHECKING:
    from kdbench.runner.engines.engine import Place
    from kdbench.runner.job import Job
    from kdbench.runner.plan import Planned
    from kdbench.spec.record import Record
    from kdbench.training.lane import Lane
    from kdbench.training.segments import Position


BAR = 20
"""Columns of the bar: on a terminal with 80 of them there is room for the epoch and for the numbers."""


@dataclass(frozen=True)
class LaneReport:
    """Where a lane stands after an epoch.

    Attributes:
        trial: that it trains; None for a stage that learns from a teacher alone.
        epochs: of its main training that are behind it, all of them where it has failed.
        loss: the mean of the epoch's training loss; None where there is none.
        errors_pct: what it was tested on after the epoch, in percent.
        pair: of a student, for people; empty for others.
        stage: the id of the stage that learns from a teacher alone; None for a trial.
        stage_epochs: of stages, as `epochs` of the main training.
        whole: how many it has in all; 0 where that is not known.
    """

    name: str
    trial: str | None
    epochs: int
    loss: float | None
    errors_pct: Mapping[str, float]
    pair: str = ""
    stage: str | None = None
    stage_epochs: int = 0
    whole: int = 0

    @classmethod
    def of(cls, lane: Lane, trains: Planned | TeacherStage) -> LaneReport:
        """Of a lane as it is now, and what it trains."""
        row = lane.rows[-1] if lane.rows else {}
        errors: dict[str, float] = {name: float(row[name]) for name in ("test_error_pct", "validation_error_pct") if name in row}
        stages, main = map(lane.behind, (STAGES, MAIN))
        loss, whole = row.get("train_loss"), sum(segment.epochs for segment in lane.segments)
        if isinstance(trains, TeacherStage):
            return cls(lane.name, None, main, loss, errors, stage=trains.id, stage_epochs=stages, whole=whole)
        pair = "" if trains.teaches else pair_label(trains.spec)
        return cls(lane.name, trains.spec.id, main, loss, errors, pair, stage_epochs=stages, whole=whole)

    @property
    def unit(self) -> str:
        """The id of the trial or of the stage."""
        return self.trial or self.stage or self.name

    @property
    def behind(self) -> int:
        """Epochs that are behind it, of stages and of the main training."""
        return self.stage_epochs + self.epochs


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
    def of(cls, now: Position, lanes: Iterable[tuple[Planned | TeacherStage, Lane]]) -> EpochReport:
        """Of lanes, each with what it trains."""
        return cls(now.epoch + 1, now.phase == MAIN, tuple(LaneReport.of(lane, trains) for trains, lane in lanes))

    def text(self, *, pairs: bool) -> str:
        """For people: which epoch, and of what, with their pairs where these are asked for."""
        epoch = "epoch" if self.main else "stage epoch"
        by_pair = groupby(self.lanes, key=lambda lane: f"{lane.pair}: " if pairs and lane.pair else "")
        return f"{epoch} {self.epoch}: {'; '.join(pair + ', '.join(lane.name for lane in lanes) for pair, lanes in by_pair)}"


@dataclass(frozen=True)
class Part:
    """What a run has before it: all of it, or of a tuned suite first the trials that choose settings, then the others.

    Attributes:
        epochs: as in `Pace`; those of teachers are included.
        behind: as in `Pace`.
        stages: as in `Pace`.
        trials: the ids of the students to train.
        done: students that were done before.
        failed: students that failed before and stay so.
        tries_settings: whether its students choose among settings, so that their test errors are no results.
        several_pairs: whether the suite has more than one.
        expected_s: as in `Pace`.
    """

    epochs: Mapping[str, int] = field(default_factory=dict)
    behind: Mapping[str, int] = field(default_factory=dict)
    stages: Mapping[str, Set[str]] = field(default_factory=dict)
    trials: Set[str] = frozenset()
    done: int = 0
    failed: int = 0
    tries_settings: bool = False
    several_pairs: bool = False
    expected_s: float | None = None


class Progress(ABC):
    """Is told what happens in a run, and shows it: each method with a docstring that begins with what has happened is an event.

    Attributes:
        part: the run, or the part of it that is at hand.
        pace: over all its trials.
    """

    def __init__(self) -> None:
        self.part, self.pace = Part(), Pace()

    def begin(self, part: Part) -> None:
        """The run, or its next part, has this before it."""
        self.part, self.pace = part, Pace(dict(part.epochs), dict(part.behind), part.stages, part.expected_s)

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
        self.pace.end(record.trial)
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
    """One bar with the current epoch before it, and the count and the time left behind."""

    def __init__(self) -> None:
        super().__init__()
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(BAR),
            MofNCompleteColumn(),
            TextColumn("epochs, {task.fields[left]} left"),
        )
        self._task = self._bars.add_task("starting", total=None, left="?")

    def begin(self, part: Part) -> None:
        super().begin(part)
        self._bars.update(self._task, completed=self.pace.done, total=self.pace.total, left=self._left)
        self._bars.start()

    @property
    def _left(self) -> str:
        return clock(left_s) if (left_s := self.pace.left_s) is not None else "?"

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False)

    def show(self, text: str) -> None:
        left, total = self._left, self.pace.total
        room = max(self._bars.console.width - BAR - len(f"  {total}/{total} epochs, {left} left"), len("stage epoch 100"))
        short = text if len(text) <= room else f"{text[: room - 3]}..."
        self._bars.update(self._task, completed=self.pace.done, total=total, description=short, left=left)

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
