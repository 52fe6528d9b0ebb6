"""Ends the process where its device does not answer: a call that waits for a device that hangs cannot be interrupted."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType

import torch

from kdbench.training.waiting import Waiting
from kdbench.wording import clock

LOOKS = 20
"""So often one wait is seen before it is too long. While this process is stopped nobody looks, and no time counts."""


def answers_late(device: torch.device) -> bool:
    """Whether the host may wait for the device."""
    return device.type == "cuda"


class Watchdog:
    """Gives up, from `with` to the end of the block, where one wait for the device lasts longer than it may.

    Args:
        device: on the CPU nobody waits, and nothing is watched.
        timeout_s: how long a wait may last, in seconds.
        give_up: is told what happened, in a thread of its own, and ends the process.

    Attributes:
        waiting: what it watches.
    """

    def __init__(self, device: torch.device, *, timeout_s: float, give_up: Callable[[str], object]) -> None:
        self.waiting = Waiting()
        self._device, self._timeout_s, self._give_up = device, timeout_s, give_up
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kdbench-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if answers_late(self._device):
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()

    def _watch(self) -> None:
        seen, looks = 0, 0
        while not self._over.wait(self._timeout_s / LOOKS):
            count = self.waiting.count
            looks = looks + 1 if count % 2 and count == seen else 0
            seen = count
            if looks >= LOOKS:
                self._give_up(self._text)
                return

    @property
    def _text(self) -> str:
        return (
            f"{self._device} has not answered for {clock(self._timeout_s)}. These trained on it: {', '.join(self.waiting.lanes)}. "
            "What is finished is kept, and the same command continues from the last whole epoch. If it hangs again, --lanes 1 "
            "shows which of them it is. If it is only slow, give a longer --device-timeout."
        )


def end_process(text: str) -> None:
    """Tell it, and end this process with status 1, whatever its other threads wait for."""
    sys.stdout.flush()
    print(f"error: {text}", file=sys.stderr, flush=True)
    os._exit(1)
