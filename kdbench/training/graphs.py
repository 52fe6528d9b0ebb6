"""Steps as CUDA graphs: recorded once, trusted when they repeat the ordinary step, replayed for every full batch.

A cohort's graphs read their batch from one `GraphInputs`. Each lane's runs on a stream of its own, and beside them the teacher's,
which is a batch ahead.
"""

from __future__ import annotations

import atexit
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from kdbench.errors import first_line
from kdbench.method.batch import Batch
from kdbench.method.outputs import Outputs, mapped
from kdbench.training.attributes import Attributes, Constants
from kdbench.training.device import out_of_memory_raised, random_states, reserved_bytes, without_waiting
from kdbench.training.inputs import StepInputs
from kdbench.training.recorded_batch import RecordedBatch
from kdbench.training.watches import Stopwatch

TOLERANCE, ROUNDING = 1e-3, 1e-6
"""By how much a tensor may differ after two steps between the ordinary steps and their graph: this part of what they change in it,
and this part of the tensor, which the last bits may take."""

TIMED = 5
"""Replays over which a step is timed."""

Tensors = Mapping[str, Tensor]


class NotRecordable(Exception):
    """A step cannot be a graph; the message is the reason."""


def own_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream for all graphs of one lane, or of a teacher; None on the CPU.

    The scratch memory of matrix products belongs to a stream, so that graphs of different owners must not share one.
    """
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch's has no types


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


class GraphInputs:
    """What all graphs of a cohort read, at addresses that stay: a batch, and the teacher's outputs for it.

    The batch that follows, and the teacher's outputs for that, are made ready apart from these (`load`, `run_teacher`), so that
    steps may read the present ones meanwhile; then `advance` lets it take their place.

    Attributes:
        batch: the present batch and its views, without the teacher.
        teacher: its outputs for them; None until `prepare`.
    """

    def __init__(self, batch: StepInputs) -> None:
        self.batch, self._following = batch.cloned(), batch.cloned()
        self.teacher: Outputs | None = None
        self._of_following: Outputs | None = None
        self._graph: Graph | None = None
        self._graph_s = 0.0
        self._stream = own_stream(batch.images.device)

    @property
    def step(self) -> StepInputs:
        """The present batch with the teacher's outputs."""
        return self.batch.taught(self.teacher)

    def load(self, batch: StepInputs) -> None:
        """Take over a batch of the same size as the one that follows."""
        _copy(batch.loaded(), to=self._following.loaded())

    def prepare(self, teacher: Callable[[StepInputs], Outputs]) -> float:
        """Seconds that it took to record the teacher's pass; 0 where it was tried before.

        A pass that cannot be recorded, or that draws at random, which a graph might repeat, is done anew for each batch.
        """
        if self.teacher:
            return 0.0
        began = time.perf_counter()
        device = self.batch.images.device
        drawn = random_states(device)
        outputs = teacher(self._following)  # what libraries set up at their first call cannot be recorded
        self.teacher = mapped(outputs, partial(_with_places_of_its_own, besides=self._following.loaded()))

        def work() -> None:
            self._of_following = teacher(self._following)

        try:
            if not all(map(torch.equal, drawn, random_states(device))):
                raise NotRecordable("it draws at random")
            with without_waiting(device):
                work()
            self._graph = Graph(work, self._stream)
            self._graph_s = _seconds(self._graph.replay, device)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # as the docstring says
            self._graph = None
        return time.perf_counter() - began

    def run_teacher(self, teacher: Callable[[StepInputs], Outputs], watch: Stopwatch) -> None:
        """Let the teacher's pass for the batch that follows begin; `join` waits for it. On the watch is what it takes alone."""
        if self._graph:
            self._graph.launch()
            watch.add(self._graph_s)
        else:
            watch.start()
            self._of_following = teacher(self._following)
            watch.stop()

    def join(self) -> None:
        """Let the current stream go on when the teacher's pass is done."""
        if self._graph:
            self._graph.join()

    def advance(self) -> None:
        """Make the batch that follows the present one, once the teacher's pass for it is done."""
        self.join()
        _copy(self._following.loaded(), to=self.batch.loaded())
        if self.teacher and self._of_following:
            _copy(self._of_following.tensors(), to=self.teacher.tensors())


def _copy(tensors: Iterable[Tensor], *, to: Iterable[Tensor]) -> None:
    for own, given in zip(to, tensors, strict=True):
        own.requires_grad_(False).copy_(given)


def _with_places_of_its_own(tensor: Tensor, *, besides: Iterable[Tensor]) -> Tensor:
    """A tensor to copy into: itself, but where it has one number for several places, as after `expand`, or lies in the memory of
    `besides`, as where a network hands its images on."""
    shared = any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    place = tensor.untyped_storage().data_ptr()
    return tensor.clone() if shared or any(place == other.untyped_storage().data_ptr() for other in besides) else tensor


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    """How long a step takes with the device to itself."""
    watch = Stopwatch(device)
    watch.start()
    for _ in range(TIMED):
        step()
    watch.stop()
    return watch.take() / TIMED


