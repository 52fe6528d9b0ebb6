"""Lanes whose students run as one network: one pass forward for all, the losses of each, one pass backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import compress

import torch
from torch import Tensor, nn

from kdbench.method.batch import Batch
from kdbench.method.outputs import Outputs
from kdbench.models import Network
from kdbench.models.stacked import PLACES, Cut, Stacked
from kdbench.training.arithmetic import autocast
from kdbench.training.autograd import learners
from kdbench.training.device import MemoryWatch, Stopwatch, random_states
from kdbench.training.graphs import GraphInputs, NotRecordable, StepGraph, own_stream
from kdbench.training.inputs import StepInputs
from kdbench.training.isolation import guarded, spoils, versions
from kdbench.training.lane import Lane
from kdbench.training.step_losses import StepLosses

Gradients = Sequence[Tensor | None]


class Block:
    """Takes the steps of up to PLACES lanes, whose students have one architecture and see the same views.

    A lane's losses are its own: they go backward to the outputs of its student, where it is cut off from the others. What a lane
    learns is bitwise the same with any others, or with none.

    Attributes:
        lanes: those in it.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = tuple(lanes)
        self._stacked = Stacked([lane.student for lane in lanes if isinstance(lane.student, Network)])
        self._device, self._precision = lanes[0].device, lanes[0].precision
        self._watch, self._memory = Stopwatch(self._device), MemoryWatch(self._device)
        self._stream = own_stream(self._device)
        self._graph: StepGraph | None = None
        self._reached: dict[tuple[Lane, tuple[bool, ...]], set[int]] = {}
        for lane in lanes:
            lane.graph = None

    @property
    def graph(self) -> StepGraph | None:
        """Of the step of all its lanes, where they have one."""
        return self._graph if all(lane.graph is self._graph for lane in self.lanes) else None

    @property
    def graph_refused(self) -> str | None:
        """Why there can be none."""
        return self.lanes[0].graph_refused

    def step(self, inputs: StepInputs, renew: Callable[[], StepInputs]) -> StepInputs:
        """One step of each lane that does not fail in it.

        Args:
            inputs: the batch.
            renew: makes it anew, where a lane has changed a tensor that all are given.

        Returns:
            The batch, made anew or not.
        """
        firsts = {lane: lane.at_first_step for lane in self.lanes}
        learnt: dict[Lane, tuple[Cut, StepLosses, Gradients]] = {}
        cuts: list[Cut] = []
        self._memory.start()
        before = sum(lane.momentum_bytes for lane in self.lanes)
        self._watch.start()
        guarded(lambda: cuts.extend(self._pass(self.lanes[0].batch(inputs))), *self.lanes)
        self._watch.stop()

        def learn(lane: Lane, cut: Cut) -> None:
            with lane.timed():
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
            with lane.timed():
                lane.apply(left[lane][1], g_ce[lane])
            lane.end_step(len(inputs))

        for lane in left:
            guarded(partial(apply, lane), lane)
        self._memory.stop(stays=sum(lane.momentum_bytes for lane in self.lanes) - before)
        if self.graph and self.graph.outdated:
            self._graph = None
        return inputs

    def _update(self, batches: Sequence[Batch], teacher: Outputs | None) -> None:
        """A step as a graph takes it: nobody is at fault in it."""
        learnt = {
            lane: self._learn(lane, cut, batch, teacher, first=False)
            for lane, cut, batch in zip(self.lanes, self._pass(batches[0]), batches, strict=True)
        }
        g_ce = self._backward({lane: (cut, seeds) for lane, (cut, _, seeds) in learnt.items()})
        for lane, (_, losses, _) in learnt.items():
            lane.apply(losses, g_ce[lane])

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
        return cut, losses, lane.backward(losses, [*cut.leaves, *lane.learnt], balance=first)

    def _backward(self, learnt: dict[Lane, tuple[Cut, Gradients]]) -> dict[Lane, Gradients]:
        """Go on backward from the cuts of some lanes; the cross-entropy's gradients at what the students learn, where measured."""
        measured = {lane: (cut, seeds) for lane, (cut, seeds) in learnt.items() if seeds}
        g_ce: dict[Lane, Gradients] = dict.fromkeys(learnt, ())
        ends = [(part, seed) for cut, seeds in measured.values() for part, seed in zip(cut.parts, seeds, strict=False)]
        wanted = [parameter for lane in measured for parameter in lane.learnt]
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
            unreached |= {parameter: parameter.grad for parameter in lane.learnt if id(parameter) not in reached}
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
        """Make a graph of the coming steps on full batches, or find out which lanes hinder it: those have their `graph_refused`.

        Returns:
            Whether the inputs were changed by it, so that they must be made anew.
        """
        before = versions(inputs.step)
        if reason := self._record(inputs):
            if len(self.lanes) > 1:
                for lane in self.lanes:
                    Block([lane]).record_step(inputs)
            if all(lane.graph_refused is None for lane in self.lanes):
                for lane in self.lanes:
                    lane.graph_refused = reason
        return versions(inputs.step) != before

    def _record(self, inputs: GraphInputs) -> str | None:
        """Why it could not be recorded."""
        batches = [lane.batch(inputs.batch) for lane in self.lanes]
        self._graph = None  # one from before gives its memory back first
        for lane in self.lanes:
            lane.graph = None

        def update(batches: Sequence[Batch]) -> None:
            self._update(batches, inputs.teacher)

        try:
            with ExitStack() as recorded:
                for lane in self.lanes:
                    recorded.enter_context(lane.recorded())
                self._graph = StepGraph(
                    update,
                    batches,
                    tensors=lambda: {f"{i} {name}": t for i, lane in enumerate(self.lanes) for name, t in lane.tensors().items()},
                    modules=[module for lane in self.lanes for module in lane.modules],
                    stream=self._stream,
                    draws=lambda: random_states(self._device),
                )
        except NotRecordable as reason:
            return str(reason)
        for lane in self.lanes:
            lane.take_graph(self._graph, share=1 / len(self.lanes))
        return None

    def launch_step(self, images: int) -> None:
        """One step of each lane on a full batch of so many images, by the graph; `join_step` waits for it."""
        graph = self._graph
        assert graph is not None
        for lane, batch in zip(self.lanes, graph.batches, strict=True):
            lane.fill(batch)
        graph.graph.launch()
        for lane in self.lanes:
            lane.count_replayed(images, seconds=graph.seconds / len(self.lanes))

    def join_step(self) -> None:
        """Let the device's current stream go on when the launched step is done."""
        assert self._graph is not None
        self._graph.graph.join()

    def share_costs(self) -> None:
        """Enter into each lane its share of the common passes since this was last called; on CUDA the host waits for them."""
        seconds = self._watch.take()
        for lane in self.lanes:
            lane.add_common(seconds=seconds / len(self.lanes), memory=self._memory.most / len(self.lanes))


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return one if other is None else other if one is None else one + other


class Units:
    """Lanes as they take their steps: in blocks where they are stacked, else by themselves."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[Lane, ...], Block] = {}

    def of(self, lanes: Sequence[Lane]) -> list[Lane | Block]:
        """The units of the lanes that have not failed; a block stays the same as long as its lanes do."""
        active = [lane for lane in lanes if not lane.failure]
        kinds: dict[object, list[Lane]] = {}
        for lane in active:
            if lane.stacked_as is not None:
                kinds.setdefault((lane.stacked_as, lane.method.views, lane.graph_refused is None), []).append(lane)
        groups = [tuple(kind[i : i + PLACES]) for kind in kinds.values() for i in range(0, len(kind), PLACES)]
        for block in (self._blocks.pop(group) for group in self._blocks.keys() - set(groups)):
            block.share_costs()
        for group in groups:
            if group not in self._blocks:
                self._blocks[group] = Block(group)
        return [*(lane for lane in active if lane.stacked_as is None), *(self._blocks[group] for group in groups)]

    def share_costs(self) -> None:
        """That of each block."""
        for block in self._blocks.values():
            block.share_costs()
