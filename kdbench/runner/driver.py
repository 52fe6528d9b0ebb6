"""Gives jobs to the places of an engine, and is the one writer of what comes of them."""

from __future__ import annotations

import shutil
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.results.store import Store
from kdbench.runner.assignment import Assignment, Died, Ended, News, Ready, Recorded, Resumed, Said, Trained, halves, part, without
from kdbench.runner.deaths import MOST_DEATHS, Deaths
from kdbench.runner.engines import Engine, Place
from kdbench.runner.job import Job
from kdbench.runner.job_folder import LOG, add_to_log, bring_home, bring_trial_home, has_come_further, lay_out, new_folder, read_log
from kdbench.runner.plan import Planned
from kdbench.runner.progress import Progress
from kdbench.runner.sharing import Alone, Taken
from kdbench.spec.record import Environment, Record
from kdbench.wording import counted

WAIT_S = 0.5
"""How long news are waited for before `stop` is asked again."""


@dataclass(eq=False)
class Running:
    """A job at a place.

    Attributes:
        ended: of its trials, those that have a record.
        at_once: how many jobs have run on its machine at once.
        lost: what it gives that another run has taken over: that is not brought home.
    """

    job: Job
    folder: Path
    ended: set[str] = field(default_factory=set)
    at_once: int = 1
    lost: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Driver:
    """Runs jobs on an engine, each after those that it needs.

    Attributes:
        stop: asked now and then whether to stop at the end of the epoch.
        assign: makes of a job what a worker is sent.
        record_failure: `(planned, reason, log, environment)`: records as failed a trial that no worker can train.
        recorded: is told of every record that comes home.
        jobs: says which jobs are this run's, where others work on the same directory.
        open: what jobs give that have not ended, trials and stages, by id.
        deaths: of workers, and the places that get no more jobs.
        working: the places that have a worker, with what it runs on.
        said: what workers had people told; others say the same of the same teacher.
    """

    store: Store
    engine: Engine
    progress: Progress
    stop: Callable[[], bool]
    assign: Callable[[Job], Assignment]
    record_failure: Callable[[Planned, str, str, Environment], None]
    recorded: Callable[[Record], None]
    jobs: Alone = field(default_factory=Alone)
    waiting: deque[Job] = field(default_factory=deque)
    running: dict[Place, Running] = field(default_factory=dict)
    open: Counter[str] = field(default_factory=Counter)
    working: dict[Place, Environment] = field(default_factory=dict)
    deaths: Deaths = field(default_factory=Deaths)
    said: set[str] = field(default_factory=set)

    def run(self, jobs: Iterable[Job]) -> bool:
        """Run jobs, each after those that it needs; False when stopped.

        Raises:
            KdbenchError: a job meets a fault of the machine wherever it runs, or no place is left. What is finished is kept.
        """
        self._wait_for(jobs)
        stopping = False
        try:
            while self.running or (self.waiting and not stopping):
                if not stopping and self.stop():
                    stopping = True
                    self.engine.stop()
                self._notice_lost()
                if not stopping:
                    self._start_what_can()
                self.progress.waiting(len(self.waiting))
                for place, news in self.engine.news(WAIT_S):
                    self._hear(place, news)
        finally:
            if self.running:
                self.engine.close()
                for running in self.running.values():
                    self._bring_home(running)
                self.running.clear()
        return not self.waiting

    def _wait_for(self, jobs: Iterable[Job], *, first: bool = False) -> None:
        found = list(jobs)
        for job in found:
            self.open.update(job.gives)
        if first:
            self.waiting.extendleft(reversed(found))
        else:
            self.waiting.extend(found)

    def _start_what_can(self) -> None:
        if self.running and (not self.waiting or len(self.running) >= len(self.engine.places)):
            return
        idle = (place for place in self.engine.places if place not in self.running)
        free = {place: None for place in idle if place not in self.deaths.left_out}
        if not free and not self.running:
            if self.engine.capacity <= len(self.engine.places):
                reasons = "; ".join(f"{place.name}: {reason}" for place, reason in self.deaths.left_out.items())
                raise KdbenchError(f"no device is left to train on ({reasons}). See the logs in {self.store.jobs}.")
            if self.deaths.left_out:
                self._say_once("every device that has come is left out. The run waits for another one; Ctrl-C stops it.")
        passed_over: list[Job] = []
        others = 0
        while free and self.waiting:
            job = self.waiting.popleft()
            if any(self.open[needed] for needed in job.needs) or not (place := self._place(job, free)):
                passed_over.append(job)
                continue
            taken = self._take(job)
            if taken.left:
                passed_over.append(taken.left)
                others += 1
            if taken.mine:
                del free[place]
                self._start(taken.mine, place)
        self.waiting.extendleft(reversed(passed_over))
        if others and not self.running:
            self._say_once(f"waiting for {counted(others, 'job')} of other runs.")

    def _place(self, job: Job, free: Collection[Place]) -> Place | None:
        """The first of the free places where no worker died of the job, or of all where workers died of it everywhere."""
        tried = self.deaths.of(job.id)
        everywhere = tried.issuperset(self.running) and tried.issuperset(free)
        return next((place for place in free if everywhere or place not in tried), None)

    def _take(self, job: Job) -> Taken:
        """What of a job this run is to train now, and what other runs train, or have trained."""
        taken = self.jobs.take(job)
        self.open.subtract(job.gives)
        for found in filter(None, (taken.mine, taken.left)):
            self.open.update(found.gives)
        self._tell_of_others(taken)
        return taken

    def _notice_lost(self) -> None:
        """Stop what other runs have taken over."""
        if not (lost := self.jobs.lost()):
            return
        for place, running in self.running.items():
            self._lose(running, running.job.gives & lost)
            if running.job.gives <= running.lost | running.ended:
                self.engine.cancel(place)

    def _lose(self, running: Running, units: Collection[str]) -> None:
        if units and not running.lost:
            self.progress.say(
                f"another run has taken over {running.job.label}, since this one was not heard of for --claim-timeout. What it "
                "made of it since is thrown away."
            )
        running.lost.update(units)

    def _holds(self, running: Running, unit: str) -> bool:
        """Whether what a job makes of a trial is to be brought home."""
        if not self.jobs.holds(unit):
            self._lose(running, {unit})
        return unit not in running.lost

    def _start(self, job: Job, place: Place) -> None:
        folder = new_folder(self.store, job, owner=self.jobs.owner)
        lay_out(self.store, job, folder)
        self.running[place] = Running(job, folder)
        beside = [running for other, running in self.running.items() if other.host == place.host]
        for running in beside:
            running.at_once = max(running.at_once, len(beside))
        self.progress.job_started(place, job, log=folder / LOG)
        self.engine.start(place, self.assign(job), folder)

    def _hear(self, place: Place, news: News) -> None:
        if not (running := self.running.get(place)):
            if isinstance(news, Died):
                self.working.pop(place, None)
            return
        match news:
            case Ready(environment):
                self.working[place] = environment
                self._say_where_devices_differ()
            case Said(text):
                add_to_log(running.folder, f"{text}\n".encode())
                self._say_once(text)
            case Resumed(lane):
                self.progress.resumed(lane, place)
            case Trained(report):
                self.progress.epoch(report, place)
            case Recorded(trial):
                if self._holds(running, trial):
                    self._tell(running, bring_trial_home(self.store, running.folder, trial, at_once=running.at_once))
            case Ended(finished):
                self.deaths.worked(place)
                left = self._end(place)
                self.progress.job_ended(place, done=finished)
                if left and not finished:
                    self._wait_for([left], first=True)
            case Died(reason, log):
                add_to_log(running.folder, f"{reason}\n{log}".rstrip().encode() + b"\n")
                further = has_come_further(self.store, running.folder)
                left = self._end(place)
                self.progress.job_ended(place, done=not left)
                if left:
                    self._after_death(left, place, news, further=further, log=read_log(running.folder))
                if reason := self.deaths.left_out.get(place, ""):
                    self._say_once(f"{place.name} is left out from here on, since {MOST_DEATHS} workers died there: {reason}.")
                self.working.pop(place, None)

    def _say_once(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.progress.say(text)

    def _say_where_devices_differ(self) -> None:
        devices = sorted({environment.device for environment in self.working.values()})
        if len(devices) > 1:
            self._say_once(
                f"warning: jobs run on different devices ({', '.join(devices)}): last bits may differ from one student to another."
            )

    def _after_death(self, job: Job, place: Place, died: Died, *, further: bool, log: str) -> None:
        """Give what is left of a job to another worker, or find out which of its trials it is that ends workers."""
        reason = died.reason
        if place not in self.working:
            self.deaths.before_any_job(place, reason)
            self._wait_for([job], first=True)
            return
        if not (fault := self.deaths.fault(job.id, place, died, further=further)):
            self._wait_for([job], first=True)
            self.progress.say(f"{reason}. Another worker continues what it was training, from the last whole epoch: {job.label}.")
            return
        if died.ends_run:
            raise KdbenchError(reason)
        if job.stages is None and len(job.trials) > 1:
            self.progress.say(f"{reason}. The fault goes with what was trained, which is now tried in halves: {job.label}.")
            self._wait_for(halves(job), first=True)
        elif job.stages is None:
            taken = self.jobs.take(job)
            if taken.mine:
                self.record_failure(job.trials[0], f"{fault}, the last time: {reason}", log, self.working[place])
                self.jobs.release(job)
            elif taken.left:
                self._wait_for([job])
            self._tell_of_others(taken)

    def _end(self, place: Place) -> Job | None:
        """The job at a place has ended: bring it home; what is left of it."""
        running = self.running.pop(place)
        self._bring_home(running)
        self._let_go(running.job)
        if lost := part(running.job, running.lost - running.ended):
            self._wait_for([lost])
        return without(running.job, running.ended | running.lost)

    def _let_go(self, job: Job) -> None:
        """A job of this run is at home."""
        self.open.subtract(job.gives)
        self.jobs.release(job)

    def _bring_home(self, running: Running) -> None:
        for record in bring_home(self.store, running.folder, at_once=running.at_once, holds=partial(self._holds, running)):
            self._tell(running, record)

    def _tell(self, running: Running, record: Record | None) -> None:
        """Tell that a trial has ended in a job of this run, where it has a record."""
        if record:
            running.ended.add(record.trial)
            self._recorded(record)

    def _tell_of_others(self, taken: Taken) -> None:
        """Tell of the trials that have ended in other runs."""
        for record in filter(None, map(self.store.record, taken.ended)):
            self._recorded(record)

    def _recorded(self, record: Record) -> None:
        self.recorded(record)
        self.progress.recorded(record)


def recover(store: Store) -> None:
    """Bring home what jobs left whose process was killed, and take away the logs of jobs that are over."""
    for folder in sorted(store.jobs.glob("*/")):
        bring_home(store, folder)
        shutil.rmtree(folder)
