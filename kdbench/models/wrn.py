"""Wide residual networks for small images, `wrn_DEPTH_WIDENING`.

Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016, arXiv:1605.07146, without dropout.
"""

import re

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method.outputs import Outputs
from kdbench.models.grouped import Grouped
from kdbench.models.layers import ConvNorm, init_convolutions
from kdbench.models.network import MODELS, Factory, register_model


class WideBlock(nn.Module):
    """A pre-activation block that ends with the batch norm of the *next* block's entry.

    Cut there, a group's last block yields its pre-activation, and each batch norm runs once per forward pass.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, 3, stride=stride)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if in_channels != out_channels else None
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, trunk: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """The next trunk and its pre-activation, from the trunk and its activation; a projection reads the activation."""
        inner = self.second(F.relu(self.first(active), inplace=True))
        trunk = inner + (self.shortcut(active) if self.shortcut else trunk)
        return trunk, self.norm(trunk)


class WideResNet(Grouped):
    """A wide residual network of `depth` layers, three groups of `widening` times 16, 32 and 64 channels.

    The activation after a group is the batch norm and ReLU at the entry of the next block, or before the pooling. Where it is
    read raw, the stem is the first convolution alone.

    Raises:
        KdbenchError: no network has this depth.
    """

    classifier: nn.Linear

    def __init__(self, *, depth: int, widening: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise KdbenchError(
                f"unknown model 'wrn_{depth}_{widening}': no wide residual network has depth {depth}. "
                "Choose a depth of 6 n + 4: 10, 16, 22, 28, ..."
            )
        channels = 16
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.groups = nn.ModuleList()
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            group = nn.ModuleList()
            for j in range((depth - 4) // 6):
                group.append(WideBlock(channels, width * widening, stride if j == 0 else 1))
                channels = width * widening
            self.groups.append(group)
        self.classifier = nn.Linear(channels, num_classes)
        init_convolutions(self)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Outputs:
        trunk = self.stem(images)
        active = F.relu(self.norm(trunk))
        stem = trunk if self.reads_raw else active
        features, preactivations, raw = [], [], []
        for block, ends in self.walk():
            trunk, preactivation = block(trunk, active)
            active = F.relu(preactivation)
            if ends:
                features.append(active)
                preactivations.append(preactivation)
                raw.append(trunk)
        pooled = active.mean((2, 3))
        return Outputs(
            self.classifier(pooled), stem, tuple(features), tuple(preactivations), pooled, tuple(raw), pooled_maps=active
        )

    def norm_of(self, block: WideBlock) -> nn.BatchNorm2d:  # type: ignore[override]  # its blocks are no others
        return block.norm


def _wide(depth: int, widening: int) -> Factory:
    def factory(*, num_classes: int, in_channels: int) -> WideResNet:
        return WideResNet(depth=depth, widening=widening, num_classes=num_classes, in_channels=in_channels)

    return factory


def _family(match: re.Match[str]) -> Factory:
    return _wide(int(match[1]), int(match[2]))


for _depth, _widening in ((16, 1), (16, 2), (28, 10), (40, 1), (40, 2), (40, 4), (46, 4)):
    register_model(f"wrn_{_depth}_{_widening}")(_wide(_depth, _widening))
MODELS.register_family(r"wrn_([1-9]\d*)_([1-9]\d*)", _family)
