"""On CUDA, nothing reads or writes what another stream may still be at.

It needs no GPU: a training runs on the CPU with streams that only say who waits for whom, and torch's own sanitizer for CUDA looks
for two accesses to one memory of which one writes and neither waits for the other.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from typing import Any

import pytest
import torch
from test_graphs import IN_FULL, Draws
from torch import Tensor
from torch.cuda import _sanitizer
from torch.utils._python_dispatch import TorchDispatchMode

from kdbench.training import graphs

Place = tuple[int, int]
"""A memory and the first number in it: parts of one memory are told apart, as by torch's sanitizer."""


class Accesses(_sanitizer.ArgumentHandler):
    """What an operation reads and writes, by the places that `Sanitizer` knows."""

    def __init__(self, place: Callable[[Tensor, bool], Place]) -> None:
        super().__init__()
        self._place = place

    def _handle_argument(self, value: Any, is_write: bool, metadata_only: bool, name: Any = None, is_output: bool = False) -> None:
        if isinstance(value, Tensor):
            place = self._place(value, is_output)
            if is_write:
                self.dataptrs_written.add(place)
            elif not metadata_only:
                self.dataptrs_read.add(place)
            self.tensor_aliases.setdefault(place, []).append(name or "")
            if is_output:
                self.outputs.add(place)


class Sanitizer(TorchDispatchMode):
    """Tells torch's sanitizer of every operation, on the stream that is then the current one.

    No memory is given back, so that one place always means the same numbers. A graph has the same places in every replay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handler = _sanitizer.EventHandler()
        self.errors: list[_sanitizer.SynchronizationError] = []
        self.operations = Counter[int]()
        self.on = [Stream(self, 0)]
        self._events, self._fresh = count(), count(1)
        self._places: dict[int, int] = {}
        self._kept: list[torch.UntypedStorage] = []
        self._of_graph: Iterator[int] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        factory = bool(_sanitizer.FACTORY_FUNCTION_REGEX.match(func._schema.name))
        seen = Accesses(self._place)
        seen.parse_inputs(func._schema, args, kwargs or {}, is_factory=factory)
        outputs = func(*args, **(kwargs or {}))
        seen.parse_outputs(func._schema, outputs, is_factory=factory)
        read, written = seen.dataptrs_read - seen.dataptrs_written, seen.dataptrs_written
        stream = self.on[-1].number
        self.operations[stream] += 1
        found = self.handler._handle_kernel_launch(stream, read, written, seen.outputs, func._schema, seen.tensor_aliases)
        self.errors.extend(found)
        return outputs

    def _place(self, tensor: Tensor, is_output: bool) -> Place:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._places:
            self._kept.append(storage)
            self._places[storage._cdata] = next(self._of_graph if self._of_graph and is_output else self._fresh)
        return self._places[storage._cdata], tensor.storage_offset()

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        """Stands for `torch.cuda.stream`."""
        self.on.append(stream)
        yield
        self.on.pop()

    @contextmanager
    def replay(self, places: list[int]) -> Iterator[None]:
        """What a graph makes is at these places, and at further ones where it makes more."""

        def found() -> Iterator[int]:
            yield from list(places)
            for place in self._fresh:
                places.append(place)
                yield place

        self._of_graph = found()
        yield
        self._of_graph = None

    def event(self, stream: Stream) -> int:
        """An event on a stream."""
        event = next(self._events)
        self.handler._handle_event_creation(event)
        self.handler._handle_event_record(event, stream.number)
        return event


class Stream:
    """Stands for a stream of CUDA's."""

    def __init__(self, sanitizer: Sanitizer, number: int) -> None:
        self._sanitizer, self.number = sanitizer, number
        sanitizer.handler._handle_stream_creation(number)

    def record_event(self) -> int:
        return self._sanitizer.event(self)

    def wait_event(self, event: int) -> None:
        self._sanitizer.handler._handle_event_wait(event, self.number)

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(self._sanitizer.event(other))


@pytest.fixture
def sanitizer(monkeypatch: pytest.MonkeyPatch) -> Sanitizer:
    """On streams that a training has there, with graphs that do their work anew at each replay."""
    found, numbers = Sanitizer(), count(1)

    class Work:
        def __init__(self, work: Callable[[], None]) -> None:
            self._work, self._places = work, list[int]()

        def replay(self) -> None:
            with found.replay(self._places):
                self._work()

    class Graph(graphs.Graph):
        def __init__(self, work: Callable[[], None], stream: Stream) -> None:
            self._stream, self._graph = stream, Work(work)

    def own_stream(device: torch.device, *, first: bool = False) -> Stream:
        return Stream(found, next(numbers))

    walk = traceback.walk_stack
    monkeypatch.setattr(traceback, "walk_stack", lambda frame: islice(walk(frame), 8))  # all of it takes most of the time
    monkeypatch.setattr(graphs, "TIMED", 1)
    monkeypatch.setattr(graphs, "Graph", Graph)
    monkeypatch.setattr(graphs, "own_stream", own_stream)
    monkeypatch.setattr("kdbench.training.lane.own_stream", own_stream)
    monkeypatch.setattr("kdbench.runner.group_trainer.records_graphs", lambda device: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: found.on[-1])
    monkeypatch.setattr(torch.cuda, "stream", found.stream)
    return found


@pytest.mark.parametrize(
    ("methods", "stack"),
    [(["kd", {"ft": {"paraphraser_epochs": 1}}, "draws"], False), (["kd", "at"], True)],
    ids=["lanes", "block"],
)
def test_no_stream_touches_what_another_may_still_be_at(methods, stack, lab, sanitizer, register):
    register("draws", Draws)  # has no graph
    short = {"epochs": 1, "schedule": {"milestones": []}}
    suite = lab.suite(methods=methods, recipe={**IN_FULL, "stack": stack}, teacher={"recipe": short})
    with sanitizer:
        assert lab.run(suite)
    assert not sanitizer.errors, f"{len(sanitizer.errors)} times, first: {sanitizer.errors[0]}"
    assert len(lab.outcomes()) == 1 + len(methods)
    assert len(sanitizer.operations) >= 1 + 1 + len(methods), "the current stream, the teacher's and one of each lane"