class StepGraph:
    """One step of a lane, or of several at once.

    Attributes:
        graph: the step.
        seconds: how long it takes with the device to itself.
        startup_s: what recording it took.
        held_bytes: the memory that it keeps for itself.
        batches: what it reads, one for each lane; `fill` them before each replay.
        of_one_epoch: whether it holds in the present epoch only.
    """

    def __init__(
        self,
        update: Callable[[Sequence[RecordedBatch]], None],
        batches: Sequence[Batch],
        *,
        tensors: Callable[[], Tensors],
        modules: Sequence[nn.Module],
        stream: torch.cuda.Stream | None,
        draws: Callable[[], Sequence[Tensor]],
    ) -> None:
        """Record `update`; what it changes is as before afterwards.

        Args:
            update: takes the step on the batches.
            batches: the tensors of a `GraphInputs`, as each lane is given them.
            tensors: all that a step changes, by name, as they are when it is called.
            modules: whose attributes a step may change beside them.
            stream: to record on.
            draws: states of the random streams that a step may use, but for the batch's generator.

        Raises:
            NotRecordable: the step draws at random, cannot be recorded, or does something else when it is replayed.
        """
        began = time.perf_counter()
        self.batches = [RecordedBatch(batch) for batch in batches]
        filled_by = [(batch.generator, batch.epoch) for batch in batches]
        start = [generator.get_state() for generator, _ in filled_by]
        device = batches[0].images.device

        def fill() -> None:
            for batch, (generator, epoch) in zip(self.batches, filled_by, strict=True):
                batch.fill(generator, epoch)

        def rewind() -> None:
            for (generator, _), state in zip(filled_by, start, strict=True):
                generator.set_state(state)

        before, drawn, attributes = _copies(tensors()), draws(), Attributes(modules)
        try:
            update(self.batches)
            places = _places(tensors())
            if places.keys() != before.keys():
                raise NotRecordable("its terms change from step to step")
            # Found out before recording, because one that fails leaves torch's allocator and generator as if it went on.
            fill()
            filled = [generator.get_state() for generator, _ in filled_by]
            with without_waiting(device):
                update(self.batches)
            expected = _copies(tensors())
            if not all(map(torch.equal, [*drawn, *filled], [*draws(), *(generator.get_state() for generator, _ in filled_by)])):
                raise NotRecordable("it draws random numbers in its steps")
            if moved := [name for name, place in _places(tensors()).items() if places.get(name) != place]:
                raise NotRecordable(f"it replaces {moved[0]} in its steps; changed in place, it can be part of a graph")
            if name := attributes.changed:
                raise NotRecordable(f"it changes {name} in its steps, which is no buffer")
            _put(tensors(), before)
            torch.cuda.empty_cache()  # as recording does, which must not count as memory given back
            held = reserved_bytes(device)
            self.graph = Graph(self._step(update), stream)
            self.held_bytes = reserved_bytes(device) - held
        except (torch.OutOfMemoryError, NotRecordable):
            raise
        except Exception as problem:
            raise NotRecordable(_cause(problem)) from None
        finally:
            _put(tensors(), before)
            attributes.restore()
            rewind()

        def replay() -> None:
            fill()
            self.graph.replay()

        for _ in range(2):
            replay()
        different = _different(before, expected, tensors())
        self.seconds = _seconds(replay, device)
        _put(tensors(), before)
        rewind()
        if different:
            raise NotRecordable(f"replayed, a step leaves {different} other than it should be")
        self.of_one_epoch = any(batch.asked_for_epoch for batch in self.batches)
        self._constants = Constants(modules)
        self.startup_s = time.perf_counter() - began

    def _step(self, update: Callable[[Sequence[RecordedBatch]], None]) -> Callable[[], None]:
        def step() -> None:
            for batch in self.batches:
                batch.rewind()
            update(self.batches)

        return step

    @property
    def outdated(self) -> bool:
        """Whether a number or text among the attributes of the modules is another than that which it was recorded with."""
        return self._constants.changed


def _cause(problem: Exception) -> str:
    """What a recording failed by; the end of a recording that failed raises an error of its own.

    No local variable of the caller may hold it: it would keep what the step computed, and with that autograd's stream for it.
    """
    cause = problem.__context__ or problem
    return f"{type(cause).__name__}: {first_line(cause)}"


def _copies(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _put(tensors: Tensors, saved: Tensors) -> None:
    with torch.no_grad():
        for name, value in saved.items():
            tensors[name].copy_(value)


def _places(tensors: Tensors) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


def _different(before: Tensors, expected: Tensors, actual: Tensors) -> str | None:
    """The name of the first tensor that two replays leave other than two steps do."""
    for name, tensor in expected.items():
        target = tensor.double()
        gap, change = (target - actual[name].double()).norm(), (target - before[name].double()).norm()
        if not gap <= TOLERANCE * change + ROUNDING * target.norm():
            return name
    return None
