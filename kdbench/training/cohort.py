"""Lanes in lockstep: one stream of batches, one forward pass of the teacher per batch, each lane its own step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kdbench.data import Loader
from kdbench.data.loader import LoadBatch
from kdbench.errors import KdbenchError
from kdbench.method.outputs import Outputs
from kdbench.models import Network
from kdbench.models.folding import folded
from kdbench.models.weights import state_hash
from kdbench.spec.recipe import Recipe
from kdbench.streams import derive, generator, reseed
from kdbench.training.compiled import Compiled
from kdbench.training.device import Stopwatch, autocast, refused_allocations
from kdbench.training.evaluation import TEST, Evaluator, buffers_kept
from kdbench.training.fatal_errors import fatal_error, location
from kdbench.training.graphs import GraphInputs
from kdbench.training.lane import Lane
from kdbench.training.segments import Position


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

    def logits(self, images: Tensor) -> Tensor:
        """The logits (B, K) for images (B, C, H, W), never compiled: whatever shapes were compiled before, they are the same."""
        with torch.no_grad(), self._autocast:
            outputs: Outputs = self._folded(images)
        return outputs.logits

    @property
    def unchanged(self) -> bool:
        """Whether every parameter and buffer is bitwise as at construction."""
        states = self.network.state_dict(), self._folded.state_dict()
        return list(map(state_hash, states)) == [self.sha256, self._folded_sha256]

    def assert_unchanged(self) -> None:
        """Fail if any parameter or buffer has changed by a bit since construction."""
        assert self.unchanged, "the teacher was changed during training"


class SilentOutOfMemory(KdbenchError):
    """The device's memory was full without anybody being told; it ends the process, whose convolutions are others from now on."""

    def __init__(self) -> None:
        super().__init__(
            "the device's memory was so full that convolutions took other kernels, which round differently. Train fewer students "
            "at once: the same command with --lanes 4, say, goes on from the last whole epoch."
        )


@dataclass(frozen=True)
class Stream:
    """The batches that a cohort sees, and what the teacher draws for them: a function of the seed, the phase and the epoch."""

    data: Loader
    recipe: Recipe
    seed: int | str

    def reseed_for_teacher(self, now: Position, number: int) -> None:
        """Set what a teacher may draw from that is random in evaluation too, for the batch `number` of an epoch."""
        reseed(derive(self.seed, "teacher", *now, number), self.data.device)


def train_in_lockstep(
    lanes: Sequence[Lane],
    stream: Stream,
    *,
    teacher: FrozenTeacher | None,
    evaluation: Mapping[str, Loader],
    stop: Callable[[], bool],
    epoch_done: Callable[[Position, Sequence[Lane]], None],
    graphs: bool = False,
) -> bool:
    """Train every lane to its end, or until `stop` says so at the start of an epoch.

    Lanes may stand at different places of the time line; each joins when the stream comes to its place. A lane that raises or
    diverges is marked as failed and the others go on. After every epoch of its main training a student's error in percent on each
    loader of `evaluation` enters its row under the loader's key, and after the last one what it answers to each test image is kept.
    With `graphs` full batches are taken as CUDA graphs.

    Returns:
        Whether all lanes came to their end.
    """
    recorded = _Graphs(teacher) if graphs else None
    while positions := [lane.position for lane in lanes if lane.position]:
        if stop():
            return False
        now = min(positions)
        active = [lane for lane in lanes if lane.position == now]
        _epoch(now, active, stream, teacher=teacher, graphs=recorded, evaluation=evaluation)
        epoch_done(now, active)
    return True


MOST_GRAPHS = 31
"""How many lanes can have graphs at once: torch has 32 streams, of which the teacher's graph takes one."""


def records_graphs(device: torch.device) -> bool:
    """Whether steps can be CUDA graphs."""
    return device.type == "cuda"


class _Graphs:
    """Takes full batches: the teacher's graph, then lanes without one, each by itself since it is timed, then the graphs."""

    def __init__(self, teacher: FrozenTeacher | None) -> None:
        self._teacher = teacher
        self._inputs: GraphInputs | None = None

    def step(
        self,
        lanes: Sequence[Lane],
        batch: tuple[Tensor, Tensor, Tensor],
        teacher_watch: Stopwatch,
        reseed_for_teacher: Callable[[], None],
    ) -> float:
        """One step of each lane that has not failed; returns the seconds of what start-up was the teacher's."""
        inputs = self._inputs = self._inputs or GraphInputs(*batch)
        inputs.load(*batch)
        active = [lane for lane in lanes if not lane.failure]
        startup_s = 0.0
        if self._teacher and any(lane.reads_teacher for lane in active):
            startup_s = inputs.prepare(self._teacher)
            reseed_for_teacher()
            teacher_watch.start()
            inputs.run_teacher()
            teacher_watch.stop()

        def renew() -> None:
            inputs.load(*batch)
            if inputs.teacher:
                reseed_for_teacher()
                inputs.run_teacher()

        for lane in active:
            to_record = lane.graph is None and lane.graph_refused is None
            if to_record and _spoils(lane, partial(lane.record_step, inputs), inputs.shared):
                renew()
        for lane in active:
            if not lane.graph and _spoils(lane, partial(lane.step, *inputs.batch, inputs.teacher), inputs.shared):
                renew()
        recorded = [lane for lane in active if lane.graph and not lane.failure]
        try:
            for lane in recorded:
                lane.launch_step(len(batch[0]))
        finally:  # also where memory is full: what the lanes let go of then is taken for other things
            for lane in recorded:
                lane.join_step()
        return startup_s


