"""What a cohort's CUDA graphs read: a batch and the teacher's outputs for it, the next ones being made ready meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from kdbench.method.outputs import Outputs, mapped
from kdbench.training import graphs
from kdbench.training.device import random_states, without_waiting
from kdbench.training.inputs import StepInputs
from kdbench.training.watches import Stopwatch


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
        self._graph: graphs.Graph | None = None
        self._graph_s = 0.0
        self._stream = graphs.own_stream(batch.images.device)

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
            if all(map(torch.equal, drawn, random_states(device))):
                with without_waiting(device):
                    work()
                self._graph = graphs.Graph(work, self._stream)
                self._graph_s = graphs.seconds(self._graph.replay, device)
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
