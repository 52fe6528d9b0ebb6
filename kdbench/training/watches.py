"""What happens on a device between two moments: how long it took, and how much memory."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class Stopwatch:
    """Adds up what happens on a device between `start` and `stop`, by events on CUDA, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._began = 0.0
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(self) -> None:
        """Begin a span."""
        if self._cuda:
            self._events.append((_event(), _event()))
            self._events[-1][0].record()
        else:
            self._began = time.perf_counter()

    def stop(self) -> None:
        """End the span."""
        if self._cuda:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._began

    def add(self, seconds: float) -> None:
        """Count a span that was measured before."""
        self._seconds += seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in the block is no part of the present span."""
        self.stop()
        yield
        self.start()

    def waits(self, items: Iterable[T]) -> Iterator[T]:
        """The items; the time until each comes counts as a span."""
        iterator = iter(items)
        while True:
            self.start()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.stop()
            yield item

    def take(self) -> float:
        """Seconds since the last `take`; on CUDA this waits for the spans to end."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
            self._events.clear()
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch gives it no types


class MemoryWatch:
    """The most memory that was in use at any time between `start` and `stop`, beyond what was in use at `start`, on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0
        self.most = 0

    def start(self) -> None:
        """Begin a span."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)

    def stop(self, *, stays: int) -> None:
        """End the span, in which `stays` bytes were taken for good."""
        if self._device.type == "cuda":
            self.most = max(self.most, torch.cuda.max_memory_allocated(self._device) - self._before - stays)


def process_mem_mib() -> float:
    """The most memory that this process has used so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
