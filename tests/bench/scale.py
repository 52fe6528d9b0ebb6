"""What planning and bookkeeping cost when a run has thousands of trials and hundreds of workers: `python tests/bench/scale.py`.

A simulated cluster is an engine whose jobs are timed sleeps. Suite, plan, driver, job folders and records are the real ones: each
simulated worker writes its trials' folders as a real one does, with curves and outcomes of the size that CIFAR-100 gives, and the
driver brings them home. The clock is the driver's: its own work takes its processor time, so that neither other programs of the
machine nor waiting for the disk count. A sleep is skipped, and what workers do is not counted. So a long run passes in the time
that the driver's own work takes, and what that adds to the sleeps is measured.
"""

from __future__ import annotations

import argparse
import heapq
import json
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import torch
import yaml

from kdbench.models.weights import WEIGHTS, state_hash, write_weights
from kdbench.results.outcomes import Outcomes
from kdbench.results.store import Store
from kdbench.runner import run
from kdbench.runner.assignment import Assignment, Ended, News, Ready, Recorded, Trained
from kdbench.runner.engines import Engine, Place
from kdbench.runner.job import jobs
from kdbench.runner.plan import Rerun, make_plan
from kdbench.runner.progress import EpochReport, LaneReport, Lines
from kdbench.runner.run import Options, execute
from kdbench.runner.schedule import Task
from kdbench.spec.record import PROTOCOL, Data, ImageCounts, Record
from kdbench.suite.code_hash import core_code
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.training.device import environment

T = TypeVar("T")

METHODS = ("kd", "at", "sp", "dkd")
TEACHERS = ("wrn_10_1", "wrn_16_1", "wrn_10_2", "wrn_16_2", "resnet14")
IMAGES, CLASSES = 10_000, 100
ENVIRONMENT = environment(torch.device("cpu"))


@dataclass(frozen=True)
class Scenario:
    """A suite, and the cluster that it runs on.

    Attributes:
        methods: so many trials are in one job, at most four.
        job_s: how long a job takes, give or take a fifth.
        epochs: of a training. After each one the worker tells.
    """

    trials: int = 10_000
    workers: int = 512
    methods: int = 4
    job_s: float = 60.0
    epochs: int = 30


@dataclass(frozen=True)
class Measured:
    """What was measured; seconds are on the clock of the driver.

    Attributes:
        begin_s: from the command to the start of the first job, with reading and planning once more.
        ideal_s: what the same sleeps take without the driver.
        overhead_pct: what the driver adds to that.
        per_job_ms: what the driver works for each job.
        before_mib: memory before the suite is read.
        kb_per_trial: on the disk, with folders.
    """

    jobs: int
    load_suite_s: float
    make_plan_s: float
    make_jobs_s: float
    begin_s: float
    ideal_s: float
    run_s: float
    overhead_pct: float
    per_job_ms: float
    plan_when_done_s: float
    before_mib: float
    peak_mib: float
    kb_per_trial: float


class Clock:
    """The driver's time in seconds: what its own work took, and what it slept.

    Args:
        work: seconds that this process has worked so far.
    """

    def __init__(self, work: Callable[[], float]) -> None:
        self._work, self._slept, self._of_workers = work, 0.0, 0.0

    @property
    def worked(self) -> float:
        return self._work() - self._of_workers

    @property
    def now(self) -> float:
        return self.worked + self._slept

    def sleep_until(self, when: float) -> None:
        """In no time."""
        self._slept += max(0.0, when - self.now)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """While workers work."""
        before = self._work()
        try:
            yield
        finally:
            self._of_workers += self._work() - before


@dataclass(eq=False)
class Sleep:
    """A job at its place, which tells of an epoch every `step_s` seconds."""

    place: Place
    assignment: Assignment
    folder: Path
    step_s: float
    epoch: int = 0


