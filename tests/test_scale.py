"""Planning and bookkeeping grow with the trials and no faster, and take little time: a simulated cluster, in short."""

from __future__ import annotations

import importlib.util
import sys
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


class Calls:
    """A clock on which every call of a function takes a microsecond, whatever else the machine does.

    It does not see how long a call takes, such as one that sorts a list which grows with the trials.
    """

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> float:
        return 1e-6 * self.calls

    def count(self, _: object, event: str, __: object) -> None:
        self.calls += event in ("call", "c_call")


@pytest.fixture
def simulate(scale, tmp_path_factory):
    def counted(**scenario):
        clock = Calls()
        sys.setprofile(clock.count)
        try:
            return scale.simulate(scale.Scenario(methods=1, epochs=2, **scenario), tmp_path_factory.mktemp("many"), work=clock)
        finally:
            sys.setprofile(None)

    scale.simulate(scale.Scenario(trials=1, workers=1, methods=1, epochs=2), tmp_path_factory.mktemp("one"))  # imports
    return counted


def test_planning_and_bookkeeping_grow_with_the_trials_and_no_faster(simulate):
    few, many = (simulate(trials=trials, workers=16) for trials in (30, 120))
    for measure in ("load_suite_s", "make_plan_s", "make_jobs_s", "begin_s", "plan_when_done_s"):
        assert 0 < getattr(many, measure) < 4.1 * getattr(few, measure), measure
    assert (few.jobs, many.jobs) == (33, 123)
    assert 0 < many.per_job_ms < 1.03 * few.per_job_ms
    assert many.per_job_ms < 5
    assert 0 <= many.overhead_pct < 0.1


def test_a_job_takes_the_driver_little_time(scale, tmp_path):
    """Five to seven milliseconds of its processor, on a busy machine."""
    assert 0 < scale.simulate(scale.Scenario(methods=1, epochs=2, trials=60, workers=16), tmp_path).per_job_ms < 40


def test_what_a_slow_driver_adds_is_seen(simulate, monkeypatch):
    start = Driver._start

    def slow(*arguments):
        for _ in range(20_000):
            abs(0)
        start(*arguments)

    monkeypatch.setattr(Driver, "_start", slow)
    measured = simulate(trials=40, workers=20, job_s=1)
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
