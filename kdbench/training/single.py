"""A lane that takes its steps by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from kdbench.method.batch import Batch
from kdbench.method.outputs import Outputs
from kdbench.training.arithmetic import autocast
from kdbench.training.autograd import learners
from kdbench.training.compiled import Compiled
from kdbench.training.graph_inputs import GraphInputs
from kdbench.training.inputs import StepInputs, outputs_of
from kdbench.training.isolation import spoils
from kdbench.training.lane import Lane
from kdbench.training.unit import Unit


class Single(Unit):
    """Takes the steps of one lane."""

    def __init__(self, lane: Lane) -> None:
        super().__init__([lane])
        self._lane = lane
        self._compiled = Compiled(lane.student) if lane.student and lane.compiled else None

    def _compile(self, images: Tensor) -> float:
        return self._compiled.prepare(images) if self._compiled else 0.0

    def train_step(self, inputs: StepInputs) -> None:
        """One step of the optimiser on a batch; raises what the method raises."""
        self.prepare(inputs)
        lane, costs = self._lane, self._lane.costs
        with costs.timed():
            costs.memory.start()
            before = lane.updates.held_bytes
            lane.begin_step()
            self._train(lane.batch(inputs), inputs.teacher, first=lane.at_first_step)
            lane.end_step(len(inputs))
            costs.memory.stop(stays=lane.updates.held_bytes - before)
        if lane.graph and lane.graph.outdated:  # such as by a weight that the method has changed in this step
            lane.graph = None

    def step(self, inputs: StepInputs, renew: Callable[[], StepInputs]) -> StepInputs:
        """As of every unit."""
        return renew() if spoils(partial(self.train_step, inputs), self._lane, inputs) else inputs

    def record_step(self, inputs: GraphInputs) -> bool:
        """As of every unit."""

        def record() -> None:
            self._lane.graph_refused = self._record(inputs)

        return spoils(record, self._lane, inputs.step)

    def _update(self, batches: Sequence[Batch], teacher: Outputs | None) -> None:
        self._train(batches[0], teacher, first=False)

    def _train(self, batch: Batch, teacher: Outputs | None, *, first: bool) -> None:
        """All of a step that happens on the device; `first` of an epoch measures the loss balance."""
        lane = self._lane
        forward = self._compiled or lane.student
        with autocast(self._device, precision=self._precision):
            outputs = outputs_of(forward, batch) if forward else teacher
            assert outputs is not None, "a stage of the teacher alone is given the teacher's outputs"
            losses = lane.losses(outputs, teacher, batch, first=first)
        reached = set(map(id, learners(losses.total))) if self._compiled else set()
        g_ce = lane.backward(losses, lane.updates.learnt, balance=first)
        for parameter in lane.updates.learnt if self._compiled else ():  # a compiled network gives those zeros, which would decay
            if id(parameter) not in reached:
                parameter.grad = None
        lane.apply(losses, g_ce)
