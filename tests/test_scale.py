"""Planning and bookkeeping grow with the trials and no faster: a simulated cluster, in short."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

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
    assert measured.overhead_pct < 2
    assert measured.per_job_ms < 20
