"""What a lane costs: seconds of its steps, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kdbench.training.step_graph import StepGraph
from kdbench.training.watches import MemoryWatch, Stopwatch, process_mem_mib


class Costs:
    """Seconds by epoch, and the most memory of all epochs.

    Attributes:
        watch: the seconds of the lane's steps; it runs in ordinary ones.
        memory: the most that such a step took beside what stays.
        startup_s: seconds of compiling and of recording graphs in this epoch.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.watch, self.memory = Stopwatch(device), MemoryWatch(device)
        self._graph_bytes = 0
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Start the seconds at zero."""
        self.startup_s = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """What happens in the block counts as the lane's own."""
        self.watch.start()
        yield
        self.watch.stop()

    def add_graph(self, graph: StepGraph, *, share: float) -> None:
        """Enter a share of what a graph took to record, and of the memory that it keeps."""
        self.startup_s += share * graph.startup_s
        self._graph_bytes = max(self._graph_bytes, int(share * graph.held_bytes))

    def add_common(self, *, seconds: float, memory: float) -> None:
        """Enter the share of what was computed together with other lanes: its time, and the most memory that it took in bytes."""
        self.watch.add(seconds)
        self.memory.most = max(self.memory.most, int(memory))

    def peak_mem_mib(self, *, held: int) -> float:
        """The lane's own on CUDA: the bytes that it holds, its graph, and the most that an ordinary step took beside.

        On the CPU it is the whole process's.
        """
        if self._device.type != "cuda":
            return process_mem_mib()
        return (held + self._graph_bytes + self.memory.most) / 2**20
