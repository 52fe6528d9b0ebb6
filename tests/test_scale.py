"""Planning and bookkeeping grow with the trials and no faster: a simulated cluster, in short."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest

from kdbench.runner.driver import Driver
from kdbench.runner.schedule import Task

FILE = Path(__file__).parent / "bench" / "scale.py"


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location("scale", FILE)
    module = sys.modules["scale"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale"]


def test_the_driver_adds_little_to_what_hundreds_of_workers_take(scale, tmp_path):
    measured = scale.simulate(scale.Scenario(trials=300, workers=64, methods=1, epochs=3), tmp_path)
    assert measured.jobs >= 300
    assert 0 <= measured.overhead_pct < 2
    assert measured.per_job_ms < 10


def test_what_a_slow_driver_adds_is_seen(scale, tmp_path, monkeypatch):
    start = Driver._start

    def slow(*arguments):
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass
        start(*arguments)

    monkeypatch.setattr(Driver, "_start", slow)
    measured = scale.simulate(scale.Scenario(trials=40, workers=20, methods=1, epochs=2, job_s=1), tmp_path)
    assert measured.per_job_ms > 20
    assert measured.overhead_pct > 5  # workers wait while it starts others


A = frozenset({"a"})


@pytest.mark.parametrize(
    ("tasks", "workers", "seconds"),
    [
        ([Task(3), Task(2), Task(2)], 2, 4),
        ([Task(2), Task(2), Task(3)], 2, 5),  # in this order
        ([Task(3, gives=A), Task(1), Task(2, needs=A)], 3, 5),
        ([Task(3, gives=A), Task(2, needs=A), Task(1)], 3, 5),
        ([Task(2, needs=A)], 1, 2),  # which was there before
    ],
)
def test_the_ideal_starts_each_task_the_moment_that_it_can(scale, tasks, workers, seconds):
    assert scale.ideal_s(tasks, workers) == seconds
