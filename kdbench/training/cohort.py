"""Lanes in lockstep: one stream of batches, one forward pass of the teacher per batch, each lane its own step."""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kdbench.data import Resident, batch_bounds, epoch_plan
from kdbench.models import Network
from kdbench.models.folding import folded
from kdbench.outputs import Outputs
from kdbench.recipe import Recipe
from kdbench.streams import generator
from kdbench.training.compiled import Compiled
from kdbench.training.device import MACHINE_FAULTS, Stopwatch, autocast
from kdbench.training.graphs import Feed
from kdbench.training.lane import Lane, Position, Row
from kdbench.weights import state_hash

EVALUATION_BATCH = 500


class FrozenTeacher:
    """A trained network that never changes: evaluation mode, no gradients, and a check that both held.

    Students see a copy of it in which batch norms are folded into convolutions.

    Attributes:
        network: what was trained, for methods that ask for its parameters.
        sha256: the hash of its state.
        norms_folded: how many of its batch norms are folded.
    """

    def __init__(self, network: Network, *, image_shape: tuple[int, int, int], recipe: Recipe, device: torch.device) -> None:
        self.network = network.eval().requires_grad_(False)
        self.sha256 = state_hash(network.state_dict())
        self._folded, self.norms_folded = folded(network, image_shape=image_shape)
        self._folded_sha256 = state_hash(self._folded.state_dict())
        self._device = device
        self._compute_as(recipe)

    def under(self, recipe: Recipe) -> FrozenTeacher:
        """The same teacher with the arithmetic of another recipe."""
        other = copy(self)
        other._compute_as(recipe)
        return other

    def _compute_as(self, recipe: Recipe) -> None:
        self._compiled = Compiled(self._folded) if recipe.compile else None
        self._autocast = autocast(self._device, precision=recipe.precision)

    def prepare(self, images: Tensor) -> float:
        """Seconds that it took to get ready for images (B, C, H, W) of this shape; 0 where nothing is compiled."""
        with torch.no_grad(), self._autocast:
            return self._compiled.prepare(images) if self._compiled else 0.0

    def __call__(self, images: Tensor) -> Outputs:
        """The outputs (B, ...) for images (B, C, H, W), without a graph."""
        with torch.no_grad(), self._autocast:
            outputs: Outputs = (self._compiled or self._folded)(images)
        return outputs

    def assert_unchanged(self) -> None:
        """Fail if any parameter or buffer has changed by a bit since construction."""
        states = self.network.state_dict(), self._folded.state_dict()
        assert list(map(state_hash, states)) == [self.sha256, self._folded_sha256], "the teacher was changed during training"


@dataclass(frozen=True)
class Stream:
    """The batches that a cohort sees: a function of the seed, the phase and the epoch."""

    data: Resident
    recipe: Recipe
    seed: int | str


def train_in_lockstep(
    lanes: Sequence[Lane],
    stream: Stream,
    *,
    teacher: FrozenTeacher | None,
    evaluate: Callable[[Lane], Row],
    stop: Callable[[], bool],
    epoch_done: Callable[[Position, Sequence[Lane]], None],
) -> bool:
    """Train every lane to its end, or until `stop` says so at the start of an epoch.

    Lanes may stand at different places of the time line; each joins when the stream comes to its place. A lane that raises or
    diverges is marked as failed and the others go on.

    Returns:
        Whether all lanes came to their end.
    """
    graphs = _Graphs(teacher) if records_graphs(stream.data.device) else None
    while positions := [lane.position for lane in lanes if lane.position]:
        if stop():
            return False
        now = min(positions)
        active = [lane for lane in lanes if lane.position == now]
        _epoch(now, active, stream, teacher=teacher, graphs=graphs, evaluate=evaluate)
        epoch_done(now, active)
    return True


def records_graphs(device: torch.device) -> bool:
    """Whether full batches are taken as graphs."""
    return device.type == "cuda"


