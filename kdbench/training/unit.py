"""What takes the steps of lanes: each by itself, or some at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from torch import Tensor

from kdbench.method.batch import Batch
from kdbench.method.outputs import Outputs
from kdbench.training.arithmetic import autocast
from kdbench.training.device import random_states
from kdbench.training.graph_inputs import GraphInputs
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane
from kdbench.training.step_graph import NotRecordable, StepGraph


class Unit(ABC):
    """Takes the steps of some lanes, ordinary ones or by one graph of all of them.

    Attributes:
        lanes: those in it; they share device and precision.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = tuple(lanes)
        self._device, self._precision = lanes[0].device, lanes[0].precision

    @property
    def graph(self) -> StepGraph | None:
        """Of the step of all its lanes, where they have one."""
        graph = self.lanes[0].graph
        return graph if all(lane.graph is graph for lane in self.lanes) else None

    @property
    def graph_refused(self) -> str | None:
        """Why there can be none."""
        return self.lanes[0].graph_refused

    def prepare(self, inputs: StepInputs) -> None:
        """Compile for batches like this one, where the recipe compiles and that was not done before."""
        if not self.lanes[0].compiled:
            return
        with autocast(self._device, precision=self._precision):
            views = (inputs.views[name].images for name in self.lanes[0].method.views)
            seconds = sum(map(self._compile, (inputs.images, *views)))
        for lane in self.lanes:
            lane.costs.startup_s += seconds / len(self.lanes)

    @abstractmethod
    def _compile(self, images: Tensor) -> float:
        """Compile for images (B, C, H, W) of this shape; seconds, 0 where that was done before."""

    @abstractmethod
    def step(self, inputs: StepInputs, renew: Callable[[], StepInputs]) -> StepInputs:
        """One step of each lane that does not fail in it.

        Args:
            inputs: the batch.
            renew: makes it anew, where a lane has changed a tensor that all are given.

        Returns:
            The batch, made anew or not.
        """

    @abstractmethod
    def record_step(self, inputs: GraphInputs) -> bool:
        """Make a graph of the coming steps on full batches; lanes that can have none get their `graph_refused`.

        Returns:
            Whether the inputs were changed by it, so that they must be made anew.
        """

    @abstractmethod
    def _update(self, batches: Sequence[Batch], teacher: Outputs | None) -> None:
        """All of a step that happens on the device, given a batch for each lane, as a graph takes it."""

    def _record(self, inputs: GraphInputs) -> str | None:
        """Give the lanes a graph of their step, or say why it could not be recorded."""
        for lane in self.lanes:
            lane.graph = None  # one from before gives its memory back first
        try:
            with ExitStack() as recorded:
                for lane in self.lanes:
                    recorded.enter_context(lane.recorded())
                graph = StepGraph(
                    lambda batches: self._update(batches, inputs.teacher),
                    [lane.batch(inputs.batch) for lane in self.lanes],
                    tensors=self._tensors,
                    modules=[module for lane in self.lanes for module in lane.modules],
                    stream=self.lanes[0].stream,
                    draws=lambda: random_states(self._device),
                )
        except NotRecordable as reason:
            return str(reason)
        for lane in self.lanes:
            lane.graph = graph
            lane.costs.add_graph(graph, share=1 / len(self.lanes))
        return None

    def _tensors(self) -> dict[str, Tensor]:
        """All that a step changes."""
        if len(self.lanes) == 1:
            return self.lanes[0].tensors()
        return {f"{i} {name}": tensor for i, lane in enumerate(self.lanes) for name, tensor in lane.tensors().items()}

    def launch_step(self, images: int) -> None:
        """One step of each lane on a full batch of so many images, by the graph; `join_step` waits for it."""
        graph = self.graph
        assert graph is not None
        for lane, batch in zip(self.lanes, graph.batches, strict=True):
            lane.fill(batch)
        graph.graph.launch()
        for lane in self.lanes:
            lane.end_step(images)
            lane.costs.watch.add(graph.seconds / len(self.lanes))

    def join_step(self) -> None:
        """Let the device's current stream go on when the launched step is done."""
        assert self.graph is not None
        self.graph.graph.join()
