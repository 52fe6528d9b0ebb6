"""What becomes of an image's colours and places after crop and flip: RandAugment, and a rectangle that is erased.

What is drawn depends on the epoch's seed and on the image's index, so that any order, any number of processes and any device make
the same choices.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdbench.data.fixmatch import FixMatch
from kdbench.errors import DataError, KdbenchError
from kdbench.spec.augmentation import Augmentation, RandAugment, StrongAugmentation
from kdbench.streams import derive, reseed, streams_kept

Operations = Callable[[Any], Any]
"""From one image to another, as Pillow has them; it draws from the global streams."""

SMALLEST_ERASED, LARGEST_ERASED, NARROWEST_ERASED = 0.02, 1 / 3, 0.3
"""Shares of the image's area that an erased rectangle has, and its smallest width divided by its height, as in timm."""


def operations(settings: RandAugment, *, mean: Sequence[float], interpolation: str = "random") -> Operations:
    """The RandAugment of some settings.

    Args:
        settings: of it.
        mean: (C,), of the images' channels, from 0 to 1; timm fills with it what comes into the image from outside.
        interpolation: how timm interpolates: `bilinear`, `bicubic`, or one of the two at random.

    Raises:
        DataError: images of neither 1 nor 3 channels.
        KdbenchError: timm is needed, and is not installed.
    """
    if len(mean) not in (1, 3):
        raise DataError(f"rand_augment works on images of 1 or 3 channels, and these have {len(mean)}; write `rand_augment: null`.")
    if settings.name == "fixmatch":
        return FixMatch(settings.layers)
    if settings.name == "torchvision":
        from torchvision.transforms import v2  # slow to import, and listing data sets must be instant

        transform: Operations = v2.RandAugment(settings.layers, settings.magnitude)
        return transform
    if lacking := lacking_library(settings):
        raise KdbenchError(lacking)
    timm = importlib.import_module("timm.data.auto_augment")
    fill = tuple(min(255, round(255 * value)) for value in mean)
    hparams: dict[str, Any] = {"img_mean": fill if len(fill) > 1 else fill[0], "magnitude_std": settings.magnitude_std}
    if interpolation != "random":
        hparams["interpolation"] = importlib.import_module("timm.data.transforms").str_to_pil_interp(interpolation)
    text = f"rand-m{settings.magnitude}-n{settings.layers}-inc{int(settings.increasing)}"
    chosen: Operations = timm.rand_augment_transform(text, hparams)
    for operation in vars(chosen)["ops"]:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return chosen


def _posterize(image: Any, bits: int, **_: object) -> Any:
    """As timm's. At its largest magnitude no bit is left, which newer versions of Pillow refuse."""
    from PIL import Image, ImageOps

    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)


def lacking_library(settings: RandAugment | None) -> str | None:
    """Why these settings cannot be used here, and the fix; None where they can."""
    if settings and settings.name == "timm" and not find_spec("timm"):
        return "`rand_augment: {name: timm}` needs timm. Install it: pip install 'kdbench[timm]'."
    return None


@dataclass(frozen=True)
class Distortion:
    """What is done to all images of an epoch.

    Attributes:
        operations: of RandAugment; None for none.
        random_erasing: the probability of a rectangle.
        seed: of the epoch.
    """

    operations: Operations | None
    random_erasing: float
    seed: int

    def operate(self, pixels: Tensor, *, indices: Sequence[int]) -> Tensor:
        """The pixels (B, H, W, C), uint8, of the samples with these indices, after the operations, which run on the CPU."""
        if not self.operations:
            return pixels
        from PIL import Image

        done = pixels.cpu().numpy().copy()
        with streams_kept():
            for into, index in zip(done, indices, strict=True):
                reseed(derive(self.seed, "operations", index))
                image = Image.fromarray(into[:, :, 0] if into.shape[-1] == 1 else into)
                into[:] = np.asarray(self.operations(image)).reshape(into.shape)
        return torch.from_numpy(done).to(pixels.device)

    def erase(self, images: Tensor, *, indices: Sequence[int]) -> None:
        """Fill, in place, a rectangle of some of the images (B, C, H, W), normalised, with noise."""
        if not self.random_erasing:
            return
        from torchvision.transforms import v2

        scale, ratio = (SMALLEST_ERASED, LARGEST_ERASED), (NARROWEST_ERASED, 1 / NARROWEST_ERASED)
        erasing = v2.RandomErasing(self.random_erasing, scale=scale, ratio=ratio, value="random", inplace=True)
        with streams_kept():
            for image, index in zip(images, indices, strict=True):
                reseed(derive(self.seed, "erasing", index))
                erasing(image)


def distortion(
    settings: Augmentation | StrongAugmentation, *, mean: Sequence[float], seed: int, interpolation: str = "random"
) -> Distortion:
    """That of some settings; `mean` and `interpolation` as for `operations`, and `seed` of the epoch."""
    made = operations(settings.rand_augment, mean=mean, interpolation=interpolation) if settings.rand_augment else None
    return Distortion(made, settings.random_erasing, seed)
