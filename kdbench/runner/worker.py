"""Runs jobs on one device, one after the other, each in a folder of its own."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kdbench.results.store import Store
from kdbench.runner.assignment import Assignment, News, Recorded, Resumed, Said, Trained, refuse_other_code, refuse_other_images
from kdbench.runner.engines import Place
from kdbench.runner.group_trainer import GroupTrainer
from kdbench.runner.job_runner import JobRunner
from kdbench.runner.progress import EpochReport, LaneReport, Progress
from kdbench.runner.recorder import Recorder
from kdbench.runner.teachers import Teacher, Teachers
from kdbench.runner.watchdog import Watchdog, end_process
from kdbench.spec.record import PROTOCOL, Record
from kdbench.training.builder import Builder


class Telling(Progress):
    """Passes on what is going on, for another process to show."""

    def __init__(self, tell: Callable[[News], None]) -> None:
        super().__init__()
        self._tell = tell

    def say(self, text: str) -> None:
        self._tell(Said(text))

    def show(self, text: str) -> None:
        return

    def resumed(self, lane: LaneReport, place: Place | None = None) -> None:
        self._tell(Resumed(lane))

    def epoch(self, report: EpochReport, place: Place | None = None) -> None:
        self._tell(Trained(report))

    def recorded(self, record: Record) -> None:
        self._tell(Recorded(record.trial))


@dataclass(eq=False)
class Worker:
    """Trains on one device. The images and the teachers of the last job are kept for the next one.

    Attributes:
        cache: where data sets keep what is slow to compute.
        tell: is told what is going on.
        stop: asked at the end of each epoch whether to stop.
        give_up: is told that the device does not answer, and ends the process.
    """

    device: torch.device
    cache: Path
    tell: Callable[[News], None]
    stop: Callable[[], bool]
    give_up: Callable[[str], object] = end_process
    builders: dict[str, Builder] = field(default_factory=dict)
    teachers: dict[tuple[str, str], Teacher | None] = field(default_factory=dict)

    def run(self, assignment: Assignment, folder: Path) -> bool:
        """Train a job in its folder; False when stopped.

        Raises:
            KdbenchError: it cannot be trained here; the message says why.
        """
        refuse_other_code(assignment, host=socket.gethostname())
        store, progress = Store(folder, protocol=PROTOCOL), Telling(self.tell)
        assignment = assignment.placed(store.root)
        job, builder = assignment.job, self._builder(assignment)
        records = {teacher.id: record for teacher in job.teachers if (record := store.record(teacher.id))}
        recorder = Recorder(assignment.suite, store, builder, progress, records)
        groups = GroupTrainer(self.device, assignment.lanes or sys.maxsize, progress.say)
        with Watchdog(self.device, timeout_s=assignment.device_timeout_s, give_up=self.give_up) as watchdog:
            waiting = watchdog.waiting
            teachers = Teachers(store, records, builder, progress, groups, self.stop, waiting, loaded=self.teachers)
            runner = JobRunner(store, builder, groups, progress, self.stop, teachers, recorder, waiting)
            return runner.run(job) if job.stages is None else runner.train_stages(job)

    def _builder(self, assignment: Assignment) -> Builder:
        kind, params = assignment.suite.source
        key = str((kind, params))
        if key not in self.builders:
            self.builders.clear()
            self.teachers.clear()
            dataset = kind(params, cache=self.cache).load()
            refuse_other_images(dataset.fingerprint, assignment.fingerprint, host=socket.gethostname())
            self.builders[key] = Builder(dataset, params, self.device)
        return self.builders[key]
