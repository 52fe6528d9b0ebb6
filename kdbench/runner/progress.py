"""What a run tells while it goes: bars with the time left on a terminal, plain lines when piped, nothing for a library."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.method.specs import setting
from kdbench.spec.trial import TrialSpec

if TYPE_CHECKING:
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
    """

    name: str
    trial: str | None
    epochs: int
    loss: float | None
    errors_pct: Mapping[str, float]

    @classmethod
    def of(cls, lane: Lane, trial: str | None) -> LaneReport:
        """Of a lane as it is now."""
        row = lane.rows[-1] if lane.rows else {}
        behind = lane.main_epochs if lane.failure else lane.main_epochs - lane.epochs_left
        errors: dict[str, float] = {name: float(row[name]) for name in ("test_error_pct", "validation_error_pct") if name in row}
        return cls(lane.name, trial, behind if trial else 0, row.get("train_loss"), errors)


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
    def of(cls, now: Position, lanes: Iterable[tuple[Lane, str | None]]) -> EpochReport:
        """Of lanes, each with the trial that it trains."""
        return cls(now.epoch + 1, bool(now.phase), tuple(LaneReport.of(lane, trial) for lane, trial in lanes))

    @property
    def text(self) -> str:
        """For people: which epoch, and of what."""
        stage = "" if self.main else " of a stage before the main training"
        return f"epoch {self.epoch}{stage}: {', '.join(lane.name for lane in self.lanes)}"


class Progress(ABC):
    """Counts epochs of main trainings over all trials; stages before them are named and not counted."""

    def __init__(self) -> None:
        self.total = 0
        self._began = time.monotonic()
        self._behind: dict[str, int] = {}
        self._skipped = 0

    def begin(self, total: int) -> None:
        """The run, or its next part, has `total` epochs of main trainings before it."""
        self.total, self._began = total, time.monotonic()
        self._behind, self._skipped = {}, 0

    @property
    def done(self) -> int:
        """How many of these epochs are over."""
        return sum(self._behind.values())

    def resumed(self, lane: LaneReport) -> None:
        """A lane goes on from its checkpoint: the epochs that it has behind it are done."""
        if lane.trial and lane.trial not in self._behind:  # it is there where a group that did not fit begins again
            self._behind[lane.trial] = lane.epochs
            self._skipped += lane.epochs

    def epoch(self, report: EpochReport) -> None:
        """Lanes have trained one epoch; those that failed in it have none left."""
        self.count(report)
        self.show(report.text)

    def count(self, report: EpochReport) -> None:
        """Let `done` be up to date."""
        self._behind.update((lane.trial, lane.epochs) for lane in report.lanes if lane.trial)

    @property
    def left_s(self) -> float | None:
        """Seconds left at the pace so far; None before there is one."""
        done = self.done - self._skipped
        return (time.monotonic() - self._began) / done * (self.total - self.done) if done > 0 else None

    def recorded(self, record: Record) -> None:
        """A trial has ended."""
        self.say(outcome_text(record))

    @abstractmethod
    def say(self, text: str) -> None:
        """A line that stays."""

    @abstractmethod
    def show(self, text: str) -> None:
        """What is going on now; `done`, `total` and `left_s` are up to date."""

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
            left = f", {clock(self.left_s)} left" if self.left_s is not None else ""
            print(f"[{self.done}/{self.total} epochs{left}] {text}", flush=True)


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

    def begin(self, total: int) -> None:
        super().begin(total)
        self._bars.start()

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False)

    def show(self, text: str) -> None:
        left = clock(self.left_s) if self.left_s is not None else "?"
        short = text if len(text) < 60 else text[:57] + "..."
        self._bars.update(self._task, completed=self.done, total=self.total, description=short, left=left)

    def end(self) -> None:
        self._bars.stop()


def outcome_text(record: Record) -> str:
    """One line on how a trial ended."""
    pair = f"{record.teacher} -> {record.student}" if record.teacher else record.student
    method = setting(TrialSpec.model_validate(record.spec))
    if record.status == "failed":
        return f"FAILED {method}, {pair}, seed {record.seed}: {record.reason}"
    if record.tuning:
        return f"tried {method}, {pair}, seed {record.seed}: validation error {record.validation_error_pct:.2f} %"
    return f"done {method}, {pair}, seed {record.seed}: test error {record.test_error_pct:.2f} %"


def clock(seconds: float | None) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def for_stream() -> Progress:
    """Bars where standard output is a terminal, lines where it is not."""
    return Bars() if sys.stdout.isatty() else Lines()
