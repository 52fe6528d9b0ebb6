"""What every way of bringing images to a device hands out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class LoadedBatch(NamedTuple):
    """A batch of a loader.

    Attributes:
        images: (B, C, H, W), float32, channels last, normalised.
        labels: (B,), int64.
        indices: (B,), int64, of the samples.
        strong: the same images by the strong augmentation, like `images`; None where that was not asked for.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    strong: Tensor | None = None


LoadBatch = Callable[[], LoadedBatch]
"""Makes one batch.

Every call makes the same batch anew, so that a lane that spoils its tensors spoils nobody else's.
"""

LoadPlainBatch = Callable[[], tuple[Tensor, Tensor]]
"""As `LoadBatch`, of images that are not augmented: images and labels."""


class Loader(ABC):
    """Labelled images on their way to a device: epochs of augmented batches, or all of them as they are.

    Attributes:
        device: where batches arrive.
        labels: (N,), int64, on the device.
    """

    device: torch.device
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def epoch(self, generator: torch.Generator, *, batch_size: int, strong: torch.Generator | None = None) -> Iterator[LoadBatch]:
        """The batches of one epoch, augmented; their order and every pixel depend on the generator alone.

        With `strong`, the same images come by the strong augmentation, too, whose choices depend on that generator alone.

        Raises:
            DataError: an image cannot be read.
        """

    @abstractmethod
    def plain_batches(self) -> Iterator[LoadPlainBatch]:
        """Every sample once, in order, not augmented, in batches as large as suits the loader.

        Raises:
            DataError: an image cannot be read.
        """

    @abstractmethod
    def first(self, count: int) -> Tensor:
        """The first `count` images, or all where there are fewer, not augmented."""


def drawn_seed(generator: torch.Generator) -> int:
    """A seed that depends on the generator's state, which moves."""
    return int(torch.randint(2**63 - 1, (), generator=generator))


def batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Successive (start, stop) that cover `n` samples.

    A short last batch is kept, but a single leftover sample joins the batch before it: batch norm and losses on relations between
    samples are undefined on one.
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1 and batch_size > 1:
        starts.pop()
    return list(pairwise([*starts, n]))
