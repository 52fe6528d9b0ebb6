"""What planning and bookkeeping cost when a run has thousands of trials and hundreds of workers: `python tests/bench/scale.py`.

A simulated cluster is an engine whose jobs are timed sleeps. Suite, plan, driver, job folders and records are the real ones: each
simulated worker writes its trials' folders as a real one does, with curves and outcomes of the size that CIFAR-100 gives, and the
driver brings them home. The clock is the driver's: its own work takes its processor time, so that other programs of the machine do
not count (`--wall` counts them, and waiting for the disk), a sleep is skipped, and what workers do beside it is not counted. So a
long run passes in the time that the driver's own work takes, and what that adds to it is measured.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
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
from kdbench.runner.plan import Plan, Rerun, jobs, make_plan
from kdbench.runner.progress import EpochReport, LaneReport, Lines
from kdbench.runner.run import Options, execute
from kdbench.spec.record import PROTOCOL, Data, ImageCounts, Record
from kdbench.suite.code_hash import core_code
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.training.device import environment

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
        wall: whether the driver's clock goes on while it waits for a processor and for the disk.
    """

    trials: int = 10_000
    workers: int = 512
    methods: int = 4
    job_s: float = 60.0
    epochs: int = 30
    wall: bool = False


@dataclass(frozen=True)
class Measured:
    """What was measured; seconds are on the clock of the driver."""

    jobs: int
    load_suite_s: float
    make_plan_s: float
    make_jobs_s: float
    begin_s: float
    run_s: float
    ideal_s: float
    driver_cpu_s: float
    plan_when_done_s: float
    before_mib: float
    peak_mib: float
    bytes_per_trial: float

    @property
    def overhead_pct(self) -> float:
        """What the driver adds to the time that the same sleeps take when each starts at once."""
        return 100 * (self.run_s / self.ideal_s - 1)

    @property
    def per_job_ms(self) -> float:
        """Processor time of the driver for each job."""
        return 1000 * self.driver_cpu_s / self.jobs


class Clock:
    """The driver's time, in seconds; `read` gives that of its work."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read, self._shift = read, 0.0

    def now(self) -> float:
        return self._read() + self._shift

    def skip_to(self, when: float) -> None:
        """Wait, in no time."""
        self._shift += max(0.0, when - self.now())

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """While others work."""
        before = self._read()
        try:
            yield
        finally:
            self._shift -= self._read() - before


class Simulated(Engine):
    """Workers whose jobs are sleeps."""

    def __init__(self, scenario: Scenario, clock: Clock) -> None:
        self._scenario, self._clock, self._random = scenario, clock, random.Random(0)
        self._places = [Place(f"node{i // 8} cuda:{i % 8}", f"node{i // 8}", "cpu") for i in range(scenario.workers)]
        self._due: list[tuple[float, int, Place, Iterator[tuple[float, list[bytes]]], list[bytes]]] = []
        self._started: set[Place] = set()
        self._worker = SimulatedWorker(scenario.epochs)
        self.lengths: list[float] = []
        self.began: float | None = None
        self.ended = 0.0
        self.cpu_s = 0.0

    @property
    def places(self) -> Sequence[Place]:
        return self._places

    def start(self, place: Place, assignment: Assignment, folder: Path) -> None:
        packed = assignment.packed()
        if self.began is None:
            self.began, self.cpu_s = self._clock.now(), -time.process_time()
        self.lengths.append(length := self._scenario.job_s * self._random.uniform(0.8, 1.2))
        first = [] if place in self._started else [pickle.dumps(Ready(ENVIRONMENT))]
        self._started.add(place)
        self._sleep(place, self._worker.epochs(packed, folder, length), first)

    def news(self, timeout_s: float) -> Iterator[tuple[Place, News]]:
        if not self._due:
            return
        self._clock.skip_to(min(self._due[0][0], self._clock.now() + timeout_s))
        now = self._clock.now()
        while self._due and self._due[0][0] <= now:
            _, _, place, epochs, told = heapq.heappop(self._due)
            self._sleep(place, epochs, [])
            for news in map(pickle.loads, told):
                self.ended = self._clock.now()
                yield place, news

    def stop(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        return

    def _sleep(self, place: Place, epochs: Iterator[tuple[float, list[bytes]]], told: list[bytes]) -> None:
        before = time.process_time()
        with self._clock.stopped(), patch("os.fsync", lambda descriptor: None):  # many disks, of which this machine has one
            for seconds, news in epochs:
                due = self._clock.now() + seconds
                heapq.heappush(self._due, (due, len(self.lengths), place, epochs, [*told, *news]))
                break
        self.cpu_s -= time.process_time() - before


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

    def epochs(self, packed: bytes, folder: Path, length: float) -> Iterator[tuple[float, list[bytes]]]:
        """After how many seconds each epoch ends, and what is told then."""
        assignment = Assignment.unpacked(packed, folder)
        trials = assignment.job.trials
        epochs = len(self._rows)
        for epoch in range(epochs):
            lanes = tuple(LaneReport(p.spec.method, p.spec.id, epoch + 1, 5.04, {"test_error_pct": 30.1}) for p in trials)
            told: list[News] = [Trained(EpochReport(epoch + 1, True, lanes))]
            if epoch == epochs - 1:
                self._write(assignment, Store(folder, protocol=PROTOCOL))
                told += [*(Recorded(planned.spec.id) for planned in trials), Ended(True)]
            yield length / epochs, [pickle.dumps(news) for news in told]

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


def ideal_s(lengths: Sequence[float], teachers: int, workers: int) -> float:
    """How long the jobs take where each starts the moment that a worker is free: the teachers', then the others in their order."""
    first = max(lengths[:teachers], default=0.0)
    free = [first] * workers
    for length in lengths[teachers:]:
        heapq.heapreplace(free, free[0] + length)
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


