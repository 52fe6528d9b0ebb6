"""3. Resume invariance: a run that was stopped or killed at any moment, and started again, ends as one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import MIXED, Lab


def test_a_run_that_stops_after_every_epoch_comes_to_the_same_end(
    lab: Lab, undisturbed: Lab, one_epoch_a_run: dict[str, Any]
) -> None:
    suite = lab.suite(**MIXED)
    epochs = 2 + 2 + 2 + 3  # of the teacher, the paraphraser, the hints and the students
    assert [lab.run(suite, **one_epoch_a_run) for _ in range(epochs)] == [False] * (epochs - 1) + [True]
    assert lab.outcomes() == undisturbed.outcomes()
    assert not list(lab.store.root.glob("trials/**/*checkpoint*"))


class Killed(BaseException):
    """What no engine catches."""


def test_killed_at_any_write_and_run_again_comes_to_the_same_end(
    lab: Lab, undisturbed: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two writes nothing outside the process changes, so that these are all the moments that differ."""
    choice = random.Random(0)
    replace = os.replace
    left = 0

    def dying_replace(source: Path, target: Path) -> None:
        nonlocal left
        if threading.current_thread() is not threading.main_thread():  # which writes what `kdbench status` shows, and nothing else
            replace(source, target)
            return
        left -= 1
        if left == 0 and choice.random() < 0.5:
            os.truncate(source, source.stat().st_size // 2)  # killed while it wrote
            raise Killed
        replace(source, target)
        if left == 0:
            raise Killed

    monkeypatch.setattr("os.replace", dying_replace)
    suite = lab.suite(**MIXED)
    kills = 0
    while True:
        left = choice.randint(1, 25)
        try:
            assert lab.run(suite)
            break
        except Killed:
            kills += 1
            assert kills < 100, "the runs do not come to an end"
    assert kills > 5
    monkeypatch.undo()
    assert not list(lab.store.root.glob("**/*.broken")), "a file was there before it was whole"
    assert lab.outcomes() == undisturbed.outcomes()


KILLS = 2
START_S = 120.0
"""Until a run must have written something, however busy the machine."""


def written(lab: Lab) -> dict[Path, int]:
    """Every checkpoint, record and stage of a teacher, and when it was last written."""
    found = {}
    for file in lab.store.root.glob("trials/**/*"):
        if (
            file.name.strip(".").startswith(("planned", "spec", "environment", "curves")) or file.is_dir()
        ):  # before training, or beside it
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
    """With SIGKILL, from outside."""
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
