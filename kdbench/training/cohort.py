"""Lanes in lockstep: one stream of batches, one forward pass of the teacher per batch, each lane its own step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice

import torch

from kdbench.data import Loader, batch_bounds
from kdbench.errors import KdbenchError
from kdbench.method.batch import VIEWS
from kdbench.training.deployed import Deployed
from kdbench.training.device import refused_allocations
from kdbench.training.evaluation import TEST, Evaluator, buffers_kept
from kdbench.training.frozen_teacher import FrozenTeacher, ask
from kdbench.training.graph_inputs import GraphInputs
from kdbench.training.inputs import StepInputs
from kdbench.training.isolation import guarded
from kdbench.training.lane import Lane
from kdbench.training.segments import Position
from kdbench.training.stream import Load, Stream
from kdbench.training.unit import Unit
from kdbench.training.units import Units
from kdbench.training.waiting import Waiting
from kdbench.training.watches import Stopwatch


class SilentOutOfMemory(KdbenchError):
    """The device's memory was full without anybody being told; it ends the process, whose convolutions are others from now on."""

    def __init__(self) -> None:
        super().__init__(
            "the device's memory was so full that convolutions took other kernels, which round differently. Train fewer students "
            "at once: the same command with --lanes 4, say, continues from the last whole epoch."
        )


def train_in_lockstep(
    lanes: Sequence[Lane],
    stream: Stream,
    *,
    teachers: Sequence[FrozenTeacher],
    evaluation: Mapping[str, Loader],
    stop: Callable[[], bool],
    epoch_done: Callable[[Position, Sequence[Lane]], None],
    graphs: bool = False,
    waiting: Waiting | None = None,
) -> bool:
    """Train every lane to its end, or until `stop` says so at the start of an epoch.

    Lanes may stand at different places of the time line; each joins when the stream comes to its place. A lane that raises or
    diverges is marked as failed and the others go on. After every epoch of its main training a student's error in percent on each
    loader of `evaluation` enters its row under the loader's key, and after the last one what it answers to each test image is kept.
    With `graphs` full batches are taken as CUDA graphs. `waiting` is told whenever the host waits for the device.

    Returns:
        Whether all lanes came to their end.
    """
    units = Units(lanes)
    recorded = _Graphs(teachers, units) if graphs else None
    waiting = waiting or Waiting()
    while positions := [lane.position for lane in lanes if lane.position]:
        if stop():
            return False
        now = min(positions)
        active = [lane for lane in lanes if lane.position == now]
        with waiting.for_device(lane.name for lane in active):
            _epoch(now, active, stream, teachers=teachers, units=units, graphs=recorded, evaluation=evaluation, waiting=waiting)
        for lane in active:
            guarded(lane.end_epoch, lane)
        epoch_done(now, active)
    return True


MOST_GRAPHS = 31
"""How many lanes can have graphs at once: torch has 32 streams, of which the teacher's graph takes one."""


def records_graphs(device: torch.device) -> bool:
    """Whether steps can be CUDA graphs."""
    return device.type == "cuda"


Numbered = tuple[int, Callable[[], StepInputs]]
"""The place of a batch in its epoch, and what makes it."""