def _epoch(
    now: Position,
    lanes: Sequence[Lane],
    stream: Stream,
    *,
    teacher: FrozenTeacher | None,
    graphs: _Graphs | None,
    evaluation: Mapping[str, Loader],
) -> None:
    data, recipe = stream.data, stream.recipe
    data_watch, teacher_watch = Stopwatch(data.device), Stopwatch(data.device)
    refused = refused_allocations(data.device)
    startup_s = 0.0
    for lane in lanes:
        lane.begin_epoch()

    def loaded(load: LoadBatch) -> tuple[Tensor, Tensor, Tensor]:
        data_watch.start()
        images, labels, indices = load()
        data_watch.stop()
        return images, labels, indices.clone()  # the indices are a view of the plan

    def outputs_for(images: Tensor, number: int) -> Outputs | None:
        nonlocal startup_s
        if teacher is None or not any(lane.reads_teacher and not lane.failure for lane in lanes):
            return None
        startup_s += teacher.prepare(images)
        stream.reseed_for_teacher(now, number)
        teacher_watch.start()
        outputs = teacher(images)
        teacher_watch.stop()
        return outputs

    batches = data.epoch(generator(stream.seed, "batches", *now), batch_size=recipe.batch_size)
    for number, load in enumerate(data_watch.waits(batches)):
        batch = loaded(load)
        if graphs and number and len(batch[0]) == recipe.batch_size:  # the first batch makes what a graph needs to find
            startup_s += graphs.step(lanes, batch, teacher_watch, partial(stream.reseed_for_teacher, now, number))
        else:
            shared = *batch, outputs_for(batch[0], number)
            for lane in lanes:
                if _spoils(lane, partial(lane.step, *shared), shared):
                    batch = loaded(load)
                    shared = *batch, outputs_for(batch[0], number)
        if all(lane.failure for lane in lanes):
            break  # nobody is left for whom to read the rest
    data_s, teacher_s = data_watch.take(), teacher_watch.take()
    for lane in lanes:
        _guarded(lane, partial(lane.sum_up, data_s=data_s, teacher_s=teacher_s, startup_s=startup_s))
    if recipe.evaluates(now.epoch + 1):
        for key, loader in evaluation.items():
            detailed = key == TEST and now.epoch + 1 == recipe.epochs
            _evaluate([lane for lane in lanes if lane.in_main and not lane.failure], loader, teacher, key=key, detailed=detailed)
    if refused_allocations(data.device) > refused:  # nobody was told, and nothing of the epoch may be kept
        raise SilentOutOfMemory
    for lane in lanes:
        _guarded(lane, lane.end_epoch)


def _evaluate(lanes: Sequence[Lane], data: Loader, teacher: FrozenTeacher | None, *, key: str, detailed: bool) -> None:
    """Enter into each lane's row what it gets wrong of `data`, not augmented, in percent; every image is read once for all.

    With `detailed` each lane keeps its predictions, beside those of the teacher, which answers once for all of them.
    """
    if not lanes:
        return
    started = time.perf_counter()
    predictors = [lane.predictor() for lane in lanes]
    under_way = [
        Evaluator(predictor, data.device, precision=lane.precision, detailed=detailed)
        for lane, predictor in zip(lanes, predictors, strict=True)
    ]
    of_teacher = None
    if detailed and teacher and any(lane.reads_teacher for lane in lanes):
        of_teacher = Evaluator(teacher.logits, data.device, precision=lanes[0].precision)
    with ExitStack() as stack:
        for predictor in predictors:
            stack.enter_context(buffers_kept(predictor))
        for load in data.plain_batches():
            teacher_logits = of_teacher.update(load) if of_teacher else None
            for lane, evaluator in zip(lanes, under_way, strict=True):
                _guarded(lane, partial(evaluator.update, load, teacher_logits if lane.reads_teacher else None))
    for lane, evaluator in zip(lanes, under_way, strict=True):
        if not lane.failure:
            lane.add_evaluation(key, evaluator.compute(), seconds=(time.perf_counter() - started) / len(lanes))


def _spoils(lane: Lane, act: Callable[[], object], shared: tuple[Tensor, Tensor, Tensor, Outputs | None]) -> bool:
    """Do something with a lane that has not failed, and see whether it changed a tensor that all lanes are given: then it fails."""
    before = _versions(*shared)
    _guarded(lane, act)
    if _versions(*shared) == before:
        return False
    lane.fail(lane.failure or "it changed in place a tensor that all lanes are given; clone it before")
    return True


def _versions(images: Tensor, labels: Tensor, indices: Tensor, teacher: Outputs | None) -> list[tuple[int, bool]]:
    """Of every tensor that lanes share, the count that torch raises when it is changed, and whether it asks for a gradient."""
    tensors = (images, labels, indices, *(teacher.tensors() if teacher else ()))
    return [(tensor._version, tensor.requires_grad) for tensor in tensors]


def _guarded(lane: Lane, act: Callable[[], object]) -> None:
    """Do something with a lane that has not failed; an exception in it fails this lane alone."""
    if lane.failure:
        return
    try:
        act()
    except Exception as problem:  # isolation: whatever a method raises is its lane's result
        if fault := fatal_error(problem):
            raise fault from None
        text = f"{type(problem).__name__}: {problem}"
        if "modified by an inplace operation" in text:
            text = "it changed in place a tensor that a gradient needs, such as the student's outputs; clone it before"
        lane.fail(f"{text} ({location(problem)})")
