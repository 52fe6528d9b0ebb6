"""Lets a run be watched from elsewhere: whatever it tells also goes into its file."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from kdbench.errors import KdbenchError, first_line
from kdbench.results.layout import FAILURE
from kdbench.results.runs import Counts, Ended, Failure, JobNow, LaneNow, RunFile, RunNow, forget_ended, user
from kdbench.results.store import Store
from kdbench.runner.engines import Place
from kdbench.runner.job import Job
from kdbench.runner.pace import Pace
from kdbench.runner.progress import EpochReport, LaneReport, Part, Progress, training_text
from kdbench.signals import Interrupted
from kdbench.spec.record import Record
from kdbench.suite.suite import Suite

EVERY_S = 1.0
"""The file is written no more often than this."""

HEARTBEAT_S = 10.0
"""It is written at least so often, so that others know that the run goes on."""

SHARE = 0.02
"""Of the time, at most, goes into writing it."""

MOST_FAILURES, MOST_SAID = 200, 5
"""So many are told; all are in the records."""


@dataclass(eq=False)
class _Running:
    """A job at a place."""

    job: Job
    log: Path | None
    pace: Pace
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    epoch: int = 0
    main: bool = True
    lanes: dict[str, LaneNow] = field(default_factory=dict)


class Watched(Progress):
    """Passes on what it is told, and keeps the run's file up to date from `with` to the end of the block.

    Args:
        shown: what the events are passed on to.
        suite: that runs.
        store: where.
        engine: the name of the engine.
        device: as it was asked for.
    """

    def __init__(self, shown: Progress, suite: Suite, store: Store, *, engine: str, device: str) -> None:
        self.part, self.pace = shown.part, shown.pace  # one for both
        self._shown, self._suite, self._store, self._engine, self._device = shown, suite, store, engine, device
        self._file, self._user, self._since = RunFile(store.root), user(), datetime.now(UTC)
        self._waiting = self._jobs_done = 0
        self._running: dict[Place, _Running] = {}
        self._left: list[tuple[Place, _Running]] = []
        self._recorded: dict[str, str] = {}
        self._failures: deque[Failure] = deque(maxlen=MOST_FAILURES)
        self._said: deque[str] = deque(maxlen=MOST_SAID)
        self._begun, self._stopped = False, False
        self._lock, self._over = threading.Lock(), threading.Event()
        self._changed = True
        self._writer = threading.Thread(target=self._keep_writing, name="kdbench-status", daemon=True)

    def __enter__(self) -> Watched:
        forget_ended(self._store.root, self._suite.name)
        self._file.write(self._now())
        self._writer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._writer.join()
        if problem and not self._begun:  # it has changed nothing: whoever started it reads why
            self._file.remove()
        else:
            self._file.write(self._now(self._ended(problem)))

    def stopped(self) -> None:
        """The run ends before all is done."""
        self._stopped = True

    def give_up(self, reason: str) -> None:
        """The process ends at once: the file says why, and the terminal is as it was."""
        self._over.set()
        self._writer.join()
        self._file.write(self._now(Ended("error", datetime.now(UTC), reason)))
        self._shown.end()

    def begin(self, part: Part) -> None:
        self._shown.begin(part)
        with self._lock:
            self.part, self.pace, self._begun = part, self._shown.pace, True
            self._jobs_done, self._changed = 0, True
            self._recorded.clear()
            self._left.clear()

    def waiting(self, jobs: int) -> None:
        self._shown.waiting(jobs)
        with self._lock:
            self._changed |= jobs != self._waiting
            self._waiting = jobs

    def job_started(self, place: Place, job: Job, *, log: Path | None = None) -> None:
        self._shown.job_started(place, job, log=log)
        with self._lock:
            pace = self.pace.of(job.gives.union(stage.id for stage in job.learnt))
            self._running[place] = _Running(job, log, pace, main=job.stages is None)
            self._left = [(where, left) for where, left in self._left if not left.job.gives & job.gives]
            self._changed = True

    def job_ended(self, place: Place, *, done: bool) -> None:
        self._shown.job_ended(place, done=done)
        with self._lock:
            ended = self._running.pop(place)
            if not done:
                self._left.append((place, ended))
            self._jobs_done += done
            self._changed = True

    def resumed(self, lane: LaneReport, place: Place | None = None) -> None:
        self._shown.resumed(lane, place)
        with self._lock:
            running = self._at(place)
            running.pace.resume(lane)
            running.epoch, running.main = (lane.epochs, True) if lane.trial else (lane.stage_epochs, False)
            self._note(running, lane)

    def epoch(self, report: EpochReport, place: Place | None = None) -> None:
        self._shown.epoch(report, place)
        with self._lock:
            running = self._at(place)
            running.pace.count(report)
            running.epoch, running.main = report.epoch, report.main
            for lane in report.lanes:
                self._note(running, lane)

    def recorded(self, record: Record) -> None:
        self._shown.recorded(record)
        with self._lock:
            if record.trial in self.part.trials:
                self._recorded[record.trial] = record.status
            if record.reason:
                what = training_text(record, teaches=record.trial not in self.part.trials)
                file = self._store.folder(record.trial) / FAILURE
                log = self._below(file) if file.exists() else None
                self._failures.append(Failure(record.trial, what, record.reason, log))
            self._changed = True

    def say(self, text: str) -> None:
        self._shown.say(text)
        with self._lock:
            self._said.append(text)
            self._changed = True

    def show(self, text: str) -> None:
        self._shown.show(text)

    def _at(self, place: Place | None) -> _Running:
        """The job at a place, or the one of this process."""
        return self._running[place] if place else next(iter(self._running.values()))

    def _note(self, running: _Running, lane: LaneReport) -> None:
        """Let the job's lane be what the report says, with the last error where it was not tested in this epoch."""
        before = running.lanes.get(lane.unit) or LaneNow(lane.name, lane.trial, 0)
        test = lane.errors_pct.get("test_error_pct", before.test_error_pct)
        held_out = lane.errors_pct.get("validation_error_pct", before.validation_error_pct)
        if self.part.tries_settings:
            test = None  # whoever chooses must not see it
        running.lanes[lane.unit] = LaneNow(lane.name, lane.trial, lane.epochs, lane.loss, test, held_out)
        self._changed = True

    def _keep_writing(self) -> None:
        written, cost_s = time.monotonic(), 0.0
        while not self._over.wait(max(EVERY_S, cost_s / SHARE)):
            began = time.monotonic()
            if self._changed or began - written >= HEARTBEAT_S:
                self._changed = False
                self._file.write(self._now())
                written = time.monotonic()
                cost_s = written - began

    def _now(self, ended: Ended | None = None) -> RunNow:
        with self._lock:
            at_hand = [*(self._left if ended else ()), *self._running.items()]
            running = tuple(self._job(place, found) for place, found in at_hand)
            at_work = 0 if ended else sum(job.trials for job in running)
            failed = sum(status == "failed" for status in self._recorded.values())
            done = len(self._recorded) - failed
            return RunNow(
                suite=self._suite.name,
                file=str(self._suite.file),
                process=self._file.process,
                user=self._user,
                since=self._since,
                engine=self._engine,
                device=self._device,
                tries_settings=self.part.tries_settings,
                jobs=Counts(self._waiting, 0 if ended else len(running), self._jobs_done),
                trials=Counts(
                    waiting=max(len(self.part.trials) - len(self._recorded) - at_work, 0),
                    running=at_work,
                    done=self.part.done + done,
                    failed=self.part.failed + failed,
                ),
                epochs=self.pace.done,
                of_epochs=self.pace.total,
                left_s=self.pace.left_s,
                running=running,
                failures=tuple(self._failures),
                said=tuple(self._said),
                ended=ended,
            )

    def _job(self, place: Place, found: _Running) -> JobNow:
        return JobNow(
            place=place.name,
            host=place.host,
            label=found.job.label,
            since=found.since,
            trials=len((found.job.gives & self.part.trials) - self._recorded.keys()),
            epoch=found.epoch,
            main=found.main,
            epochs=found.job.trials[0].spec.recipe.epochs if found.job.stages is None else 0,
            left_s=found.pace.left_s,
            log=self._below(found.log) if found.log else None,
            lanes=tuple(found.lanes.values()),
        )

    def _below(self, path: Path) -> str:
        return path.relative_to(self._store.root).as_posix()

    def _ended(self, problem: BaseException | None) -> Ended:
        now = datetime.now(UTC)
        if self._stopped or isinstance(problem, Interrupted | KeyboardInterrupt):
            return Ended("stopped", now)
        if problem is None:
            return Ended("finished", now)
        reason = str(problem) if isinstance(problem, KdbenchError) else f"{type(problem).__name__}: {first_line(problem)}"
        return Ended("error", now, reason)
