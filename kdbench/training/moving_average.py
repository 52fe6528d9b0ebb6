"""A moving average of weights: what is tested, kept and deployed where the recipe asks for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """The average of the parameters and buffers of some modules, which moves towards them with every step.

    After a step it is decay * average + (1 - decay) * value, by torch's implementation; what is no floating-point number is copied.
    It starts at the values that it finds.

    Attributes:
        tensors: the average of each.
    """

    def __init__(self, modules: Iterable[nn.Module], *, decay: float) -> None:
        state = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
        self._live = list({id(tensor): tensor for tensor in state}.values())
        self._live.sort(key=lambda tensor: not tensor.is_floating_point())
        self._numbers = sum(tensor.is_floating_point() for tensor in self._live)
        self._move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's has no types
        self.tensors = [tensor.detach().clone() for tensor in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Move after a step."""
        numbers = self._numbers
        self._move(self.tensors[:numbers], self._live[:numbers], None)
        for average, live in zip(self.tensors[numbers:], self._live[numbers:], strict=True):
            average.copy_(live)

    @torch.no_grad()
    def adopt(self) -> None:
        """Give the modules the average for good."""
        self._put(self.tensors)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The modules have the average inside the block, and their own values after it."""
        with torch.no_grad():
            own = [tensor.clone() for tensor in self._live]
            self._put(self.tensors)
        try:
            yield
        finally:
            with torch.no_grad():
                self._put(own)

    @torch.no_grad()
    def restore(self, tensors: Sequence[Tensor]) -> None:
        """Take over the average of a checkpoint."""
        for own, given in zip(self.tensors, tensors, strict=True):
            own.copy_(given)

    def _put(self, values: Sequence[Tensor]) -> None:
        for live, value in zip(self._live, values, strict=True):
            live.copy_(value)