class Simulated(Engine):
    """Workers whose jobs are sleeps.

    Attributes:
        tasks: the jobs as they were started, with the seconds that they sleep.
        began: when the first one was started.
        worked_before_s: what the driver had worked by then.
    """

    def __init__(self, scenario: Scenario, clock: Clock) -> None:
        self._scenario, self._clock, self._random = scenario, clock, random.Random(0)
        self._places = [Place(f"node{i // 8} cuda:{i % 8}", f"node{i // 8}", "cpu") for i in range(scenario.workers)]
        self._due: list[tuple[float, int, Sleep]] = []
        self._ready: set[Place] = set()
        self._worker = SimulatedWorker(scenario.epochs)
        self.tasks: list[Task] = []
        self.began, self.worked_before_s = 0.0, 0.0

    @property
    def places(self) -> Sequence[Place]:
        return self._places

    def start(self, place: Place, assignment: Assignment, folder: Path) -> None:
        packed = assignment.packed()
        seconds = self._scenario.job_s * self._random.uniform(0.8, 1.2)
        if not self.tasks:
            self.began, self.worked_before_s = self._clock.now, self._clock.worked
        self.tasks.append(Task(seconds, assignment.job.needs, assignment.job.gives))
        since = self._clock.now
        with self._clock.stopped():
            sleep = Sleep(place, Assignment.unpacked(packed, folder), folder, seconds / self._scenario.epochs)
        self._push(since, len(self.tasks), sleep)

    def news(self, timeout_s: float) -> Iterator[tuple[Place, News]]:
        if not self._due:
            return
        self._clock.sleep_until(min(self._due[0][0], self._clock.now + timeout_s))
        now = self._clock.now
        while self._due and self._due[0][0] <= now:
            due, number, sleep = heapq.heappop(self._due)
            with self._clock.stopped(), patch("os.fsync", lambda descriptor: None):  # many disks, of which this machine has one
                told = self._worker.epoch(sleep)
            if sleep.epoch < self._scenario.epochs:
                self._push(due, number, sleep)
            if sleep.place not in self._ready:
                self._ready.add(sleep.place)
                yield sleep.place, Ready(ENVIRONMENT)
            for news in map(pickle.loads, told):
                yield sleep.place, news

    def stop(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        return

    def _push(self, since: float, number: int, sleep: Sleep) -> None:
        heapq.heappush(self._due, (since + sleep.step_s, number, sleep))


class SimulatedWorker:
    """Sleeps, and writes what a real one writes when a trial has ended."""

    def __init__(self, epochs: int) -> None:
        dice = np.random.default_rng(0)
        labels = dice.integers(0, CLASSES, IMAGES)
        predicted = np.where(dice.random(IMAGES) < 0.3, dice.integers(0, CLASSES, IMAGES), labels)
        self._outcomes = Outcomes.of(labels, predicted, num_classes=CLASSES, data_fingerprint="")
        packed = self._outcomes.packed()
        object.__setattr__(self._outcomes, "packed", lambda: packed)
        self._rows = [
            {"stage": "main", "epoch": epoch + 1, "lr": 0.05, "train_loss": 5.038472728729248}
            | {"terms": {"kd": 2.525124111175537, "cross_entropy": 1.777345790863037}}
            | {"train_s": 4.999405452035717, "data_s": 0.2765286570065655, "teacher_s": 2.4444300240211305, "startup_s": 0.0}
            | {"images": 50_000, "train_error_pct": 66.4375, "test_error_pct": 30.12, "loss_ratio": 1.8348297177972634}
            for epoch in range(epochs)
        ]
        counts = ImageCounts.of([500] * CLASSES)
        self._data = Data(
            classes=tuple(f"class number {i}" for i in range(CLASSES)),
            image_shape=(3, 32, 32),
            resize=None,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            train_images=counts,
            validation_images=None,
            test_images=counts,
            passed_over_files={},
            notes=(),
        )
        self._weights = {"weight": torch.zeros(10, 10)}

    def epoch(self, sleep: Sleep) -> list[bytes]:
        """Train one more epoch; what is told then."""
        trials = sleep.assignment.job.trials
        sleep.epoch += 1
        lanes = tuple(LaneReport(p.spec.method, p.spec.id, sleep.epoch, 5.04, {"test_error_pct": 30.1}) for p in trials)
        told: list[News] = [Trained(EpochReport(sleep.epoch, True, lanes))]
        if sleep.epoch == len(self._rows):
            self._write(sleep.assignment, Store(sleep.folder, protocol=PROTOCOL))
            told += [*(Recorded(planned.spec.id) for planned in trials), Ended(True)]
        return [pickle.dumps(news) for news in told]

    def _write(self, assignment: Assignment, store: Store) -> None:
        for planned in assignment.job.trials:
            spec = planned.spec
            tree = spec.model_dump(mode="json")
            store.begin(spec.id, tree, environment=ENVIRONMENT.model_dump())
            if planned.keeps_weights:
                write_weights(store.folder(spec.id) / WEIGHTS, self._weights)
            record = Record(
                protocol=PROTOCOL,
                trial=spec.id,
                suite=assignment.suite.name,
                status="done",
                spec=tree,
                dataset=spec.dataset.label,
                recipe=spec.recipe.summary,
                precision=spec.recipe.arithmetic,
                epochs=spec.epochs,
                student=spec.label,
                method=spec.method,
                setting=spec.method,
                stages=spec.stages,
                seed=spec.seed,
                test_error_pct=30.12,
                weights_sha256=state_hash(self._weights),
                method_code=planned.code,
                core_code=core_code(),
                data_fingerprint=assignment.fingerprint,
                data=self._data,
                environment=ENVIRONMENT,
                planned=store.planned(spec.id),
                finished="2026-01-01T00:00:00+00:00",
                teacher=spec.teacher.label if spec.teacher else None,
                teacher_weights_sha256=state_hash(self._weights) if spec.teacher else None,
            )
            store.write_record(record, self._rows, self._outcomes)


def ideal_s(tasks: Sequence[Task], workers: int) -> float:
    """How long tasks take in the order in which they were started, each from the moment that a worker is free and what it needs
    is there. Whoever starts them in that order cannot be faster."""
    free, there, now = [0.0] * workers, dict[str, float](), 0.0
    for task in tasks:
        now = max(now, free[0], *(there.get(need, 0.0) for need in task.needs))
        heapq.heapreplace(free, now + task.seconds)
        there |= dict.fromkeys(task.gives, now + task.seconds)
    return max(free)


def write_suite(folder: Path, scenario: Scenario) -> Path:
    """Its file."""
    seeds = -(-scenario.trials // (scenario.methods * len(TEACHERS)))
    suite = {
        "title": "many",
        "dataset": "digits",
        "recipe": {"epochs": scenario.epochs, "batch_size": 64, "optimiser": {"lr": 0.05}, "schedule": {"milestones": [1]}},
        "seeds": list(range(seeds)),
        "methods": list(METHODS[: scenario.methods]),
        "pairs": [{"teacher": teacher, "student": "resnet8"} for teacher in TEACHERS],
    }
    file = folder / "many.yaml"
    file.write_text(yaml.safe_dump(suite))
    return file


def simulate(scenario: Scenario, folder: Path, *, work: Callable[[], float] = time.process_time) -> Measured:
    """Run a suite on a simulated cluster, into an empty folder, by the time that `work` gives."""
    load_shipped()
    file, store = write_suite(folder, scenario), Store(folder / "results", protocol=PROTOCOL)
    before = peak_mib()
    suite, load_suite_s = timed(lambda: load_suite(file), work)
    plan, make_plan_s = timed(lambda: make_plan(suite, store), work)
    _, make_jobs_s = timed(lambda: jobs(plan.todo(Rerun.MISSING)), work)
    clock = Clock(work)
    engine = Simulated(scenario, clock)
    began = clock.now
    chosen = patch.object(run, "choose_engine", lambda name, device, **more: engine)
    with chosen, (folder / "log").open("w") as log, redirect_stdout(log):
        assert execute(suite, store, options=Options(device="cpu"), progress=Lines())
    run_s, worked_s, peak = clock.now - engine.began, clock.worked - engine.worked_before_s, peak_mib()
    ideal = ideal_s(engine.tasks, scenario.workers)
    done, plan_when_done_s = timed(lambda: make_plan(suite, store), work)
    trials = len(done.students) + len(done.teachers)
    assert done.counts((*done.teachers, *done.students)) == {"done": trials}
    assert not any((job / "trials").exists() for job in store.jobs.iterdir())  # each left its log alone
    return Measured(
        jobs=len(engine.tasks),
        load_suite_s=load_suite_s,
        make_plan_s=make_plan_s,
        make_jobs_s=make_jobs_s,
        begin_s=engine.began - began,
        ideal_s=ideal,
        run_s=run_s,
        overhead_pct=100 * (run_s / ideal - 1),
        per_job_ms=1000 * worked_s / len(engine.tasks),
        plan_when_done_s=plan_when_done_s,
        before_mib=before,
        peak_mib=peak,
        kb_per_trial=kb_on_disk(store.root / "trials") / trials,
    )


def timed(call: Callable[[], T], work: Callable[[], float]) -> tuple[T, float]:
    """What it gives, and the seconds of work that it took."""
    before = work()
    found = call()
    return found, work() - before


def peak_mib() -> float:
    """Most memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def kb_on_disk(folder: Path) -> float:
    """Of a folder with all that is in it, in kB of 1024 bytes."""
    return sum(file.stat().st_blocks for file in folder.rglob("*")) / 2


TABLE: tuple[dict[str, float], ...] = ({}, {"job_s": 10}, {"job_s": 4}, {"methods": 1}, {"workers": 4096})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=json.loads, help='one scenario, such as \'{"trials": 200, "workers": 16}\', as JSON')
    parser.add_argument("--folder", type=Path, help="where the results directories lie while it runs")
    given = parser.parse_args()
    if given.only is not None:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            measured = simulate(scenario := Scenario(**given.only), Path(folder))
        print(json.dumps(asdict(scenario) | asdict(measured)))
        return
    found = []
    for row in TABLE:  # each in a process of its own, for its memory
        options = ["--only", json.dumps(row), *sys.argv[1:]]
        done = subprocess.run([sys.executable, __file__, *options], stdout=subprocess.PIPE, check=True)
        found.append(json.loads(done.stdout))
    for name in found[0]:
        print(f"{name:20}", *(f"{row[name]:>12,.2f}" for row in found))


if __name__ == "__main__":
    main()
