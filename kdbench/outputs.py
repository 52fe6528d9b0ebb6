"""What a network hands to a method: its named hook points, and their shapes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """The hook points of one forward pass over B images.

    Attributes:
        logits: (B, K), before the softmax.
        stem: (B, C, H, W), after the stem's activation.
        features: one (B, C_i, H_i, W_i) per group, shallow to deep, after the activation that follows the group.
        preactivations: as `features`, before that activation; empty where a network has none to give.
        pooled: (B, D), what the classifier reads.
    """

    logits: Tensor
    stem: Tensor
    features: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    pooled: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All hook points, one after the other."""
        return (self.logits, self.stem, *self.features, *self.preactivations, self.pooled)

    def shapes(self) -> Shapes:
        """The shapes of the hook points, without the batch dimension."""
        return Shapes(
            logits=tuple(self.logits.shape[1:]),
            stem=tuple(self.stem.shape[1:]),
            features=tuple(tuple(f.shape[1:]) for f in self.features),
            preactivations=tuple(tuple(f.shape[1:]) for f in self.preactivations),
            pooled=tuple(self.pooled.shape[1:]),
        )


@dataclass(frozen=True)
class Shapes:
    """Shapes of `Outputs` for one image: `logits` (K,), maps (C, H, W), `pooled` (D,)."""

    logits: tuple[int, ...]
    stem: tuple[int, ...]
    features: tuple[tuple[int, ...], ...]
    preactivations: tuple[tuple[int, ...], ...]
    pooled: tuple[int, ...]
