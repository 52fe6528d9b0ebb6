"""Lanes whose students run as one network: one pass forward for all, the losses of each, one pass backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress, repeat

import torch
from torch import Tensor, nn

from kdbench.method.batch import Batch
from kdbench.method.outputs import Outputs
from kdbench.models import Network
from kdbench.models.stacked import Cut, Stacked
from kdbench.training.arithmetic import autocast
from kdbench.training.autograd import learners
from kdbench.training.compiled import Compiled
from kdbench.training.graph_inputs import GraphInputs
from kdbench.training.graphs import beside_each_other
from kdbench.training.inputs import StepInputs
from kdbench.training.isolation import guarded, spoils, versions
from kdbench.training.lane import Lane
from kdbench.training.step_losses import StepLosses
from kdbench.training.unit import Unit
from kdbench.training.watches import MemoryWatch, Stopwatch

Gradients = Sequence[Tensor | None]


class Block(Unit):
    """Takes the steps of up to PLACES lanes, whose students have one architecture and see the same views.

    A lane's losses are its own: they go backward to the outputs of its student, where it is cut off from the others. What a lane
    learns is bitwise the same with any others, or with none.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        super().__init__(lanes)
        students = [lane.student for lane in lanes if isinstance(lane.student, Network)]
        self._stacked = Stacked(students, compiled=Compiled if lanes[0].compiled else None)
        self._watch, self._memory = Stopwatch(self._device), MemoryWatch(self._device)
        self._reached: dict[tuple[Lane, tuple[bool, ...]], set[int]] = {}
        for lane in lanes:
            lane.graph = None

    def _compile(self, images: Tensor) -> float:
        return self._stacked.prepare(images)

    def step(self, inputs: StepInputs, renew: Callable[[], StepInputs]) -> StepInputs:
        """As of every unit."""
        guarded(partial(self.prepare, inputs), *self.lanes)
        firsts = {lane: lane.at_first_step for lane in self.lanes}
        learnt: dict[Lane, tuple[Cut, StepLosses, Gradients]] = {}
        cuts: list[Cut] = []
        self._memory.start()
        before = sum(lane.updates.held_bytes for lane in self.lanes)
        self._watch.start()
        guarded(lambda: cuts.extend(self._pass(self.lanes[0].batch(inputs))), *self.lanes)
        self._watch.stop()

        def learn(lane: Lane, cut: Cut) -> None:
            with lane.costs.timed():
                lane.begin_step()
                learnt[lane] = self._learn(lane, cut, lane.batch(inputs), inputs.teacher, first=firsts[lane])

        for lane, cut in zip(self.lanes, cuts, strict=False):  # there are none where the pass failed
            if spoils(partial(learn, lane, cut), lane, inputs):
                inputs = renew()
        left = {lane: learnt[lane] for lane in learnt if not lane.failure}
        g_ce: dict[Lane, Gradients] = {}
        self._watch.start()
        guarded(lambda: g_ce.update(self._backward({lane: (cut, seeds) for lane, (cut, _, seeds) in left.items()})), *left)
        self._watch.stop()

        def apply(lane: Lane) -> None:
            with lane.costs.timed():
                lane.apply(left[lane][1], g_ce[lane])
            lane.end_step(len(inputs))

        for lane in left:
            guarded(partial(apply, lane), lane)
        self._memory.stop(stays=sum(lane.updates.held_bytes for lane in self.lanes) - before)
        if self.graph and self.graph.outdated:
            for lane in self.lanes:
                lane.graph = None
        return inputs

    def _update(self, batches: Sequence[Batch], teacher: Outputs | None) -> None:
        learnt: dict[Lane, tuple[Cut, StepLosses, Gradients]] = {}
        cuts = self._pass(batches[0])

        def learn(lane: Lane, cut: Cut, batch: Batch) -> None:
            learnt[lane] = self._learn(lane, cut, batch, teacher, first=False)

        streams = [lane.stream for lane in self.lanes]  # losses are many small kernels, which leave the device idle by themselves
        beside_each_other(list(map(partial, repeat(learn), self.lanes, cuts, batches)), streams)
        g_ce = self._backward({lane: (cut, seeds) for lane, (cut, _, seeds) in learnt.items()})
        beside_each_other([partial(lane.apply, learnt[lane][1], g_ce[lane]) for lane in self.lanes], streams)

    def _pass(self, batch: Batch) -> list[Cut]:
        """What the students give for a batch and for its views."""
        with autocast(self._device, precision=self._precision):
            cuts = self._stacked(batch.images)
            of_views = {name: self._stacked(view.images) for name, view in batch.views.items()}
        if not of_views:
            return cuts
        return [
            Cut(
                replace(cut.outputs, views={name: found[place].outputs for name, found in of_views.items()}),
                (*cut.leaves, *(leaf for found in of_views.values() for leaf in found[place].leaves)),
                (*cut.parts, *(part for found in of_views.values() for part in found[place].parts)),
            )
            for place, cut in enumerate(cuts)
        ]

    def _learn(
        self, lane: Lane, cut: Cut, batch: Batch, teacher: Outputs | None, *, first: bool
    ) -> tuple[Cut, StepLosses, Gradients]:
        """A lane's losses, after they went backward to the cut, and where measured the cross-entropy's gradients there."""
        losses = lane.losses(cut.outputs, teacher, batch, first=first)
        return cut, losses, lane.backward(losses, [*cut.leaves, *lane.updates.learnt], balance=first)

    def _backward(self, learnt: dict[Lane, tuple[Cut, Gradients]]) -> dict[Lane, Gradients]:
        """Go on backward from the cuts of some lanes; the cross-entropy's gradients at what the students learn, where measured."""
        measured = {lane: (cut, seeds) for lane, (cut, seeds) in learnt.items() if seeds}
        g_ce: dict[Lane, Gradients] = dict.fromkeys(learnt, ())
        ends = [(part, seed) for cut, seeds in measured.values() for part, seed in zip(cut.parts, seeds, strict=False)]
        wanted = [parameter for lane in measured for parameter in lane.updates.learnt]
        found: Iterator[Tensor | None] = iter(())
        if parts := [(part, seed) for part, seed in ends if seed is not None]:
            at, gradients = zip(*parts, strict=True)
            with self._watch.paused():
                found = iter(torch.autograd.grad(at, wanted, gradients, retain_graph=True, allow_unused=True))
        for lane, (cut, seeds) in measured.items():
            g_ce[lane] = [_sum(direct, next(found, None)) for direct in seeds[len(cut.leaves) :]]
        unreached: dict[nn.Parameter, Tensor | None] = {}
        for lane, (cut, _) in learnt.items():
            reached = self._reached_by(lane, cut)
            unreached |= {parameter: parameter.grad for parameter in lane.updates.learnt if id(parameter) not in reached}
        for parameter in unreached:
            parameter.grad = None  # what others send there must not be added to it
        ends = [(part, leaf.grad) for cut, _ in learnt.values() for part, leaf in zip(cut.parts, cut.leaves, strict=True)]
        if parts := [(part, gradient) for part, gradient in ends if gradient is not None]:
            at, gradients = zip(*parts, strict=True)
            torch.autograd.backward(at, gradients)
        for parameter, gradient in unreached.items():  # they have zeros because of other lanes, and an optimiser would decay them
            parameter.grad = gradient
        return g_ce

    def _reached_by(self, lane: Lane, cut: Cut) -> set[int]:
        """The `id` of each parameter that the lane's losses reach through its outputs."""
        used = tuple(leaf.grad is not None for leaf in cut.leaves)
        if (lane, used) not in self._reached:
            self._reached[lane, used] = set(map(id, learners(*compress(cut.parts, used))))
        return self._reached[lane, used]

    def record_step(self, inputs: GraphInputs) -> bool:
        """As of every unit; where it cannot be recorded, each lane is tried by itself, to find out which ones hinder it."""
        guarded(partial(self.prepare, inputs.step), *self.lanes)
        before = versions(inputs.step)
        if reason := self._record(inputs):
            if len(self.lanes) > 1:
                for lane in self.lanes:
                    Block([lane]).record_step(inputs)
            if all(lane.graph_refused is None for lane in self.lanes):
                for lane in self.lanes:
                    lane.graph_refused = reason
        return versions(inputs.step) != before

    def share_costs(self) -> None:
        """Enter into each lane its share of the common passes since this was last called; on CUDA the host waits for them."""
        seconds = self._watch.take()
        for lane in self.lanes:
            lane.costs.add_common(seconds=seconds / len(self.lanes), memory=self._memory.most / len(self.lanes))


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return one if other is None else other if one is None else one + other
