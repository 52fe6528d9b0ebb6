"""A batch as a graph reads it: what the host makes for a step lies in tensors that stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from kdbench.method.batch import Batch, on_device

Make = Callable[[torch.Generator, int], Tensor]
"""Makes a tensor on the host, of random numbers or for an epoch."""


class RecordedBatch(Batch):
    """A batch whose numbers by epoch and whose random draws can be filled in anew; a copy shares them.

    It notices who asks for the epoch itself, which a graph would keep for good.
    """

    _host: _Host

    def __init__(self, batch: Batch) -> None:
        super().__init__(**{field.name: getattr(batch, field.name) for field in fields(batch)})
        self.__dict__["_host"] = _Host(batch.generator, batch.epoch)

    def __getattribute__(self, name: str) -> Any:
        if name == "epoch":
            self._host.asked_for_epoch = True
        return super().__getattribute__(name)

    def by_epoch(self, value: Callable[[int], float]) -> Tensor:
        """As of a `Batch`; always the same tensor."""
        return self._host.place(lambda generator, epoch: self.images.new_full((), value(epoch)), self.images.device)

    def random(self, make: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
        """As of a `Batch`; always the same tensor."""
        return self._host.place(lambda generator, epoch: make(*args, **options, generator=generator), self.images.device)

    @property
    def asked_for_epoch(self) -> bool:
        """Whether a step has read `epoch`."""
        return self._host.asked_for_epoch

    def rewind(self) -> None:
        """Begin a step, which asks for the same as the one before, in the same order."""
        self._host.next = 0

    def fill(self, generator: torch.Generator, epoch: int) -> None:
        """Make everything anew for the coming step, as an ordinary step would, and begin it."""
        for tensor, make in self._host.places:
            tensor.copy_(on_device(make(generator, epoch), tensor.device), non_blocking=True)
        self.rewind()


class _Host:
    """What the host makes for a step: each tensor, and how it is made, in the order in which a step asks for them."""

    def __init__(self, generator: torch.Generator, epoch: int) -> None:
        self.places: list[tuple[Tensor, Make]] = []
        self.next = 0
        self.asked_for_epoch = False
        self._generator, self._epoch = generator, epoch

    def place(self, make: Make, device: torch.device) -> Tensor:
        """The next tensor; one that nobody has asked for before is made."""
        if self.next == len(self.places):
            self.places.append((on_device(make(self._generator, self._epoch), device), make))
        self.next += 1
        return self.places[self.next - 1][0]
