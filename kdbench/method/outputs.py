"""What a network hands to a method: its named hook points, and their shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from kdbench.errors import KdbenchError


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
        raw: what each group gives before the norm and the activation that follow it: one (B, C_i, H_i, W_i) for each group. It
            differs from `preactivations` where a norm follows the group, as in wide residual networks. Empty if not known.
        tokens: of a transformer, the class token and, where it has one, the distillation token after the last norm: (B, D) each.
            Empty for all others.
        heads: the logits of each head, (B, K) each, where `logits` is their mean. Empty where there is one head.
        pooled_maps: (B, D, H, W), the maps of which `pooled` is the mean over places: the last of `features`, or what a further
            convolution makes of them. Empty if the classifier reads anything else, such as a class token or a normed mean.
        views: the outputs for each view of the images that the method asks for, by its name. `Method.views` names them.
        others: of a teacher, the outputs of the pair's further teachers, in the suite's order.
        classifier: what `classify` applies; None where nobody has given it.
    """

    logits: Tensor
    stem: Tensor
    features: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    pooled: Tensor
    raw: tuple[Tensor, ...] = ()
    tokens: tuple[Tensor, ...] = ()
    heads: tuple[Tensor, ...] = ()
    pooled_maps: Tensor = field(default_factory=lambda: torch.empty(0))
    views: Mapping[str, Outputs] = field(default_factory=dict)
    others: tuple[Outputs, ...] = ()
    classifier: Callable[[Tensor], Tensor] | None = field(default=None, repr=False, compare=False)

    def classify(self, values: Tensor) -> Tensor:
        """Apply the network's classifier as it is now: with gradient for a student's weights, and without for a teacher's.

        Args:
            values: vectors (B, D) like `pooled`, or maps (B, D, H, W) like `pooled_maps`, of which each place is classified.

        Returns:
            (B, K), or (B, K, H, W).

        Raises:
            KdbenchError: the network has no classifier that is a linear function of one vector.
        """
        if self.classifier is None:
            raise KdbenchError("these outputs come with no classifier. Take them from a Network, such as build_model gives.")
        return self.classifier(values)

    def tensors(self) -> tuple[Tensor, ...]:
        """All hook points that the network has, those of views and of further teachers included, as one tuple."""
        groups = (*self.features, *self.preactivations, *self.raw)
        own = (self.logits, self.stem, *groups, self.pooled, *self.tokens, *self.heads, self.pooled_maps)
        further = (tensor for outputs in (*self.views.values(), *self.others) for tensor in outputs.tensors())
        return tuple(tensor for tensor in (*own, *further) if tensor.numel())

    def shapes(self) -> Shapes:
        """The shapes of the hook points, without the batch dimension."""
        return Shapes(
            logits=tuple(self.logits.shape[1:]),
            stem=tuple(self.stem.shape[1:]),
            features=tuple(tuple(f.shape[1:]) for f in self.features),
            preactivations=tuple(tuple(f.shape[1:]) for f in self.preactivations),
            pooled=tuple(self.pooled.shape[1:]),
            raw=tuple(tuple(f.shape[1:]) for f in self.raw),
            tokens=tuple(tuple(t.shape[1:]) for t in self.tokens),
            heads=tuple(tuple(t.shape[1:]) for t in self.heads),
            pooled_maps=tuple(self.pooled_maps.shape[1:]),
        )


def mapped(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """The same outputs with what `change` makes of each tensor, those of views and of further teachers included."""
    return replace(outputs, **{field.name: _mapped(getattr(outputs, field.name), change) for field in fields(outputs)})


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Outputs):
        return mapped(value, change)
    if isinstance(value, tuple):
        return tuple(_mapped(item, change) for item in value)
    return {name: _mapped(item, change) for name, item in value.items()} if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Shapes:
    """Shapes of `Outputs` for one image, without the batch dimension.

    Attributes:
        logits: (K,).
        stem: (C, H, W).
        features: one (C_i, H_i, W_i) for each group, shallow to deep.
        preactivations: the same.
        pooled: (D,).
        raw: one (C_i, H_i, W_i) for each group.
        tokens: one (D,) for each token.
        heads: one (K,) for each head.
        pooled_maps: (D, H, W).
    """

    logits: tuple[int, ...]
    stem: tuple[int, ...]
    features: tuple[tuple[int, ...], ...]
    preactivations: tuple[tuple[int, ...], ...]
    pooled: tuple[int, ...]
    raw: tuple[tuple[int, ...], ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    heads: tuple[tuple[int, ...], ...] = ()
    pooled_maps: tuple[int, ...] = ()

    def lacking(self) -> tuple[str, ...]:
        """The names of the hook points that the network lacks."""
        return tuple(field.name for field in fields(self) if not (shape := getattr(self, field.name)) or 0 in shape)
