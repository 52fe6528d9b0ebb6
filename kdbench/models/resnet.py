"""Residual networks: the thin ones of CIFAR, their wider variants, and ResNet-50 for small images.

He et al., "Deep residual learning for image recognition", CVPR 2016, arXiv:1512.03385; with projection shortcuts (1x1 convolution
and batch norm) wherever the shape changes, as the distillation literature has them.
"""

from functools import partial
from operator import attrgetter

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.grouped import PostActivation
from kdbench.models.layers import ConvNorm, init_convolutions
from kdbench.models.network import register_model


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNorm(in_channels, out_channels, 1, stride=stride)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut, up to the sum."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, width, 3, stride=stride)
        self.last = ConvNorm(width, width, 3)
        self.shortcut = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x), inplace=True)) + self.shortcut(x)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the shortcut, up to the sum; four times as many channels come out as lie within."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, width, 1)
        self.second = ConvNorm(width, width, 3, stride=stride)
        self.last = ConvNorm(width, self.expansion * width, 1)
        self.shortcut = _shortcut(in_channels, self.expansion * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.second(F.relu(self.first(x), inplace=True)), inplace=True)
        return self.last(inner) + self.shortcut(x)  # type: ignore[no-any-return]


def resnet(
    *,
    block: type[BasicBlock] | type[Bottleneck],
    blocks: tuple[int, ...],
    stem: int,
    widths: tuple[int, ...],
    num_classes: int,
    in_channels: int,
) -> PostActivation:
    """A residual network whose groups have `blocks` blocks of `widths` channels; all groups but the first halve the map."""
    groups, channels = [], stem
    for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        group = []
        for j in range(count):
            group.append(block(channels, width, stride=2 if i > 0 and j == 0 else 1))
            channels = block.expansion * width
        groups.append(group)
    network = PostActivation(
        stem=ConvNorm(in_channels, stem, 3),
        groups=groups,
        norm_of=attrgetter("last.norm"),
        classifier=nn.Linear(channels, num_classes),
    )
    init_convolutions(network)
    return network


for _depth in (8, 14, 20, 32, 44, 56, 110):
    _blocks = ((_depth - 2) // 6,) * 3
    register_model(f"resnet{_depth}")(partial(resnet, block=BasicBlock, blocks=_blocks, stem=16, widths=(16, 32, 64)))
for _depth in (8, 32):
    _blocks = ((_depth - 2) // 6,) * 3
    register_model(f"resnet{_depth}x4")(partial(resnet, block=BasicBlock, blocks=_blocks, stem=32, widths=(64, 128, 256)))
register_model("resnet50_cifar")(
    partial(resnet, block=Bottleneck, blocks=(3, 4, 6, 3), stem=64, widths=(64, 128, 256, 512)),
)
