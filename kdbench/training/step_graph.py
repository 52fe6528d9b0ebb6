"""A training step as a CUDA graph: recorded once, trusted when it repeats the ordinary step, replayed for every full batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kdbench.errors import first_line
from kdbench.method.batch import Batch
from kdbench.training import graphs
from kdbench.training.attributes import Attributes, Constants
from kdbench.training.device import reserved_bytes, without_waiting
from kdbench.training.recorded_batch import RecordedBatch

TOLERANCE, ROUNDING = 1e-3, 1e-6
"""By how much a tensor may differ after two steps between the ordinary steps and their graph: this part of what they change in it,
and this part of the tensor, which the last bits may take."""

Tensors = Mapping[str, Tensor]


class NotRecordable(Exception):
    """A step cannot be a graph; the message is the reason."""


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
            self.graph = graphs.Graph(self._step(update), stream)
            self.held_bytes = reserved_bytes(device) - held
        except (torch.OutOfMemoryError, NotRecordable):
            raise
        except Exception as problem:  # whatever it is, the step goes on without a graph
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
        self.seconds = graphs.seconds(replay, device)
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
