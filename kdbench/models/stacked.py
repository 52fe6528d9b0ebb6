"""Several networks of one architecture as one: every layer of all of them is one operation.

Few and large operations instead of many small ones are what a GPU is fast at. Nothing flows from one network to another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from kdbench.method.outputs import Outputs, mapped
from kdbench.models.network import Network
from kdbench.models.stacked_layers import LAYERS, PLACES, BatchNorm, Layer, join


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


class CompiledPass(Protocol):
    """A network's pass, compiled for images of the shapes that it was prepared for."""

    def prepare(self, images: Tensor) -> float: ...

    def __call__(self, images: Tensor) -> Outputs: ...


class Stacked:
    """Networks of one architecture as one, in training.

    A convolution is one by groups, a batch norm is one over the channels of all, a linear layer is a batched product. The networks
    keep their parameters, in which gradients end, and their buffers, which are kept up to date.

    Args:
        networks: at most PLACES; networks of zeros take the places that are left.
        compiled: makes the compiled pass of a network; None to go through the network itself. All stacks of one architecture share
            a compilation: it is given joined weights, never those of the places, of which some learn and some are empty.
    """

    def __init__(self, networks: Sequence[Network], *, compiled: Callable[[Network], CompiledPass] | None = None) -> None:
        assert 0 < len(networks) <= PLACES
        self._networks = tuple(networks)
        empty = _of_zeros(networks[0])
        self._whole = deepcopy(networks[0]).train()
        self._layers: list[Layer] = []
        for name, layer in networks[0].named_modules():
            if make := LAYERS.get(type(layer)):
                of_places = [network.get_submodule(name) for network in networks]
                stacked = make([*of_places, *[empty.get_submodule(name)] * (PLACES - len(networks))])
                self._whole.set_submodule(name, stacked)
                self._layers.append(stacked)
        self._compiled = compiled(self._whole) if compiled else None

    def prepare(self, images: Tensor) -> float:
        """Compile for images (B, C, H, W) of this shape, where it is compiled; seconds, 0 where there was nothing to do."""
        if self._compiled is None:
            return 0.0
        with self._joined():
            return self._compiled.prepare(images)

    def __call__(self, images: Tensor) -> list[Cut]:
        """What each network gives for the same images (B, C, H, W)."""
        with self._joined():
            # Cloned: what a method writes into the images must not reach the backward pass.
            outputs: Outputs = (self._compiled or self._whole)(images.clone())
            self._update_statistics()
        parts: dict[int, tuple[Tensor, ...]] = {}
        for tensor in outputs.tensors():
            if id(tensor) not in parts:
                parts[id(tensor)] = _Apart.apply(tensor)
                if tensor.requires_grad:
                    tensor.register_hook(partial(_laid_out, tensor.stride()))  # type: ignore[no-untyped-call]  # torch's

        def cut(place: int, network: Network) -> Cut:
            own = {name: found[place] for name, found in parts.items()}
            # `data` and not `detach`: what a method writes into them is seen by its own backward pass and by no other's.
            leaves = {name: part.data.requires_grad_(part.requires_grad) for name, part in own.items()}
            seen = mapped(outputs, lambda tensor: leaves.get(id(tensor), tensor))
            return Cut(replace(seen, classifier=network.classify), tuple(leaves.values()), tuple(own.values()))

        return [cut(place, network) for place, network in enumerate(self._networks)]

    @contextmanager
    def _joined(self) -> Iterator[None]:
        """Inside the block the layers have the numbers of all places, and let go of them after it."""
        join(self._layers)
        try:
            yield
        finally:
            for layer in self._layers:
                layer.part()

    @torch.no_grad()
    def _update_statistics(self) -> None:
        """Give the networks' batch norms the running statistics that follow from a pass, all at once."""
        count = len(self._networks)
        taken = [layer for layer in self._layers if isinstance(layer, BatchNorm) and layer.taken]
        layers = [layer for norm in taken for layer in norm.places[:count]]
        if not layers:
            return
        for name in ("running_mean", "running_var"):
            found = [chunk for norm in taken for chunk in getattr(norm, name).chunk(PLACES)[:count]]
            torch._foreach_copy_([getattr(layer, name) for layer in layers], found)
        torch._foreach_add_([layer.num_batches_tracked for layer in layers], 1)


def _of_zeros(network: Network) -> Network:
    """What takes an empty place: whatever it is given, its maps are 0, and nothing is learnt."""
    empty = deepcopy(network).requires_grad_(False)
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.zero_()
    return empty


ALIGNED = 512
"""Bytes. Each place's part begins at a multiple of it, as a tensor of its own does on CUDA: kernels are chosen by that, too."""


class _Apart(torch.autograd.Function):
    """(B, 8 C, ...) as one (B, C, ...) for each place: a copy, laid out as a network alone would give it. Its gradient is laid out
    as the whole is in training, so that nothing needs to be rearranged."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.channels_last = whole.ndim == 4 and whole.is_contiguous(memory_format=torch.channels_last)
        if not ctx.channels_last:
            places = whole.view(len(whole), PLACES, -1, *whole.shape[2:]).transpose(0, 1)
            return _room_apart(places).copy_(places).unbind()
        places = whole.permute(0, 2, 3, 1).view(len(whole), *whole.shape[2:], PLACES, -1)
        places = _in_large_pieces(places).permute(3, 0, 1, 2, 4)
        return _room_apart(places).copy_(places).view(whole.dtype).permute(0, 1, 4, 2, 3).unbind()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Tensor | None:
        given = [gradient for gradient in gradients if gradient is not None]
        if not given:
            return None
        nothing = torch.zeros_like(given[0])
        found = [nothing if gradient is None else gradient for gradient in gradients]
        if not ctx.channels_last:
            return torch.stack(found, 1).flatten(1, 2)
        pieces = [_in_large_pieces(gradient.permute(0, 2, 3, 1)) for gradient in found]
        return torch.stack(pieces, 3).flatten(3).view(given[0].dtype).permute(0, 3, 1, 2)


def _room_apart(places: Tensor) -> Tensor:
    distance = math.ceil(places[0].nbytes / ALIGNED) * ALIGNED // places.itemsize
    return places.new_empty(PLACES, distance)[:, : places[0].numel()].view(places.shape)


def _in_large_pieces(maps: Tensor) -> Tensor:
    """(..., C) with 16 bytes as one number, of which a copy moves more at once; as they are where C has no such pieces."""
    if maps.shape[-1] * maps.itemsize % 16:
        return maps
    flat = maps.reshape(-1)
    whole = flat if flat.storage_offset() * flat.itemsize % 16 == 0 else flat.clone()
    return whole.view(torch.complex128).view(*maps.shape[:-1], -1)


def _laid_out(strides: tuple[int, ...], gradient: Tensor | None) -> Tensor | None:
    """A gradient with the strides of the tensor that it is of, whatever came together in it; None where a compiled pass has none.

    Kernels of the backward pass are chosen by the layout. Were it left as it comes, the last bits of all networks would depend on
    which hook points the methods of the others read.
    """
    if gradient is None or gradient.stride() == strides:
        return gradient
    return gradient.new_empty_strided(gradient.shape, strides).copy_(gradient)
