"""The layers of a stack: each computes what one layer of several networks computes, as one operation.

Nothing flows from one place to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLACES = 8
"""How many networks a stack has room for. It always computes for so many, so that its kernels, and with them the last bits of what
a network gives, do not depend on how many are there."""


class Layer(nn.Module):
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

    def part(self) -> None:
        for name in self.numbers:
            setattr(self, name, None)


def join(layers: Iterable[Layer]) -> None:
    """Give layers the numbers of their places, of all layers at once: one by one, they would be a hundred small kernels."""
    joined: list[tuple[Layer, str, Tensor, list[Tensor]]] = []
    for layer in layers:
        for name in layer.numbers:
            of_places = [getattr(place, name) for place in layer.places]
            if of_places[0] is not None:
                joined.append((layer, name, _room(of_places[0]), of_places))
    with torch.no_grad():
        to = [part for _, _, room, _ in joined for part in room.chunk(PLACES)]
        torch._foreach_copy_(to, [own for *_, of_places in joined for own in of_places])
    for layer, name, room, of_places in joined:
        setattr(layer, name, _Joined.apply((room,), *of_places))


def _room(one: Tensor) -> Tensor:
    """For (N, ...) of each place as one (8 N, ...), laid out as they are: kernels are chosen by that."""
    dense = one.is_contiguous() or (one.ndim == 4 and one.is_contiguous(memory_format=torch.channels_last))
    strides = one.stride() if dense else one.contiguous().stride()
    return one.new_empty_strided((PLACES * len(one), *one.shape[1:]), (one.numel() // len(one), *strides[1:]))


class _Joined(torch.autograd.Function):
    """Room in which the numbers of all places lie already, as what was made of them; each is given its part of the gradient."""

    @staticmethod
    def forward(ctx: Any, room: tuple[Tensor], *of_places: Tensor) -> Tensor:
        return room[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradient.chunk(PLACES)


class Convolution(Layer):
    def forward(self, x: Tensor) -> Tensor:
        """(B, 8 C, H, W), or (B, C, H, W) which all places see, to (B, 8 C', H', W')."""
        one = self.places[0]
        shared = x.shape[1] == one.in_channels
        if x.is_cuda and not shared and self._doubles and x.is_contiguous(memory_format=torch.channels_last):
            return self._in_halves(x)
        groups = one.groups if shared else PLACES * one.groups
        return F.conv2d(x, self.weight, self.bias, one.stride, one.padding, one.dilation, groups)

    @property
    def _doubles(self) -> bool:
        """Whether it is strided and gives twice the channels that it takes, as where a ResNet's maps become smaller."""
        one = self.places[0]
        return one.stride != (1, 1) and one.bias is None and one.out_channels == 2 * one.in_channels

    def _in_halves(self, x: Tensor) -> Tensor:
        """The same by two convolutions that give as many channels as they take.

        cuDNN has fast kernels with groups for those alone: for the others it pads and rearranges the maps, group by group.
        """
        one = self.places[0]
        groups, stride = PLACES * one.groups, one.stride
        if one.kernel_size == (1, 1) and one.padding == (0, 0):
            x, stride = x[:, :, :: stride[0], :: stride[1]].contiguous(memory_format=torch.channels_last), (1, 1)
        by_pixel = self.weight.permute(0, 2, 3, 1)
        halves = by_pixel.reshape(groups, 2, -1, *by_pixel.shape[1:]).transpose(0, 1).flatten(1, 2)
        made = [F.conv2d(x, own.permute(0, 3, 1, 2), None, stride, one.padding, one.dilation, groups) for own in halves]
        by_group = [maps.permute(0, 2, 3, 1).view(len(maps), *maps.shape[2:], groups, -1) for maps in made]
        return torch.stack(by_group, -2).flatten(-3).permute(0, 3, 1, 2)


class BatchNorm(Layer):
    numbers = ("weight", "bias", "running_mean", "running_var")
    running_mean: Tensor
    running_var: Tensor
    taken = False

    def part(self) -> None:
        super().part()
        self.taken = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, 8 C, H, W) to the same shape; it moves the joined running statistics."""
        one = self.places[0]
        self.taken = True
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, one.momentum, one.eps)


class Linear(Layer):
    def forward(self, x: Tensor) -> Tensor:
        """(B, 8 D) to (B, 8 K)."""
        vectors = x.reshape(len(x), PLACES, -1).transpose(0, 1)
        weights = self.weight.view(PLACES, -1, self.weight.shape[1]).transpose(1, 2)
        made = vectors @ weights if self.bias is None else torch.baddbmm(self.bias.reshape(PLACES, 1, -1), vectors, weights)
        return made.transpose(0, 1).flatten(1)


LAYERS: dict[type[nn.Module], type[Layer]] = {nn.Conv2d: Convolution, nn.BatchNorm2d: BatchNorm, nn.Linear: Linear}
"""The layers with numbers of their own that can be stacked; classes derived from them may compute something else."""
