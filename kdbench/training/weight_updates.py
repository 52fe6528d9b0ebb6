"""What a segment of a lane trains: its optimiser, the cut of the gradient, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method.composition import Composition
from kdbench.training.moving_average import MovingAverage
from kdbench.training.optimiser import build_optimiser, restore_optimiser
from kdbench.training.segments import Segment


class WeightUpdates:
    """Thaws and moves what a segment trains; all else of the student and of the method is frozen.

    Args:
        segment: what to train, and how.
        student: None for a stage of the teacher alone.
        method: the composition.
        fixed: the `id` of each parameter that is never trained.
        device: where the networks are.

    Attributes:
        optimiser: of what is trained.
    """

    def __init__(
        self, segment: Segment, student: nn.Module | None, method: Composition, *, fixed: Iterable[int], device: torch.device
    ) -> None:
        self._student = student
        self._clipping = segment.gradient_clipping
        for network in (student, method):
            if network is not None:
                network.requires_grad_(False)
        self.optimiser = build_optimiser(segment.optimiser, segment.trained, fixed=fixed, device=device)
        averaged = (module for module in (student, *method.predicting.values()) if module)
        self._average = MovingAverage(averaged, decay=segment.moving_average) if segment.moving_average else None

    @property
    def learnt(self) -> list[nn.Parameter]:
        """What the student learns."""
        return [parameter for parameter in self._student.parameters() if parameter.requires_grad] if self._student else []

    def step(self) -> None:
        """Move everything by the gradients that it has."""
        if self._clipping:
            trained = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(trained, self._clipping, foreach=True)
        self.optimiser.step()
        if self._average:
            self._average.update()

    def tensors(self) -> dict[str, Tensor]:
        """What is remembered from step to step: momentum, of which there is none before the first step, and the average."""
        momentum = [value for state in self.optimiser.state.values() for value in state.values() if isinstance(value, Tensor)]
        average = self._average.tensors if self._average else ()
        return {f"momentum {i}": value for i, value in enumerate(momentum)} | {f"average {i}": v for i, v in enumerate(average)}

    @property
    def held_bytes(self) -> int:
        """The memory of what is remembered."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def as_tested(self) -> AbstractContextManager[None]:
        """Inside the block the networks are as they are tested: with the moving average of their weights, where there is one."""
        return self._average.in_place() if self._average else nullcontext()

    def finish(self) -> None:
        """End the segment: the networks have the average for good."""
        if self._average:
            self._average.adopt()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"optimiser": self.optimiser.state_dict(), "average": self._average.tensors if self._average else []}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken."""
        restore_optimiser(self.optimiser, state["optimiser"])
        if self._average:
            self._average.restore(state["average"])
