"""Mixup and CutMix of the images of a batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdbench.spec.recipe import Recipe
from kdbench.streams import seeded


class Mixed(NamedTuple):
    """A batch of mixed images.

    Attributes:
        images: (B, C, H, W).
        labels: (B,), int64, of the image with the larger share.
        indices: (B,), int64, of the image with the larger share.
        soft_labels: (B, K), the shares of the classes.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    soft_labels: Tensor


def mix(images: Tensor, labels: Tensor, indices: Tensor, *, recipe: Recipe, num_classes: int, seed: int) -> Mixed:
    """Mix each image with its neighbour in the batch, as torchvision's `MixUp` and `CutMix` do, all in one proportion.

    Args:
        images: (B, C, H, W), normalised.
        labels: (B,).
        indices: (B,), of the samples.
        recipe: says which of the two, or how one of them is chosen.
        num_classes: K.
        seed: of the proportion, the choice and the place.
    """
    from torchvision.transforms import v2  # slow to import

    batch = len(images)
    kinds: list[Any] = [
        kind(alpha=alpha, num_classes=batch) for kind, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix)) if alpha
    ]
    chosen = v2.RandomChoice(kinds, p=[1 - recipe.cutmix_probability, recipe.cutmix_probability] if len(kinds) > 1 else None)
    positions = torch.arange(batch, device=images.device)
    with seeded(seed):
        mixed, shares = chosen(images, positions)  # shares (B, B): of which images each is made
    larger = shares.argmax(1)
    soft_labels = shares.new_zeros(batch, num_classes).index_add_(1, labels, shares)
    return Mixed(mixed.contiguous(memory_format=torch.channels_last), labels[larger], indices[larger], soft_labels)
