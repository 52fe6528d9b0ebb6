"""Logits of the maps of a network without stages, such as a vision transformer: merged patches and transformer blocks."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method.losses import pool_to

FINAL_SIDE, ATTENTION_HEADS = 7, 4


class PatchMerging(nn.Module):
    """Maps (B, C, H, W) to (B, C, H / 2, W / 2): each 2x2 patches are normalised and mapped to one. Odd sides are pooled before."""

    def __init__(self, channels: int, *, activation: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, channels, bias=False)
        self.activation = nn.GELU() if activation else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """The merged maps."""
        height, width = maps.shape[-2:]
        patches = F.pixel_unshuffle(pool_to(maps, (height // 2 * 2, width // 2 * 2)), 2)
        merged: Tensor = self.activation(self.reduction(self.norm(patches.movedim(1, -1))))
        return merged.movedim(-1, 1)


class TokenHead(nn.Module):
    """Logits (B, K) of maps (B, C, H, W): patches merged down to about 7x7, transformer blocks, their mean, a linear layer.

    Args:
        shape: (C, H, W).
        blocks: how many.
        classes: K.

    Source: OFA-KD's heads of students that are no CNNs, Hao et al., 2023, arXiv:2310.19444.
    """

    def __init__(self, shape: tuple[int, ...], *, blocks: int, classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        merges = max(int(math.log2(min(height, width) / FINAL_SIDE)), 0)
        self.merging = nn.Sequential(*(PatchMerging(channels, activation=i in (0, *range(merges - 1))) for i in range(merges)))
        heads = ATTENTION_HEADS if channels % ATTENTION_HEADS == 0 else 1
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                channels, heads, 4 * channels, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(blocks)
        )
        self.classifier = nn.Linear(channels, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """The logits."""
        tokens = self.merging(maps).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.classifier(tokens.mean(1))
        return logits
