"""Networks of other libraries, and plain modules, as `Network`s: groups are named modules, all else is found out.

One forward pass without arithmetic, on the meta device, is recorded module by module (`recorded`). From it follow the stem, the
pre-activations, the batch norms before them and the heads (`wiring`). How each output becomes maps (B, C, H, W) follows from
its shape, and is tried out where that does not tell (`places`).
"""

from typing import Any

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method.losses import pool_to
from kdbench.method.outputs import Outputs
from kdbench.models.network import Network
from kdbench.models.recorded import Point, first_tensor
from kdbench.models.wiring import Wiring


class Hooked(Network):
    """A classifier of any library with hooks on its named modules.

    Args:
        body: the classifier, from images to logits (B, K), as `prepare` leaves it.
        wiring: what `wire` found.

    Its state is the body's under the prefix `body.`; nothing of a forward pass stays in it.
    """

    def __init__(self, body: nn.Module, wiring: Wiring) -> None:
        super().__init__()
        self.body = body
        self.wiring = wiring
        for point in wiring.groups:
            if point.order:
                self.register_buffer(_order(point), torch.tensor(point.order), persistent=False)

    @property
    def classifier(self) -> nn.Linear | nn.Conv2d | None:  # type: ignore[override]  # no attribute, or it had two names
        name = self.wiring.heads.classifier
        return self._module(name) if name else None  # type: ignore[return-value]

    @property
    def heads(self) -> tuple[nn.Linear | nn.Conv2d, ...]:
        return tuple(self._module(name) for name in self.wiring.heads.names)  # type: ignore[misc]  # `wire` saw that they are

    def forward(self, images: Tensor) -> Outputs:
        """The hook points for normalised images (B, C, H, W).

        Raises:
            KdbenchError: the body gives something else than logits, as some do in training, or passes a hooked module by; or its
                maps are made of tokens, and the images are not square.
        """
        stem, groups, activations, heads = self.wiring.stem, self.wiring.groups, self.wiring.activations, self.wiring.heads
        averaged = heads.names if heads.averaged else ()
        tokened = heads.names if heads.read_tokens else ()
        pooled_maps = heads.pooled_maps
        making = {*self.wiring.modules, *averaged, *([pooled_maps.module] if pooled_maps else [])}
        reading = {name for name in (heads.classifier, *tokened, *activations) if name}
        made: dict[str, Tensor] = {}
        read: dict[str, Tensor] = {}
        handles = [
            *(self._module(name).register_forward_hook(_keep_made(made, name)) for name in making),
            *(self._module(name).register_forward_pre_hook(_keep_read(read, name)) for name in reading),
        ]
        try:
            logits = self.body(images)
        finally:
            for handle in handles:
                handle.remove()
        mode = "training" if self.training else "evaluation"
        if not isinstance(logits, Tensor):
            raise KdbenchError(
                f"in {mode} it gives a {type(logits).__name__}, and not logits alone. Let it leave out what else it gives."
            )
        if passed := (making - made.keys()) | (reading - read.keys()):
            raise KdbenchError(f"in {mode} it passes {', '.join(sorted(passed))} by. Name hooks that it calls in each pass.")
        if images.shape[2] != images.shape[3] and any(point and point.layout == "tokens" for point in (stem, *groups)):
            raise KdbenchError("its maps are squares of tokens, and these images are not square. Give square images.")
        features = tuple(self._maps(point, made[point.module]) for point in groups)
        before = tuple(
            self._maps(point, read[name]) if name else feature
            for name, point, feature in zip(activations, groups, features, strict=False)  # of none, or of all groups
        )
        return Outputs(
            logits,
            self._maps(stem, made[stem.module]) if stem else logits.new_empty(logits.shape[0], 0, 0, 0),
            features,
            before,
            _pooled(read[heads.classifier]) if heads.classifier else logits.new_empty(logits.shape[0], 0),
            before,  # where a group's module leaves out a norm and an activation that follow, it ends before them
            tuple(read[name] for name in tokened),
            tuple(made[name] for name in averaged),
            pooled_maps.maps(made[pooled_maps.module]) if pooled_maps else logits.new_empty(logits.shape[0], 0, 0, 0),
        )

    def _module(self, name: str) -> nn.Module:
        return self.body.get_submodule(name)

    def _maps(self, point: Point, value: Tensor) -> Tensor:
        return point.maps(value[:, self.get_buffer(_order(point))] if point.order else value)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return tuple(self._module(name) for name in self.wiring.norms)  # type: ignore[misc]  # `wire` saw that they are


def _order(point: Point) -> str:
    """What the buffer is called that holds a point's order."""
    return f"order_{point.module.replace('.', '_')}"


def _pooled(value: Tensor) -> Tensor:
    """The vectors (B, D) that a classifier reads; of a convolution's input (B, D, H, W) the mean over its places."""
    return value if value.ndim == 2 else value.mean((2, 3))


def _keep_made(made: dict[str, Tensor], name: str) -> Any:
    """Keeps what the module gives first: a stem's activation may be used again further on."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if name not in made:
            made[name] = first_tensor(output)

    return hook


def _keep_read(read: dict[str, Tensor], name: str) -> Any:
    """Keeps what the module reads last: the activation that ends a block is often the one within it."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        read[name] = args[0]

    return hook


def prepare(body: nn.Module) -> nn.Module:
    """The body, changed so that it can be hooked and computes the same numbers.

    Activations and dropout work out of place, because a pre-activation that is overwritten is none; average pooling to a fixed size
    is one whose backward pass is deterministic on CUDA.
    """
    for module in list(body.modules()):
        if "inplace" in vars(module):
            module.inplace = False  # type: ignore[assignment]
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):  # to one pixel it is a mean
                setattr(module, name, AveragePooling(child.output_size))
    return body


class AveragePooling(nn.Module):
    """Adaptive average pooling of maps to a fixed size; None keeps a side as it is."""

    def __init__(self, size: int | tuple[int | None, ...] | None) -> None:
        super().__init__()
        self.size = size if isinstance(size, tuple) else (size, size)

    def forward(self, maps: Tensor) -> Tensor:
        height, width = self.size
        return pool_to(maps, (height or maps.shape[2], width or maps.shape[3]))