class _Graphs:
    """Takes full batches: lanes without a graph each by itself, since it is timed, then all graphs beside each other.

    One of these is the teacher's, which is a batch ahead.
    """

    def __init__(self, teachers: Sequence[FrozenTeacher], units: Units) -> None:
        self._teachers = teachers
        self._units = units
        self._inputs: GraphInputs | None = None

    def steps(
        self,
        lanes: Sequence[Lane],
        batches: Iterator[Numbered],
        teacher_watch: Stopwatch,
        reseed_for_teacher: Callable[..., None],
    ) -> float:
        """A step on each batch of each lane that has not failed; returns the seconds of what start-up was the teacher's."""
        startup_s = 0.0

        def make_ready(number: int, load: Callable[[], StepInputs]) -> GraphInputs:
            nonlocal startup_s
            batch = load()
            inputs = self._inputs_for(batch, lanes)
            inputs.load(batch)
            if self._teachers and any(lane.method.reads_teacher for lane in lanes if not lane.failure):
                views, reseed = tuple(batch.views), partial(reseed_for_teacher, number)
                startup_s += inputs.prepare(lambda step: ask(self._teachers, step, views))
                inputs.run_teacher(lambda step: ask(self._teachers, step, views, reseed), teacher_watch)
            return inputs

        def renew(present: Numbered) -> StepInputs:
            inputs = make_ready(*present)
            inputs.advance()
            return inputs.step

        if not (following := next(batches, None)):
            return startup_s
        inputs = make_ready(*following)
        while following:
            inputs.advance()
            recorded = self._steps_without_graphs(lanes, inputs, partial(renew, following))
            try:
                if following := next(batches, None):
                    make_ready(*following)
                for unit in recorded:
                    unit.launch_step(len(inputs.batch))
            finally:  # also where memory is full: what the lanes let go of then is taken for other things
                for unit in recorded:
                    unit.join_step()
                inputs.join()
        return startup_s

    def _inputs_for(self, batch: StepInputs, lanes: Sequence[Lane]) -> GraphInputs:
        if self._inputs is None or self._inputs.batch.views.keys() != batch.views.keys():
            self._inputs = GraphInputs(batch)
            for lane in lanes:
                lane.graph = None  # it reads the tensors of other inputs
        return self._inputs

    def _steps_without_graphs(self, lanes: Sequence[Lane], inputs: GraphInputs, renew: Callable[[], StepInputs]) -> list[Unit]:
        """Record what has no graph yet, and take the step of what can have none; returns the others."""
        while new := [unit for unit in self._units.of(lanes) if unit.graph is None and unit.graph_refused is None]:
            for unit in new:  # a block that cannot be recorded becomes two
                if unit.record_step(inputs):
                    renew()
        units = self._units.of(lanes)
        for unit in units:
            if not unit.graph:
                unit.step(inputs.step, renew)
        return [unit for unit in units if unit.graph]


def _epoch(
    now: Position,
    lanes: Sequence[Lane],
    stream: Stream,
    *,
    teachers: Sequence[FrozenTeacher],
    units: Units,
    graphs: _Graphs | None,
    evaluation: Mapping[str, Loader],
    waiting: Waiting,
) -> None:
    data, recipe = stream.data, stream.recipe
    data_watch, teacher_watch = Stopwatch(data.device), Stopwatch(data.device)
    refused = refused_allocations(data.device)
    startup_s, began = 0.0, time.perf_counter()
    sizes = [stop - start for start, stop in batch_bounds(len(data), recipe.batch_size)]
    for lane in lanes:
        lane.begin_epoch(steps=len(sizes))

    def loaded(load: Load) -> StepInputs:
        data_watch.start()
        batch = load()
        data_watch.stop()
        return batch

    def taught(batch: StepInputs, number: int) -> StepInputs:
        nonlocal startup_s
        readers = [lane for lane in lanes if lane.method.reads_teacher and not lane.failure]
        if not teachers or not readers:
            return batch
        seen = _views(readers)
        with waiting.on_host():
            for teacher in teachers:
                startup_s += sum(map(teacher.prepare, (batch.images, *(batch.views[view].images for view in seen))))
        teacher_watch.start()
        outputs = ask(teachers, batch, seen, partial(stream.reseed_for_teacher, now, number))
        teacher_watch.stop()
        return batch.taught(outputs)

    def made(number: int, load: Callable[[], StepInputs]) -> StepInputs:
        return taught(load(), number)

    def ordinary_step(number: int, load: Callable[[], StepInputs]) -> None:
        inputs = made(number, load)
        with waiting.on_host():
            units.prepare(lanes, inputs)
        for unit in units.of(lanes):
            inputs = unit.step(inputs, partial(made, number, load))

    loads = data_watch.waits(waiting.items(stream.batches(now, _views(lanes))))
    batches = enumerate(partial(loaded, load) for load in _until_all_have_failed(lanes, loads))
    if graphs:
        for batch in islice(batches, 1):
            ordinary_step(*batch)  # it makes what a graph needs to find
        full = islice(batches, max(0, sizes.count(recipe.batch_size) - 1))
        startup_s += graphs.steps(lanes, full, teacher_watch, partial(stream.reseed_for_teacher, now))
    for batch in batches:
        ordinary_step(*batch)
    data_s, teacher_s = data_watch.take(), teacher_watch.take()
    units.share_costs()
    elapsed_s = time.perf_counter() - began - startup_s - sum(lane.costs.startup_s for lane in lanes)
    for lane in lanes:
        guarded(partial(lane.sum_up, data_s=data_s, teacher_s=teacher_s, startup_s=startup_s), lane)
    if graphs:  # beside each other they take less time than one after the other, as which they are timed
        done = [lane for lane in lanes if not lane.failure]
        alone_s = data_s + teacher_s + sum(lane.own_s for lane in done)
        for lane in done:
            lane.enter_elapsed(elapsed_s / alone_s)
    if recipe.evaluates(now.epoch + 1):
        for key, loader in evaluation.items():
            detailed = key == TEST and now.epoch + 1 == recipe.epochs
            tested = [lane for lane in lanes if lane.in_main and not lane.failure]
            _evaluate(tested, loader, teachers, key=key, detailed=detailed, waiting=waiting)
    if refused_allocations(data.device) > refused:  # nobody was told, and nothing of the epoch may be kept
        raise SilentOutOfMemory


