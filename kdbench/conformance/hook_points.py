"""Outputs to feed to losses: random ones of given shapes, and others made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from kdbench.method.outputs import Outputs, Shapes


@dataclass(frozen=True)
class Classifier:
    """What `Outputs.classify` applies: a weight (K, D) and a bias (K,), which are no network's."""

    weight: Tensor
    bias: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """Logits (B, K, ...) of vectors (B, D) or maps (B, D, H, W)."""
        bias = self.bias.view(-1, *[1] * (values.ndim - 2))
        return torch.einsum("kd,bd...->bk...", self.weight, values) + bias


def synthetic_outputs(
    shapes: Shapes, make: Callable[..., Tensor], *, size: int = 8, views: Mapping[str, int] = {}, others: int = 0
) -> Outputs:
    """Outputs for `size` images, of tensors that `make(*shape)` gives; activations and pooled vectors are not negative.

    `views` says how many images each view has, `others` how many further teachers there are, which are of the same shapes.
    """
    further = (synthetic_outputs(shapes, make, size=size, views=views) for _ in range(others))
    return Outputs(
        logits=make(size, *shapes.logits),
        stem=make(size, *shapes.stem).relu(),
        features=tuple(make(size, *shape).relu() for shape in shapes.features),
        preactivations=tuple(make(size, *shape) for shape in shapes.preactivations),
        pooled=make(size, *shapes.pooled).relu(),
        raw=tuple(make(size, *shape) for shape in shapes.raw),
        tokens=tuple(make(size, *shape) for shape in shapes.tokens),
        heads=tuple(make(size, *shape) for shape in shapes.heads),
        pooled_maps=make(size, *(shapes.pooled_maps or (0, 0, 0))).relu(),
        views={name: synthetic_outputs(shapes, make, size=count) for name, count in views.items()},
        others=tuple(further),
        classifier=Classifier(make(*shapes.logits, *shapes.pooled), make(*shapes.logits)),
    )


def map_tensors(outputs: Outputs, function: Callable[[Tensor], Tensor], *, classifiers: bool = True) -> Outputs:
    """Outputs with `function` of each tensor in its place, those of views, further teachers and `Classifier`s included."""

    def image(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if isinstance(value, Outputs):
            return map_tensors(value, function, classifiers=classifiers)
        if isinstance(value, Classifier):
            return Classifier(function(value.weight), function(value.bias)) if classifiers else value
        if isinstance(value, dict):
            return {name: image(item) for name, item in value.items()}
        return tuple(map(image, value)) if isinstance(value, tuple) else value

    return replace(outputs, **{field.name: image(getattr(outputs, field.name)) for field in fields(outputs)})


def leaves(outputs: Outputs) -> list[Tensor]:
    """All that a gradient may reach in outputs: their tensors, and the weights of their classifiers."""

    def classifiers(point: Outputs) -> Iterator[Classifier]:
        if isinstance(point.classifier, Classifier):
            yield point.classifier
        for further in (*point.views.values(), *point.others):
            yield from classifiers(further)

    return [*outputs.tensors(), *(value for found in classifiers(outputs) for value in (found.weight, found.bias))]


def spoilt(outputs: Outputs, hook: str) -> Outputs:
    """Outputs in which one hook point is NaN, those of views and further teachers, too.

    What `classify` gives is so with `pooled`: a network that has no such vector has no classifier.
    """
    nothing = map_tensors(outputs, lambda value: value * torch.nan)
    changed = {hook: getattr(nothing, hook), **({"classifier": nothing.classifier} if hook == "pooled" else {})}
    views = {name: spoilt(view, hook) for name, view in outputs.views.items()}
    return replace(outputs, **changed, views=views, others=tuple(spoilt(other, hook) for other in outputs.others))


def permuted(outputs: Outputs, order: Tensor) -> Outputs:
    """Outputs for the images of a batch in another order (B,)."""
    return map_tensors(outputs, lambda value: value[places(order, len(value))], classifiers=False)


def places(order: Tensor, count: int) -> Tensor:
    """Where the `count` images of a batch or a view are when the batch is in an `order` (B,): those of one image stay together."""
    of_each = count // len(order)
    return (order[:, None] * of_each + torch.arange(of_each)).flatten()
