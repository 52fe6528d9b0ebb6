"""What a network hands to a method: its named hook points, and their shapes."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """The hook points of a network for one batch of B images.

    A network that lacks a hook point gives an empty one. `Shapes.lacking` names those.

    Attributes:
        logits: (B, K), before the softmax.
        stem: (B, C, H, W), after the stem's activation. (B, 0, 0, 0) if the network has no maps.
        features: one (B, C_i, H_i, W_i) for each group, shallow to deep, after the activation that follows the group. Empty if the
            network has no maps.
        preactivations: the same before that activation. Empty if the network does not have them.
        pooled: (B, D), what the classifier reads. (B, 0) if the logits are no linear function of one vector.
    """

    logits: Tensor
    stem: Tensor
    features: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    pooled: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All hook points that the network has, as one tuple."""
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
        features: one (C_i, H_i, W_i) for each group, shallow to deep.
        preactivations: the same.
        pooled: (D,).
    """

    logits: tuple[int, ...]
    stem: tuple[int, ...]
    features: tuple[tuple[int, ...], ...]
    preactivations: tuple[tuple[int, ...], ...]
    pooled: tuple[int, ...]

    def lacking(self) -> tuple[str, ...]:
        """The names of the hook points that the network lacks."""
        return tuple(field.name for field in fields(self) if not (shape := getattr(self, field.name)) or 0 in shape)
