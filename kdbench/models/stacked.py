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
        self._layers: list[_Layer] = []
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
        for layer in self._layers:
            layer.join()
        try:
            yield
        finally:
            for layer in self._layers:
                layer.part()

    @torch.no_grad()
    def _update_statistics(self) -> None:
        """Give the networks' batch norms the running statistics that follow from a pass, all at once."""
        count = len(self._networks)
        taken = [layer for layer in self._layers if isinstance(layer, _BatchNorm) and layer.taken]
        layers = [layer for norm in taken for layer in norm.places[:count]]
        if not layers:
            return
        for name in ("running_mean", "running_var"):
            found = [chunk for norm in taken for chunk in getattr(norm, name).chunk(PLACES)[:count]]
            torch._foreach_copy_([getattr(layer, name) for layer in layers], found)
        torch._foreach_add_([layer.num_batches_tracked for layer in layers], 1)


class _Layer(nn.Module):
    """Takes the place of one layer of each network; from `join` to `part` it has the numbers of all of them, one behind the other.

    They are joined outside of the pass: a compiled one must be given tensors that are alike whoever is in the places.
    """

    numbers: tuple[str, ...] = ("weight", "bias")
    weight: Tensor
    bias: Tensor | None

    def __init__(self, places: Sequence[nn.Module]) -> None:
        super().__init__()
        self.places: tuple[Any, ...] = tuple(places)  # a tuple, whose layers are no submodules
        self.part()

    def join(self) -> None:
        for name in self.numbers:
            found = [getattr(layer, name) for layer in self.places]
            setattr(self, name, None if found[0] is None else torch.cat(found))

    def part(self) -> None:
        for name in self.numbers:
            setattr(self, name, None)


class _Convolution(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        """(B, 8 C, H, W), or (B, C, H, W) which all places see, to (B, 8 C', H', W')."""
        one = self.places[0]
        groups = one.groups if x.shape[1] == one.in_channels else PLACES * one.groups
        return F.conv2d(x, self.weight, self.bias, one.stride, one.padding, one.dilation, groups)


class _BatchNorm(_Layer):
    numbers = ("weight", "bias", "running_mean", "running_var")
    running_mean: Tensor
    running_var: Tensor

    def join(self) -> None:
        super().join()
        self.taken = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, 8 C, H, W) to the same shape; it moves the joined running statistics."""
        one = self.places[0]
        self.taken = True
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, one.momentum, one.eps)


class _Linear(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        """(B, 8 D) to (B, 8 K)."""
        vectors = x.reshape(len(x), PLACES, -1).transpose(0, 1)
        weights = self.weight.view(PLACES, -1, self.weight.shape[1]).transpose(1, 2)
        made = vectors @ weights if self.bias is None else torch.baddbmm(self.bias.reshape(PLACES, 1, -1), vectors, weights)
        return made.transpose(0, 1).flatten(1)


LAYERS: dict[type[nn.Module], type[_Layer]] = {
    nn.Conv2d: _Convolution,
    nn.BatchNorm2d: _BatchNorm,
    nn.Linear: _Linear,
}
"""The layers with numbers of their own that can be stacked; classes derived from them may compute something else."""


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
        places = whole.view(len(whole), PLACES, -1, *whole.shape[2:]).transpose(0, 1)
        distance = math.ceil(places[0].nbytes / ALIGNED) * ALIGNED // whole.itemsize
        room = whole.new_empty(PLACES, distance)[:, : places[0].numel()]
        if ctx.channels_last:
            apart = room.view(PLACES, len(whole), *whole.shape[2:], -1).permute(0, 1, 4, 2, 3)
        else:
            apart = room.view(places.shape)
        return apart.copy_(places).unbind()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Tensor | None:
        given = [gradient for gradient in gradients if gradient is not None]
        if not given:
            return None
        nothing = torch.zeros_like(given[0])
        found = [nothing if gradient is None else gradient for gradient in gradients]
        if ctx.channels_last:
            return torch.stack([gradient.permute(0, 2, 3, 1) for gradient in found], 3).flatten(3).permute(0, 3, 1, 2)
        return torch.stack(found, 1).flatten(1, 2)


def _laid_out(strides: tuple[int, ...], gradient: Tensor | None) -> Tensor | None:
    """A gradient with the strides of the tensor that it is of, whatever came together in it; None where a compiled pass has none.

    Kernels of the backward pass are chosen by the layout. Were it left as it comes, the last bits of all networks would depend on
    which hook points the methods of the others read.
    """
    if gradient is None or gradient.stride() == strides:
        return gradient
    return gradient.new_empty_strided(gradient.shape, strides).copy_(gradient)
