"""Outputs to feed to losses: random ones of given shapes, and others made from them."""

from collections.abc import Callable
from dataclasses import fields

from torch import Tensor

from kdbench.method.outputs import Outputs, Shapes


def synthetic_outputs(shapes: Shapes, make: Callable[..., Tensor], *, size: int = 8) -> Outputs:
    """Outputs for `size` images, of tensors that `make(*shape)` gives; activations and pooled vectors are not negative."""
    return Outputs(
        logits=make(size, *shapes.logits),
        stem=make(size, *shapes.stem).relu(),
        features=tuple(make(size, *shape).relu() for shape in shapes.features),
        preactivations=tuple(make(size, *shape) for shape in shapes.preactivations),
        pooled=make(size, *shapes.pooled).relu(),
    )


def map_tensors(outputs: Outputs, function: Callable[[Tensor], Tensor]) -> Outputs:
    """Outputs with `function` of each tensor in its place."""

    def image(value: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        return function(value) if isinstance(value, Tensor) else tuple(map(function, value))

    return Outputs(*(image(getattr(outputs, field.name)) for field in fields(outputs)))  # type: ignore[arg-type]