def simulate(scenario: Scenario, folder: Path) -> Measured:
    """Run a suite on a simulated cluster, into an empty folder."""
    load_shipped()
    file, store = write_suite(folder, scenario), Store(folder / "results", protocol=PROTOCOL)
    read = time.perf_counter if scenario.wall else time.process_time
    clock = Clock(read)
    before = peak_mib()
    times = [read()]
    suite = load_suite(file)
    times.append(read())
    plan = make_plan(suite, store)
    times.append(read())
    jobs(plan.todo(Rerun.MISSING))
    times.append(read())
    engine = Simulated(scenario, clock)
    began = clock.now()
    chosen = patch.object(run, "choose_engine", lambda name, device, **more: engine)
    with chosen, (folder / "log").open("w") as log, redirect_stdout(log):
        assert execute(suite, store, options=Options(device="cpu"), progress=Lines())
    cpu = time.process_time() + engine.cpu_s
    peak = peak_mib()
    assert engine.began is not None
    again = read()
    done = make_plan(suite, store)
    again = read() - again
    assert_done(done, store)
    return Measured(
        jobs=len(engine.lengths),
        load_suite_s=times[1] - times[0],
        make_plan_s=times[2] - times[1],
        make_jobs_s=times[3] - times[2],
        begin_s=engine.began - began,
        run_s=engine.ended - engine.began,
        ideal_s=ideal_s(engine.lengths, len(plan.teachers), scenario.workers),
        driver_cpu_s=cpu,
        plan_when_done_s=again,
        before_mib=before,
        peak_mib=peak,
        bytes_per_trial=disk_bytes(store.root / "trials") / (len(plan.students) + len(plan.teachers)),
    )


def assert_done(plan: Plan, store: Store) -> None:
    """Every trial has its record, and no job left anything but its log."""
    assert plan.counts((*plan.teachers, *plan.students)) == {"done": len(plan.students) + len(plan.teachers)}
    assert not any((job / "trials").exists() for job in store.jobs.iterdir())


def peak_mib() -> float:
    """Most memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def disk_bytes(folder: Path) -> int:
    """What the files of a folder take on the disk."""
    return sum(512 * (Path(where) / name).stat().st_blocks for where, _, names in os.walk(folder) for name in names)


COLUMNS = {
    "trials": "trials",
    "workers": "workers",
    "jobs": "jobs",
    "job_s": "seconds of a job",
    "load_suite_s": "read the suite (s)",
    "make_plan_s": "plan (s)",
    "make_jobs_s": "make jobs (s)",
    "begin_s": "until the first job starts (s)",
    "ideal_s": "run without overhead (s)",
    "run_s": "run (s)",
    "overhead_pct": "overhead (%)",
    "per_job_ms": "driver, processor time of a job (ms)",
    "plan_when_done_s": "plan when all is done (s)",
    "before_mib": "memory before (MiB)",
    "peak_mib": "memory, most (MiB)",
    "bytes_per_trial": "bytes on disk of a trial",
    "epochs": "epochs of a training",
}

TABLE: tuple[dict[str, float], ...] = ({}, {"job_s": 10}, {"job_s": 600}, {"methods": 1}, {"workers": 4096})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wall", action="store_true", help="count what the driver waits for a processor and for the disk")
    parser.add_argument("--only", type=json.loads, help='one scenario, such as \'{"trials": 200, "workers": 16}\', as JSON')
    parser.add_argument("--folder", type=Path, help="where the results directories lie while it runs")
    given = parser.parse_args()
    if given.only is not None:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            measured = simulate(scenario := Scenario(**given.only, wall=given.wall), Path(folder))
        print(json.dumps({name: getattr(scenario, name, None) or getattr(measured, name) for name in COLUMNS}))
        return
    found = []
    for scenario in TABLE:  # each in a process of its own, for its memory
        options = ["--only", json.dumps(scenario), *sys.argv[1:]]
        done = subprocess.run([sys.executable, __file__, *options], stdout=subprocess.PIPE, check=True)
        found.append(json.loads(done.stdout))
        print(done.stdout.decode(), file=sys.stderr)
    for name, text in COLUMNS.items():
        print(f"{text:40}", *(f"{row[name]:>12,.{0 if row[name] >= 100 or isinstance(row[name], int) else 2}f}" for row in found))


if __name__ == "__main__":
    main()
