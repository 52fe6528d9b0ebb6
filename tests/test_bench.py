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
