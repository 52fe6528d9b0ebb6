"""What a step shows to a method: the images of a batch, and further views of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.errors import KdbenchError
from kdbench.method.draws import uniform_integers

VIEWS = ("strong", "rotations", "mixup")
"""The views of a batch that a method may ask for."""


@dataclass(frozen=True)
class View:
    """Another look at the images of a batch.

    Attributes:
        images: (V, C, H, W), normalised.
        labels: (V,), int64, of these images; or (V, K), the shares of the classes in each of them, where images are mixed.
    """

    images: Tensor
    labels: Tensor


class DeclaredViews(dict[str, Any]):
    """The views that a method asks for, by name, out of all that are there."""

    def __init__(self, given: Mapping[str, Any], declared: tuple[str, ...]) -> None:
        super().__init__({name: given[name] for name in declared if name in given})
        self._declared = declared

    def __missing__(self, name: str) -> Any:
        if name in self._declared:
            raise KdbenchError(f"it is given no view '{name}'. In a loop of your own, fill in `views` of outputs and batch.")
        raise RuntimeError(
            f"it uses the view '{name}', and its class does not ask for it. Write views = {(*self._declared, name)!r}."
        )


@dataclass(frozen=True)
class Batch:
    """The images of one step. Every method that trains side by side sees the same ones.

    Attributes:
        images: (B, C, H, W), augmented and normalised.
        labels: (B,), int64.
        indices: (B,), int64, the positions of the images in the training set.
        epoch: the epoch of the current stage, counted from 0.
        epochs: how many epochs the current stage has.
        generator: random numbers for this method alone, on the CPU. It is derived anew for each epoch.
        soft_labels: (B, K), the shares of the classes in each image, where the recipe mixes images (mixup, CutMix); None where it
            does not. `labels` then has the class of the larger share.
        views: the views that the method asks for, by name. Networks' outputs for them are in `Outputs.views`.
        label_smoothing: the recipe's, which `cross_entropy` adds.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    epoch: int
    epochs: int
    generator: torch.Generator
    soft_labels: Tensor | None = None
    views: Mapping[str, View] = field(default_factory=dict)
    label_smoothing: float = 0.0

    @property
    def targets(self) -> Tensor:
        """What the cross-entropy learns: `soft_labels` (B, K) where the recipe mixes images, and `labels` (B,) otherwise."""
        return self.labels if self.soft_labels is None else self.soft_labels

    def cross_entropy(self, logits: Tensor, *, view: str | None = None) -> Tensor:
        """The cross-entropy of the student, for a method with one of its own: of a peer, of a shallow head, of a view.

        It learns `targets`, mixed where the recipe mixes images, with the recipe's label smoothing.

        Args:
            logits: (B, K); of a view (V, K).
            view: of which view the logits are; None for the images themselves.
        """
        targets = self.targets if view is None else self.views[view].labels
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def by_epoch(self, value: Callable[[int], float]) -> Tensor:
        """`value` of the epoch, as a tensor () of the images' type on their device: a weight that warms up or falls.

        It is what `value(batch.epoch)` is, and keeps a step fast on CUDA: a graph is recorded once for all epochs, where one that
        reads `batch.epoch` is recorded anew in each.

        Args:
            value: from the epoch, counted from 0, to a number, such as `lambda epoch: min(epoch / 20, 1)`.
        """
        return self.images.new_full((), value(self.epoch))

    def random(self, make: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
        """Random numbers of this method alone, on the images' device: `make(*args, **options, generator=batch.generator)`.

        A step that draws like this can be a CUDA graph; one that uses the generator itself cannot.

        Args:
            make: a function of torch's that draws, such as `torch.rand` in `batch.random(torch.rand, 4, 1)`.
            args: its arguments, the same in each step.
            options: the same.
        """
        return on_device(make(*args, **options, generator=self.generator), self.images.device)

    def random_integers(self, *shape: int) -> Tensor:
        """Integers from 0 to 2^31 - 1, int64, of this shape: random numbers like those of `random`, the same ones on every device.

        They are made on the images' device from one number that the host draws. Where a step needs millions, that is faster: the
        device would wait for a host that draws them all.
        """
        return uniform_integers(self.random(torch.randint, 2**62, ()), shape)

    def seen_with(self, views: tuple[str, ...]) -> Batch:
        """The same with those views alone that a method asks for."""
        seen = copy(self)  # `replace` would read the epoch, which a graph that is being recorded notices
        object.__setattr__(seen, "views", DeclaredViews(self.views, views))
        return seen


def on_device(made: Tensor, device: torch.device) -> Tensor:
    """A tensor that the host has made, on a device, without waiting for it."""
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and not made.is_cuda else made
