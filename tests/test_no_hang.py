"""Lanes beside each other come back: their graphs, on streams of their own, never wait for each other for ever.

Each layout is a process of its own, which is killed where it is silent for a while: a device that hangs would take this one along.
"""

import selectors
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "bench" / "side_by_side.py"
SILENCE_S = 120.0
"""A case takes seconds; twenty lanes are recorded one by one."""


def run(command: list[str], *, silence_s: float) -> list[str]:
    """What a process prints; an error, with the end of that, where it fails, or is killed since it was silent for so long."""
    said = b""
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
        selectors.DefaultSelector() as ready,
    ):
        assert process.stdout
        ready.register(process.stdout, selectors.EVENT_READ)
        heard = time.monotonic()
        while time.monotonic() - heard < silence_s:
            if not ready.select(silence_s / 10):
                continue
            if not (text := process.stdout.read1()):
                break
            said += text
            heard = time.monotonic()
        else:
            process.kill()
            raise AssertionError(f"silent for {silence_s:g} s after:\n{said.decode()[-2000:]}")
    assert process.returncode == 0, said.decode()[-4000:]
    return said.decode().splitlines()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_lanes_beside_each_other_come_back(layout):
    assert run([sys.executable, str(SCRIPT), "--layout", layout], silence_s=SILENCE_S)[-1].endswith("cases came back")


def test_the_same_is_rehearsed_on_the_cpu():
    said = run([sys.executable, str(SCRIPT), "--layout", "NCHW", "--device", "cpu", "--rehearse"], silence_s=SILENCE_S)
    assert said[-1] == "1 cases came back", said


def test_whoever_is_silent_is_killed_and_his_last_words_are_told():
    script = "import time; print('the case', flush=True); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"silent for 1 s after:\nthe case"):
        run([sys.executable, "-S", "-c", script], silence_s=1)
    assert time.monotonic() - began < 30
    with pytest.raises(AssertionError, match="ValueError: on purpose"):
        run([sys.executable, "-S", "-c", "raise ValueError('on purpose')"], silence_s=30)
