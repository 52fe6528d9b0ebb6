"""Outputs to feed to losses: random ones of given shapes, and others made from them."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from kdbench.method.interface import TeacherParts
from kdbench.method.outputs import Outputs, Shapes


def synthetic_outputs(shapes: Shapes, make: Callable[..., Tensor], *, size: int = 8, views: Mapping[str, int] = {}) -> Outputs:
    """Outputs for `size` images, of tensors that `make(*shape)` gives; activations and pooled vectors are not negative.

    `views` says how many images each view has.
    """
    weight = make(*shapes.logits, *shapes.pooled)
    return Outputs(
        logits=make(size, *shapes.logits),
        stem=make(size, *shapes.stem).relu(),
        features=tuple(make(size, *shape).relu() for shape in shapes.features),
        preactivations=tuple(make(size, *shape) for shape in shapes.preactivations),
        pooled=make(size, *shapes.pooled).relu(),
        raw=tuple(make(size, *shape) for shape in shapes.raw),
        tokens=tuple(make(size, *shape) for shape in shapes.tokens),
        heads=tuple(make(size, *shape) for shape in shapes.heads),
        views={name: synthetic_outputs(shapes, make, size=count) for name, count in views.items()},
        classifier=lambda values: torch.einsum("kd,bd...->bk...", weight, values),
    )


def with_fixed_classifiers(outputs: Outputs, parts: TeacherParts) -> Outputs:
    """Outputs, and those of their views, whose `classify` applies copies of a network's classifier, in any precision."""
    weight, bias = parts.classifier_weight, parts.classifier_bias

    def classify(values: Tensor) -> Tensor:
        return torch.einsum("kd,bd...->bk...", weight.to(values), values) + bias.to(values).view(-1, *[1] * (values.ndim - 2))

    views = {name: with_fixed_classifiers(view, parts) for name, view in outputs.views.items()}
    return replace(outputs, views=views, classifier=classify if len(weight) else outputs.classifier)


def map_tensors(outputs: Outputs, function: Callable[[Tensor], Tensor]) -> Outputs:
    """Outputs with `function` of each tensor in its place."""

    def image(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if isinstance(value, Outputs):
            return map_tensors(value, function)
        if isinstance(value, dict):
            return {name: image(item) for name, item in value.items()}
        return tuple(map(image, value)) if isinstance(value, tuple) else value

    return replace(outputs, **{field.name: image(getattr(outputs, field.name)) for field in fields(outputs)})
