"""What a network hands to a method: its named hook points, and their shapes."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """The hook points of one forward pass over B images.

    A network that has no such hook point gives one without numbers: `Shapes.lacking` names those.

    Attributes:
        logits: (B, K), before the softmax.
        stem: (B, C, H, W), after the stem's activation; (B, 0, 0, 0) where there are no maps.
        features: one (B, C_i, H_i, W_i) per group, shallow to deep, after the activation that follows the group; empty where there
            are no maps.
        preactivations: as `features`, before that activation; empty where a network has none to give.
        pooled: (B, D), what the classifier reads; (B, 0) where no linear map of one vector gives the logits.
    """

    logits: Tensor
    stem: Tensor
    features: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    pooled: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All hook points that there are, one after the other."""
        return tuple(t for t in (self.logits, self.stem, *self.features, *self.preactivations, self.pooled) if t.numel())

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
    """Shapes of `Outputs` for one image, without the batch dimension.

    Attributes:
        logits: (K,).
        stem: (C, H, W).
        features: one (C_i, H_i, W_i) per group, shallow to deep.
        preactivations: as `features`.
        pooled: (D,).
    """

    logits: tuple[int, ...]
    stem: tuple[int, ...]
    features: tuple[tuple[int, ...], ...]
    preactivations: tuple[tuple[int, ...], ...]
    pooled: tuple[int, ...]

    def lacking(self) -> tuple[str, ...]:
        """The names of the hook points that the network does not have."""
        return tuple(field.name for field in fields(self) if not (shape := getattr(self, field.name)) or 0 in shape)