def _until_all_have_failed(lanes: Sequence[Lane], loads: Iterable[Load]) -> Iterator[Load]:
    """The loads while somebody is left to learn from them; to ask for one more would be to read its images."""
    for load in loads:
        yield load
        if all(lane.failure for lane in lanes):
            return


def _evaluate(
    lanes: Sequence[Lane], data: Loader, teachers: Sequence[FrozenTeacher], *, key: str, detailed: bool, waiting: Waiting
) -> None:
    """Enter into each lane's row what it gets wrong of `data`, not augmented, in percent; every image is read once for all.

    With `detailed` each lane keeps its predictions, beside those of the first teacher, which answers once for all of them.
    """
    if not lanes:
        return
    started = time.perf_counter()
    predictors: dict[Lane, Deployed] = {}

    def deploy(lane: Lane) -> None:
        predictors[lane] = lane.predictor()

    for lane in lanes:
        guarded(partial(deploy, lane), lane)
    under_way = {
        lane: Evaluator(predictor, data.device, precision=lane.precision, detailed=detailed)
        for lane, predictor in predictors.items()
    }
    of_teacher = None
    if detailed and teachers and any(lane.method.reads_teacher for lane in lanes):
        of_teacher = Evaluator(teachers[0].logits, data.device, precision=lanes[0].precision)
    with ExitStack() as stack:
        for lane, predictor in predictors.items():
            stack.enter_context(lane.updates.as_tested())
            stack.enter_context(buffers_kept(predictor))
        for load in waiting.items(data.plain_batches()):
            teacher_logits = of_teacher.update(load) if of_teacher else None
            for lane, evaluator in under_way.items():
                guarded(partial(evaluator.update, load, teacher_logits if lane.method.reads_teacher else None), lane)
    for lane, evaluator in under_way.items():
        if not lane.failure:
            lane.add_evaluation(key, evaluator.compute(), seconds=(time.perf_counter() - started) / len(lanes))


def _views(lanes: Iterable[Lane]) -> tuple[str, ...]:
    """The views that some of the lanes ask for."""
    asked = {view for lane in lanes for view in lane.method.views}
    return tuple(view for view in VIEWS if view in asked)
