"""ShuffleNets for small images: a 1x1 stem in place of the stride and the max pooling.

Zhang et al., "ShuffleNet", CVPR 2018, arXiv:1707.01083; Ma et al., "ShuffleNet V2", ECCV 2018, arXiv:1807.11164. Initialised as
PyTorch initialises convolutions, as in the distillation literature.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.grouped import PostActivation
from kdbench.models.layers import ConvNorm
from kdbench.models.network import register_model


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels (B, g n, H, W) reordered from g groups of n to n groups of g.

    The copy has the layout that x has: another one would undo channels_last, or bring it, for all that follows.
    """
    b, c, h, w = x.shape
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x.reshape(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)
    grouped = x.permute(0, 2, 3, 1).reshape(b, h, w, groups, c // groups)
    return grouped.transpose(3, 4).reshape(b, h, w, c).permute(0, 3, 1, 2)


class GroupedBlock(nn.Module):
    """A unit of ShuffleNet up to its last activation; at stride 2 the pooled input is concatenated, not added."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, entry_groups: int, stride: int) -> None:
        super().__init__()
        made = out_channels - in_channels if stride == 2 else out_channels
        width = made // 4
        self.entry_groups = entry_groups
        self.first = ConvNorm(in_channels, width, 1, groups=entry_groups)
        self.filter = ConvNorm(width, width, 3, stride=stride, groups=width)
        self.last = ConvNorm(width, made, 1, groups=groups)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        inner = shuffle(F.relu(self.first(x), inplace=True), self.entry_groups)
        out: Tensor = self.last(F.relu(self.filter(inner), inplace=True))
        return torch.cat((out, F.avg_pool2d(x, 3, 2, 1)), dim=1) if self.stride == 2 else out + x


def _norm(block: GroupedBlock) -> nn.BatchNorm2d | None:
    return block.last.norm if block.stride == 1 else None  # it covers what is made, and not what is concatenated


@register_model("shufflenetv1")
def shufflenetv1(*, num_classes: int, in_channels: int) -> PostActivation:
    """ShuffleNet with 3 groups and 240, 480 and 960 channels."""
    channels, groups = 24, []
    for blocks, width in ((4, 240), (8, 480), (4, 960)):
        group = []
        for j in range(blocks):
            entry_groups = 1 if channels == 24 else 3
            group.append(GroupedBlock(channels, width, groups=3, entry_groups=entry_groups, stride=2 if j == 0 else 1))
            channels = width
        groups.append(group)
    return PostActivation(
        stem=ConvNorm(in_channels, 24, 1),
        groups=groups,
        norm_of=_norm,
        classifier=nn.Linear(channels, num_classes),
    )


class SplitBlock(nn.Module):
    """A unit of ShuffleNet V2 up to its last activation, which changes nothing in the half of the channels that is passed on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = ConvNorm(half, half, 1)
        self.filter = ConvNorm(half, half, 3, groups=half)
        self.last = ConvNorm(half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        changed = self.last(self.filter(F.relu(self.first(changed), inplace=True)))
        return shuffle(torch.cat((kept, changed), dim=1), 2)


class DownBlock(nn.Module):
    """The unit of ShuffleNet V2 that halves the map, up to its last activation: two branches, concatenated."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.left = nn.Sequential(
            ConvNorm(in_channels, in_channels, 3, stride=2, groups=in_channels), ConvNorm(in_channels, half, 1)
        )
        self.right = nn.Sequential(
            ConvNorm(in_channels, half, 1),
            nn.ReLU(inplace=True),
            ConvNorm(half, half, 3, stride=2, groups=half),
            ConvNorm(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(torch.cat((self.left(x), self.right(x)), dim=1), 2)


@register_model("shufflenetv2")
def shufflenetv2(*, num_classes: int, in_channels: int) -> PostActivation:
    """ShuffleNet V2 at 1x: 116, 232 and 464 channels, and 1024 before the pooling.

    It has no `group_norms`: a group's last batch norm covers half of the group's channels only.
    """
    channels, groups = 24, []
    for blocks, width in ((3, 116), (7, 232), (3, 464)):
        groups.append([DownBlock(channels, width), *(SplitBlock(width) for _ in range(blocks))])
        channels = width
    return PostActivation(
        stem=ConvNorm(in_channels, 24, 1),
        groups=groups,
        norm_of=None,
        head=nn.Sequential(ConvNorm(channels, 1024, 1), nn.ReLU(inplace=True)),
        classifier=nn.Linear(1024, num_classes),
    )
