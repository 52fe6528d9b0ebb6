"""Resume invariance against a real SIGKILL: a run that was killed and started again ends as one that was left alone."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import MIXED, Lab

KILLS = 4
START_S = 120.0
"""Until a run must have written something, however busy the machine."""


def written(lab: Lab) -> dict[Path, int]:
    """Every checkpoint, record and stage of a teacher, and when it was last written."""
    found = {}
    for file in lab.store.root.glob("trials/**/*"):
        if file.name.strip(".").startswith(("spec", "environment", "curves")) or file.is_dir():  # before training, or beside it
            continue
        try:
            found[file] = file.stat().st_mtime_ns
        except FileNotFoundError:  # the run has removed or renamed it
            continue
    return found


def run_until_killed(lab: Lab, suite: Path, *, writes: int, delay_s: float) -> bool:
    """Start the command line, kill it `delay_s` after it has been seen to write `writes` times; False where it ended before."""
    command = [sys.executable, "-c", "from kdbench.cli import main; main()"]
    arguments = ["run", str(suite), "--results", str(lab.store.root), "--device", "cpu"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + START_S
        before = written(lab)
        while writes and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
            now = written(lab)
            writes -= now != before
            before = now
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode != 0


def test_killed_again_and_again_it_ends_as_if_left_alone(lab: Lab, undisturbed: Lab) -> None:
    suite, file = lab.suite(**MIXED), lab.write(**MIXED)
    choice = random.Random(0)
    interrupted = []
    for _ in range(KILLS):
        if not run_until_killed(lab, file, writes=choice.randint(1, 8), delay_s=choice.uniform(0, 0.1)):
            break
        interrupted.append({planned.status.value for planned in (*lab.plan(suite).teachers, *lab.plan(suite).students)})
    assert any("started" in statuses for statuses in interrupted), "no kill fell into the training"
    assert lab.run(suite)
    assert not list(lab.store.root.glob("**/*.broken")), "a file was there before it was whole"
    assert lab.outcomes() == undisturbed.outcomes()
