"""A plugin: images of noise in the size of CIFAR's, and a ViT for them. What they show does not change how long they take."""

import torch
from pydantic import PositiveInt
from torch import nn

from kdbench import register_dataset, register_model
from kdbench.data import Contents, Dataset, Source, SourceParams, Split

CLASSES, SHAPE, TESTED = tuple("0123456789"), (3, 32, 32), 100
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@register_dataset("noise")
class Noise(Source):
    """Noise of 32x32x3 in 10 classes, and 100 test images of it."""

    class Params(SourceParams):
        images: PositiveInt = 50_000
        """How many there are to train on: a whole number of tens."""

    params: Params

    def check(self) -> None:
        """Noise is always there."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Known without looking."""
        return SHAPE

    def contents(self) -> Contents:
        """Known without looking."""
        return Contents(CLASSES, SHAPE, train=(self.params.images // 10,) * 10, test=(TESTED // 10,) * 10)

    def load(self) -> Dataset:
        """The same noise every time."""
        return Dataset(_noise(self.params.images, seed=0), _noise(TESTED, seed=1), CLASSES, MEAN, STD)


@register_model("vit_of_noise")
def vit_of_noise(*, num_classes: int, in_channels: int) -> nn.Module:
    """timm's ViT-Tiny for images of 32x32, with patches of 4."""
    import timm

    network: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=num_classes, in_chans=in_channels
    )
    return network


def _noise(count: int, *, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count) % 10)