class _Graphs:
    """Takes full batches: the teacher's graph, then the lanes' side by side, then the lanes that can have none."""

    def __init__(self, teacher: FrozenTeacher | None) -> None:
        self._teacher = teacher
        self._feed: Feed | None = None

    def step(self, lanes: Sequence[Lane], batch: tuple[Tensor, Tensor, Tensor], teacher_watch: Stopwatch) -> float:
        """One step of each lane that has not failed; returns the seconds of what start-up was the teacher's."""
        feed = self._feed = self._feed or Feed(*batch)
        feed.load(*batch)
        active = [lane for lane in lanes if not lane.failure]
        startup_s = 0.0
        if self._teacher and any(lane.reads_teacher for lane in active):
            startup_s = feed.prepare(self._teacher)
            teacher_watch.start()
            feed.ask()
            teacher_watch.stop()
        for lane in active:
            if lane.graph is None and lane.unfit is None:
                _guarded(lane, partial(lane.record_step, feed))
        recorded = [lane.graph.graph for lane in active if lane.graph]
        for lane in active:
            if lane.graph:
                lane.launch_step(len(batch[0]))
        for lane in active:
            if not lane.graph:
                _guarded(lane, partial(lane.step, *feed.batch, feed.teacher))
        for graph in recorded:
            graph.join()
        return startup_s


def _epoch(
    now: Position,
    lanes: Sequence[Lane],
    stream: Stream,
    *,
    teacher: FrozenTeacher | None,
    graphs: _Graphs | None,
    evaluate: Callable[[Lane], Row],
) -> None:
    data, recipe = stream.data, stream.recipe
    data_watch, teacher_watch = Stopwatch(data.device), Stopwatch(data.device)
    startup_s = 0.0
    plan = epoch_plan(len(data), recipe.augmentation, generator(stream.seed, "batches", *now)).to(data.device)
    for lane in lanes:
        lane.begin_epoch()

    def given(start: int, end: int) -> tuple[Tensor, Tensor, Tensor, Outputs | None]:
        data_watch.start()
        images, labels, indices = data.batch(plan, start, end)
        data_watch.stop()
        nonlocal startup_s
        outputs = None
        if teacher and any(lane.reads_teacher and not lane.failure for lane in lanes):
            startup_s += teacher.prepare(images)
            teacher_watch.start()
            outputs = teacher(images)
            teacher_watch.stop()
        return images, labels, indices.clone(), outputs  # the indices are a view of the plan

    for start, end in batch_bounds(len(data), recipe.batch_size):
        shared = given(start, end)
        versions = _versions(*shared)
        for lane in lanes:
            _guarded(lane, partial(lane.step, *shared))
            if _versions(*shared) != versions:
                lane.fail(lane.failure or "it changed in place a tensor that all lanes are given; clone it before")
                shared = given(start, end)
                versions = _versions(*shared)
    data_s, teacher_s = data_watch.take(), teacher_watch.take()
    for lane in lanes:
        _guarded(lane, partial(lane.end_epoch, data_s=data_s, teacher_s=teacher_s, startup_s=startup_s, evaluate=evaluate))


def _versions(images: Tensor, labels: Tensor, indices: Tensor, teacher: Outputs | None) -> list[int]:
    """Of every tensor that lanes share, the count that torch raises when the tensor is changed in place."""
    return [tensor._version for tensor in (images, labels, indices, *(teacher.tensors() if teacher else ()))]


def _guarded(lane: Lane, act: Callable[[], object]) -> None:
    """Do something with a lane that has not failed; an exception in it fails this lane alone."""
    if lane.failure:
        return
    try:
        act()
    except MACHINE_FAULTS:
        raise
    except Exception as problem:  # isolation: whatever a method raises is its lane's result
        frame = traceback.extract_tb(problem.__traceback__)[-1]
        lane.fail(f"{type(problem).__name__}: {problem} ({Path(frame.filename).name}:{frame.lineno})")


def error_pct(predict: Callable[[Tensor], Tensor], data: Resident, *, precision: str) -> float:
    """Percent of `data`, not augmented, that `predict` (images -> logits) gets wrong."""
    wrong = torch.zeros((), dtype=torch.int64, device=data.device)
    with torch.no_grad(), autocast(data.device, precision=precision):
        for start in range(0, len(data), EVALUATION_BATCH):
            images, labels = data.plain(start, min(start + EVALUATION_BATCH, len(data)))
            wrong += (predict(images).argmax(1) != labels).sum()
    return 100 * int(wrong) / len(data)


def inference_images_per_s(predict: Callable[[Tensor], Tensor], data: Resident, *, batch_size: int, precision: str) -> float:
    """Median rate of five forward passes over one batch, after one to warm up."""
    images, _ = data.plain(0, min(batch_size, len(data)))
    watch = Stopwatch(data.device)
    rates = []
    with torch.no_grad(), autocast(data.device, precision=precision):
        for _ in range(6):
            watch.start()
            predict(images)
            watch.stop()
            rates.append(len(images) / watch.take())
    return statistics.median(rates[1:])
