"""Several networks of one architecture as one: every layer of all of them is one operation.

Few and large operations instead of many small ones are what a GPU is fast at. Nothing flows from one network to another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method.outputs import Outputs, mapped
from kdbench.models.network import Network

PLACES = 8
"""How many networks a stack has room for. It always computes for so many, so that its kernels, and with them the last bits of what
a network gives, do not depend on how many are there."""


@dataclass(frozen=True, eq=False)
class Cut:
    """What one network of a stack gives, cut off from the stack, and where the gradient goes on.

    Attributes:
        outputs: the network's own; losses go backward to them and no further.
        leaves: the hook points among them, each once.
        parts: the same numbers, still part of the stack.
    """

    outputs: Outputs
    leaves: tuple[Tensor, ...]
    parts: tuple[Tensor, ...]


class Stacked:
    """Networks of one architecture as one, in training.

    A convolution is one by groups, a batch norm is one over the channels of all, a linear layer is a batched product. The networks
    keep their parameters, in which gradients end, and their buffers, which are kept up to date.

    Args:
        networks: at most PLACES; networks of zeros take the places that are left.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        assert 0 < len(networks) <= PLACES
        self._networks = tuple(networks)
        empty = _of_zeros(networks[0])
        self._whole = deepcopy(networks[0]).train()
        self._norms: list[_BatchNorm] = []
        for name, layer in networks[0].named_modules():
            if make := LAYERS.get(type(layer)):
                of_places = [network.get_submodule(name) for network in networks]
                stacked = make([*of_places, *[empty.get_submodule(name)] * (PLACES - len(networks))])
                self._whole.set_submodule(name, stacked)
                if isinstance(stacked, _BatchNorm):
                    self._norms.append(stacked)

    def __call__(self, images: Tensor) -> list[Cut]:
        """What each network gives for the same images (B, C, H, W)."""
        outputs: Outputs = self._whole(images.clone())  # what a method writes into the images must not reach the backward pass
        self._update_statistics()
        parts: dict[int, tuple[Tensor, ...]] = {}
        for tensor in outputs.tensors():
            if id(tensor) not in parts:
                parts[id(tensor)] = _apart(tensor)

        def cut(place: int, network: Network) -> Cut:
            own = {name: found[place] for name, found in parts.items()}
            # `data` and not `detach`: what a method writes into them is seen by its own backward pass and by no other's.
            leaves = {name: part.data.requires_grad_(part.requires_grad) for name, part in own.items()}
            seen = mapped(outputs, lambda tensor: leaves.get(id(tensor), tensor))
            return Cut(replace(seen, classifier=network.classify), tuple(leaves.values()), tuple(own.values()))

        return [cut(place, network) for place, network in enumerate(self._networks)]

    @torch.no_grad()
    def _update_statistics(self) -> None:
        """Give the networks' batch norms the running statistics that follow from a pass, all at once."""
        count = len(self._networks)
        taken = [norm for norm in self._norms if norm.statistics]
        layers = [layer for norm in taken for layer in norm.places[:count]]
        if not layers:
            return
        for i, name in enumerate(("running_mean", "running_var")):
            found = [chunk for norm in taken for chunk in norm.statistics[i].chunk(PLACES)[:count]]
            torch._foreach_copy_([getattr(layer, name) for layer in layers], found)
        torch._foreach_add_([layer.num_batches_tracked for layer in layers], 1)
        for norm in taken:
            norm.statistics = ()


class _Layer(nn.Module):
    """Takes the place of one layer of each network."""

    def __init__(self, places: Sequence[nn.Module]) -> None:
        super().__init__()
        self.places: tuple[Any, ...] = tuple(places)  # a tuple, whose layers are no submodules


class _Convolution(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        """(B, 8 C, H, W), or (B, C, H, W) which all places see, to (B, 8 C', H', W')."""
        one, weight, bias = self.places[0], _joined(self.places, "weight"), _joined(self.places, "bias")
        assert weight is not None
        groups = one.groups if x.shape[1] == one.in_channels else PLACES * one.groups
        return F.conv2d(x, weight, bias, one.stride, one.padding, one.dilation, groups)


class _BatchNorm(_Layer):
    statistics: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 8 C, H, W) to the same shape; `statistics` are then the running ones of all channels."""
        one = self.places[0]
        mean, variance = _joined(self.places, "running_mean"), _joined(self.places, "running_var")
        weight, bias = _joined(self.places, "weight"), _joined(self.places, "bias")
        assert mean is not None and variance is not None
        made = F.batch_norm(x, mean, variance, weight, bias, True, one.momentum, one.eps)
        self.statistics = mean, variance
        return made


class _Linear(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        """(B, 8 D) to (B, 8 K)."""
        weights = torch.stack([layer.weight for layer in self.places]).transpose(1, 2)
        vectors = x.reshape(len(x), PLACES, -1).transpose(0, 1)
        bias = _joined(self.places, "bias")
        made = vectors @ weights if bias is None else torch.baddbmm(bias.reshape(PLACES, 1, -1), vectors, weights)
        return made.transpose(0, 1).flatten(1)


LAYERS: dict[type[nn.Module], Callable[[Sequence[nn.Module]], nn.Module]] = {
    nn.Conv2d: _Convolution,
    nn.BatchNorm2d: _BatchNorm,
    nn.Linear: _Linear,
}
"""The layers with numbers of their own that can be stacked; classes derived from them may compute something else."""


def _joined(places: Sequence[Any], name: str) -> Tensor | None:
    found = [getattr(layer, name) for layer in places]
    return None if found[0] is None else torch.cat(found)


def _of_zeros(network: Network) -> Network:
    """What takes an empty place: whatever it is given, its maps are 0, and nothing is learnt."""
    empty = deepcopy(network).requires_grad_(False)
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.zero_()
    return empty


def _apart(tensor: Tensor) -> tuple[Tensor, ...]:
    """(B, 8 C, ...) as one (B, C, ...) for each place: a copy, laid out as a network alone would give it."""
    places = tensor.view(len(tensor), PLACES, -1, *tensor.shape[2:]).transpose(0, 1)
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        dense = places.permute(0, 1, 3, 4, 2).clone(memory_format=torch.contiguous_format).permute(0, 1, 4, 2, 3)
    else:
        dense = places.clone(memory_format=torch.contiguous_format)
    return dense.unbind()
