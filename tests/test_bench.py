"""The measurements can be made: all of them are found, and the row against the plain loop comes to its numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent / "bench"


def python(*arguments: str) -> str:
    """What a process prints that runs like a user's in the project's folder, and knows nothing of the tests around it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**own, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=BENCH.parents[1], env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_measurement_is_found() -> None:
    found = python("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(BENCH))
    assert {"test_step[ft]", "test_the_row_in_lockstep", "test_evaluation", "test_batch", "test_planning_10_000_trials"} <= {
        line.split("::")[1] for line in found.splitlines() if "::" in line
    }


def test_the_row_comes_to_its_numbers() -> None:
    networks = ("--teacher", "wrn_10_1", "--student", "wrn_10_1", "--methods", "kd", "--images", "16")
    result = json.loads(python(str(BENCH / "row.py"), *networks, "--repeats", "1", "--workers", "0", "--threads", "1", "--ladder"))
    assert set(result["seconds"]) >= {"plain loop, 0 workers", "one teacher for all", "kdbench, fp32", "kdbench, bf16"}
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in result["seconds"].values())
    assert result["times faster than the plain loop"]["plain loop, 0 workers"] == 1


FAKE = """#!/bin/bash
case "$*" in
  *"is None"*) [ "${0##*/}" = python3 ]; exit ;;
  *" row "*) echo "ValueError: on purpose"; exit 1 ;;
esac
echo "$PYTHONPATH runs $*"
"""


def test_the_measurement_of_a_gpu_outlives_its_parts_and_keeps_what_they_say(tmp_path: Path) -> None:
    """Of the two Pythons here `python3` has torch, and packages are at a place that PYTHONPATH names."""
    for name in ("python", "python3"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    places = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": "/wheels",
        "OUT": str(tmp_path / "out"),
        "GPU_LOG": "of the user",
    }
    command = ["bash", str(BENCH / "gpu.sh"), "--rehearse"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **places})
    log = (tmp_path / "out" / "gpu.log").read_text()
    assert done.returncode == 1 and done.stdout == log
    assert "== invariants: status 0" in log and "ValueError: on purpose\n== row: status 1" in log
    assert f"{BENCH.parents[1]}:/wheels runs tests/bench/gpu.py --seconds" in log and "== workers: status 0" in log
