"""Small images live on the device as uint8; a batch is gathered from them there, bitwise as torchvision would make it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kdbench.data.dataset import Split
from kdbench.data.distortion import Distortion, distortion
from kdbench.data.loader import LoadBatch, LoadedBatch, Loader, LoadPlainBatch, batch_bounds, drawn_seed
from kdbench.spec.recipe import Augmentation

UNAUGMENTED = Augmentation(pad=0, flip=False)

EVALUATION_BATCH = 500

_NUMPY_MODES: dict[str, Literal["constant", "reflect"]] = {"zeros": "constant", "reflect": "reflect"}


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """One epoch's random choices. Position i of each tensor belongs to the i-th sample that the epoch visits.

    Attributes:
        order: (N,), int64, the samples' indices; each once.
        top: (N,), int64, the first row of the crop in the padded image.
        left: (N,), int64, the first column of the crop in the padded image.
        flip: (N,), bool, whether the crop is mirrored left-right.
    """

    order: Tensor
    top: Tensor
    left: Tensor
    flip: Tensor

    def to(self, device: torch.device | str) -> EpochPlan:
        """The plan on `device`; once per epoch, so that no step waits for the host."""
        return EpochPlan(self.order.to(device), self.top.to(device), self.left.to(device), self.flip.to(device))


def epoch_plan(n: int, augmentation: Augmentation, generator: torch.Generator) -> EpochPlan:
    """Draw the choices for `n` samples on the CPU, whatever device trains, so that all devices see the same batches."""
    # Everything is drawn, used or not: switching one augmentation off leaves the order and the others as they were.
    order = torch.randperm(n, generator=generator)
    top, left = torch.randint(2 * augmentation.pad + 1, (2, n), generator=generator)
    flip = torch.rand(n, generator=generator) < 0.5
    return EpochPlan(order, top, left, flip & augmentation.flip)


class ResidentLoader(Loader):
    """A split that lives on `device`, padded beforehand; cropping, flipping and normalising are two gathers.

    Bitwise equal to torchvision's pad, crop, hflip, to_tensor and normalize on PIL images.
    """

    def __init__(
        self,
        split: Split,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        augmentation: Augmentation = UNAUGMENTED,
    ) -> None:
        assert not augmentation.resized_crop, "a suite that asks for it is refused when it is read"
        self.device = torch.device(device)
        self._augmentation = augmentation
        pad = augmentation.pad
        _, self._height, self._width, channels = split.images.shape
        padded = np.pad(
            split.images.numpy(), ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=_NUMPY_MODES[augmentation.padding_mode]
        )
        self._images = torch.from_numpy(padded).to(device)  # (N, H + 2 pad, W + 2 pad, C)
        self._inner = (slice(pad, pad + self._height), slice(pad, pad + self._width))
        self._rows = torch.arange(self._height, device=device)
        self._columns = torch.arange(self._width, device=device)
        self._mirrored = self._columns.flip(0)
        # Computed on the CPU as torchvision computes it: CUDA divides by a scalar with another rounding.
        levels = torch.arange(256, dtype=torch.float32).div(255)[:, None].expand(256, channels)
        self._normalised_levels = levels.sub(torch.tensor(mean)).div(torch.tensor(std)).to(device)  # (256, C)
        self.labels = split.labels.to(device)
        self._distort = partial(distortion, mean=mean)

    def epoch(self, generator: torch.Generator, *, batch_size: int, strong: torch.Generator | None = None) -> Iterator[LoadBatch]:
        plan = epoch_plan(len(self), self._augmentation, generator)
        order = plan.order.tolist()
        passes = [(plan, self._distort(self._augmentation, seed=drawn_seed(generator)))]
        if strong:
            strong_plan = replace(epoch_plan(len(self), self._augmentation, strong), order=plan.order)
            passes.append((strong_plan, self._distort(self._augmentation.strong, seed=drawn_seed(strong))))
        passes = [(plan.to(self.device), distort) for plan, distort in passes]
        for start, stop in batch_bounds(len(self), batch_size):
            yield partial(self._loaded, passes, order[start:stop], start, stop)

    def _loaded(self, passes: Sequence[tuple[EpochPlan, Distortion]], order: Sequence[int], start: int, stop: int) -> LoadedBatch:
        found = []
        for plan, distort in passes:
            images, labels, indices = self.batch(plan, start, stop, operate=partial(distort.operate, indices=order))
            distort.erase(images, indices=order)
            found.append(images)
        return LoadedBatch(found[0], labels, indices, *found[1:])

    def plain_batches(self) -> Iterator[LoadPlainBatch]:
        for start in range(0, len(self), EVALUATION_BATCH):
            yield partial(self.plain, start, min(start + EVALUATION_BATCH, len(self)))

    def first(self, count: int) -> Tensor:
        return self.plain(0, min(count, len(self)))[0]

    def batch(
        self, plan: EpochPlan, start: int, stop: int, *, operate: Callable[[Tensor], Tensor] = lambda pixels: pixels
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positions [start, stop) of an epoch, cropped and flipped; `plan` must be on the same device.

        Args:
            plan: the choices of the epoch.
            start: the first position.
            stop: the position behind the last.
            operate: what is then done to the pixels (B, H, W, C), uint8.

        Returns:
            Images (B, C, H, W), float32, channels last, normalised; labels (B,); the samples' indices (B,).
        """
        _, padded_height, padded_width, channels = self._images.shape
        indices = plan.order[start:stop]
        rows = indices[:, None] * padded_height + plan.top[start:stop, None] + self._rows  # (B, H)
        columns = plan.left[start:stop, None] + torch.where(plan.flip[start:stop, None], self._mirrored, self._columns)  # (B, W)
        places = rows[:, :, None] * padded_width + columns[:, None, :]  # (B, H, W)
        pixels = self._images.view(-1, channels).index_select(0, places.flatten())
        pixels = operate(pixels.view(-1, self._height, self._width, channels)).view(-1, channels)
        return self._normalise(pixels), self.labels.index_select(0, indices), indices

    def plain(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Samples [start, stop) as they are, for evaluation.

        Returns:
            Images (B, C, H, W), float32, channels last, normalised; labels (B,).
        """
        pixels = self._images[start:stop, *self._inner]
        return self._normalise(pixels.reshape(-1, pixels.shape[-1])), self.labels[start:stop]

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (B * H * W, C), uint8, as images (B, C, H, W), float32, in channels-last layout."""
        images = self._normalised_levels.gather(0, pixels.long())
        return images.view(-1, self._height, self._width, pixels.shape[-1]).permute(0, 3, 1, 2)
