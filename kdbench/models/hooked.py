"""Networks of other libraries, and plain modules, as `Network`s: groups are named modules, all else is found out.

One forward pass without arithmetic, on the meta device, is recorded module by module (`recorded`). From it follow the stem, the
pre-activations, the batch norms before them and the classifier, and how each output becomes maps (B, C, H, W) (`wiring`).
"""

from typing import Any

from torch import Tensor, nn

from kdbench.losses import pool_to
from kdbench.models.network import Network
from kdbench.models.wiring import Wiring
from kdbench.outputs import Outputs


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

    @property
    def classifier(self) -> nn.Linear:  # type: ignore[override]  # not an attribute, or its weights would have two names
        return self.body.get_submodule(self.wiring.classifier)  # type: ignore[return-value]

    def forward(self, images: Tensor) -> Outputs:
        stem, groups, activations = self.wiring.stem, self.wiring.groups, self.wiring.activations
        reading = [self.wiring.classifier, *filter(None, activations)]
        made: dict[str, Tensor] = {}
        read: dict[str, Tensor] = {}
        handles = [
            *(self._module(name).register_forward_hook(_keep_made(made, name)) for name in {p.module for p in (stem, *groups)}),
            *(self._module(name).register_forward_pre_hook(_keep_read(read, name)) for name in reading),
        ]
        try:
            logits = self.body(images)
        finally:
            for handle in handles:
                handle.remove()
        features = tuple(point.maps(made[point.module]) for point in groups)
        before = (
            point.maps(read[name]) if name else feature
            for name, point, feature in zip(activations, groups, features, strict=False)  # of none, or of all groups
        )
        return Outputs(logits, stem.maps(made[stem.module]), features, tuple(before), read[self.wiring.classifier])

    def _module(self, name: str) -> nn.Module:
        return self.body.get_submodule(name)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return tuple(self._module(name) for name in self.wiring.norms)  # type: ignore[misc]  # `wire` saw that they are


def _keep_made(made: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        made[name] = output

    return hook


def _keep_read(read: dict[str, Tensor], name: str) -> Any:
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
