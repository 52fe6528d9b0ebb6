"""CUDA graphs and their streams: work that is recorded once and then done again and again, beside that of others."""

from __future__ import annotations

import atexit
import warnings
from collections.abc import Callable, Iterable, Sequence

import torch

from kdbench.training.device import out_of_memory_raised
from kdbench.training.watches import Stopwatch

TIMED = 5
"""How often work is done to be timed."""


def own_stream(device: torch.device, *, first: bool = False) -> torch.cuda.Stream | None:
    """A stream for all graphs of one lane, or of a teacher; None on the CPU.

    The scratch memory of matrix products belongs to a stream, so that graphs of different owners must not share one.

    Args:
        first: the device prefers its work to that of others.
    """
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device, priority=-first)  # type: ignore[no-untyped-call]  # torch's has no types


def beside_each_other(works: Sequence[Callable[[], object]], streams: Iterable[torch.cuda.Stream | None]) -> None:
    """Do works that need nothing of each other: on CUDA the first on the current stream, every other on its own of `streams`.

    What the current stream is given next waits for all of them. On the CPU they are done one after the other.
    """
    own = [stream for stream in streams if stream is not None]
    if not own:
        for work in works:
            work()
        return
    current = torch.cuda.current_stream()
    began = current.record_event()
    works[0]()  # first, since what the others let go of is free for the current stream, which does not wait for them yet
    others = list(zip(works, own, strict=True))[1:]
    for work, stream in others:
        stream.wait_event(began)
        with torch.cuda.stream(stream), warnings.catch_warnings():
            # It is meant that what one of them learns from may have been used on the current stream before.
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
            work()
    for _, stream in others:
        current.wait_stream(stream)


class Graph:
    """Work on the current CUDA device, recorded on a stream and not yet done, with memory of its own."""

    def __init__(self, work: Callable[[], None], stream: torch.cuda.Stream | None) -> None:
        assert stream is not None, "graphs are recorded on CUDA alone"
        self._stream = stream
        self._graph = torch.cuda.CUDAGraph()
        try:
            _record(self._graph, work, stream)
        except torch.AcceleratorError:
            # CUDA did not end the recording; where `work` raises anything else, it does. By the source of torch 2.11, torch then
            # takes it to go on: nothing can draw on the device until another one succeeds, and in all later ones the allocator
            # asks this graph, which must therefore stay as long as the process. No GPU has shown yet that this is enough.
            self._graph.reset()
            atexit.register(self._graph.reset)
            _record(torch.cuda.CUDAGraph(), lambda: torch.zeros(1, device=stream.device), stream)
            raise

    def replay(self) -> None:
        """Do the work, on the current stream."""
        with out_of_memory_raised():
            self._graph.replay()

    def launch(self) -> None:
        """Do the work on its own stream, after all that the current stream was given so far; `join` waits for it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self.replay()

    def join(self) -> None:
        """Let the current stream go on when the launched work is done."""
        torch.cuda.current_stream().wait_stream(self._stream)


def _record(graph: torch.cuda.CUDAGraph, work: Callable[[], object], stream: torch.cuda.Stream) -> None:
    # The outer block leaves the stream where the inner one, by the source of torch 2.11, does not: where the recording fails.
    with (
        out_of_memory_raised(),
        torch.cuda.stream(stream),
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        work()


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """How long work takes with the device to itself."""
    watch = Stopwatch(device)
    watch.start()
    for _ in range(TIMED):
        work()
    watch.stop()
    return watch.take() / TIMED
