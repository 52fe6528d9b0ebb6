"""Steps as CUDA graphs: recorded once, trusted when they repeat the ordinary step, replayed for every full batch.

A cohort's graphs read their batch from one `Slots`. The teacher's graph runs first, then each lane's on a stream of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from kdbench.errors import first_line
from kdbench.method import Batch
from kdbench.outputs import Outputs
from kdbench.training.device import Stopwatch, without_waiting

TOLERANCE = 1e-3
"""Relative difference, in any tensor and after two steps, between the ordinary step and its graph: far above rounding."""

TIMED = 5
"""Replays over which a step is timed."""

Tensors = Mapping[str, Tensor]


class Unfit(Exception):
    """A step cannot be a graph; the message is the reason."""


class Graph:
    """Work on the current CUDA device, recorded and not yet done, with memory and a stream of its own."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        # The outer block leaves the stream where the inner one, in torch 2.11, does not: where the recording fails.
        with torch.cuda.stream(self._stream), torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            work()

    def replay(self) -> None:
        """Do the work, on the current stream."""
        self._graph.replay()

    def launch(self) -> None:
        """Do the work on its own stream, after all that the current stream was given so far; `join` waits for it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._graph.replay()

    def join(self) -> None:
        """Let the current stream go on when the launched work is done."""
        torch.cuda.current_stream().wait_stream(self._stream)


class Slots:
    """What all graphs of a cohort read, at addresses that stay: a batch, and the teacher's outputs for it.

    Attributes:
        batch: images (B, C, H, W), labels (B,), indices (B,).
        teacher: None until `prepare`, right after `ask`.
    """

    def __init__(self, images: Tensor, labels: Tensor, indices: Tensor) -> None:
        self.batch = (images.clone(), labels.clone(), indices.clone())
        self.teacher: Outputs | None = None

    def load(self, *batch: Tensor) -> None:
        """Take over a batch of the same size."""
        for own, given in zip(self.batch, batch, strict=True):
            own.copy_(given)

    def prepare(self, teacher: Callable[[Tensor], Outputs]) -> float:
        """Seconds that it took to record the teacher's pass; 0 where it was recorded before.

        A pass that cannot be recorded is done anew for each batch.
        """
        if self.teacher:
            return 0.0
        began = time.perf_counter()
        outputs = teacher(self.batch[0])  # what libraries set up at their first call cannot be recorded

        def work() -> None:
            self.teacher = teacher(self.batch[0])

        def renew() -> None:
            for own, given in zip(outputs.tensors(), teacher(self.batch[0]).tensors(), strict=True):
                own.copy_(given)

        try:
            with without_waiting(self.batch[0].device):
                work()
            self._fill_in = Graph(work).replay
        except torch.OutOfMemoryError:
            raise
        except Exception:  # as the next line says
            self.teacher, self._fill_in = outputs, renew
        return time.perf_counter() - began

    def ask(self) -> None:
        """Fill in the teacher's outputs for the batch."""
        self._fill_in()


class StepGraph:
    """One step of a lane.

    Attributes:
        graph: the step.
        seconds: how long it takes with the device to itself.
        startup_s: what recording it took.
        of_one_epoch: whether it holds in the present epoch only.
    """

    def __init__(
        self,
        update: Callable[[Batch], None],
        batch: Batch,
        *,
        tensors: Callable[[], Tensors],
        draws: Callable[[], Sequence[Tensor]],
    ) -> None:
        """Record `update`; what it changes is as before afterwards.

        Args:
            update: takes the step.
            batch: the tensors of a `Slots`.
            tensors: all that a step changes, by name, as they are when it is called.
            draws: states of the random streams that a step may use.

        Raises:
            Unfit: the step draws at random, cannot be recorded, or does something else when it is replayed.
        """
        began = time.perf_counter()
        watched = _Watched(**{field.name: getattr(batch, field.name) for field in fields(batch)})
        before, drawn = _copies(tensors()), draws()
        update(watched)
        try:
            # Found out before recording, because one that fails leaves torch's allocator and generator as if it went on.
            with without_waiting(batch.images.device):
                update(watched)
            expected = _copies(tensors())
            if not all(map(torch.equal, drawn, draws())):
                raise Unfit("it draws random numbers in its steps")
            _put(tensors(), before)
            self.graph = Graph(lambda: update(watched))
        except (torch.OutOfMemoryError, Unfit):
            raise
        except Exception as problem:
            raise Unfit(f"{type(problem).__name__}: {first_line(problem)}") from None
        finally:
            _put(tensors(), before)
        for _ in range(2):
            self.graph.replay()
        different = _different(expected, tensors())
        watch = Stopwatch(batch.images.device)
        watch.start()
        for _ in range(TIMED):
            self.graph.replay()
        watch.stop()
        self.seconds = watch.take() / TIMED
        _put(tensors(), before)
        if different:
            raise Unfit(f"replayed, a step leaves {different} other than it should be")
        self.of_one_epoch = bool(watched.asked)
        self.startup_s = time.perf_counter() - began


class _Watched(Batch):
    """A batch that notices who asks for the epoch, which a graph would keep for good."""

    def __getattribute__(self, name: str) -> object:
        if name in ("epoch", "epochs"):
            self.asked.append(name)
        return super().__getattribute__(name)

    @property
    def asked(self) -> list[str]:
        """The names asked for."""
        found: list[str] = self.__dict__.setdefault("_asked", [])
        return found


def _copies(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _put(tensors: Tensors, saved: Tensors) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])


def _different(expected: Tensors, actual: Tensors) -> str | None:
    """The name of the first tensor that differs."""
    for name, tensor in expected.items():
        gap = (tensor.double() - actual[name].double()).norm()
        if not gap <= TOLERANCE * tensor.double().norm() + 1e-9:
            return name
    return None
