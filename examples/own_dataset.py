"""A data set of your own: waves of four directions in noise, made on the spot."""

import math

import torch
from pydantic import NonNegativeFloat

from kdbench import Dataset, Source, SourceParams, Split, register_dataset

DIRECTIONS = ("across", "rising", "upright", "falling")


@register_dataset("own_waves")
class Waves(Source):
    """Waves in noise: 512 training and 256 test images of 16x16x1, 4 directions; nothing to download."""

    class Params(SourceParams):
        noise: NonNegativeFloat = 1.0

    params: Params

    def check(self) -> None:
        """Nothing can be missing. A source that reads files raises kdbench.KdbenchError here, with the path and the fix."""

    def load(self) -> Dataset:
        train, test = self.waves(512, seed=0), self.waves(256, seed=1)
        return Dataset(train, test, classes=DIRECTIONS, mean=(0.5,), std=(0.25,))

    def waves(self, count: int, *, seed: int) -> Split:
        """`count` images, the same for every trial: a trial's seed has no part in them."""
        random = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % len(DIRECTIONS)
        angle = (labels * math.pi / len(DIRECTIONS)).view(-1, 1, 1)
        y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
        phase = 2 * math.pi * torch.rand(count, 1, 1, generator=random)
        waves = torch.sin(x * angle.sin() + y * angle.cos() + phase)
        waves += self.params.noise * torch.randn(count, 16, 16, generator=random)
        pixels = (128 + 50 * waves).clamp(0, 255).to(torch.uint8)  # (N, H, W)
        return Split(pixels[..., None].contiguous(), labels)
