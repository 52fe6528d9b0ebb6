"""MobileNetV2 of half width for small images.

Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, arXiv:1801.04381; as the distillation
literature has it: ReLU instead of ReLU6, an expansion in the first block too, and a stem that halves the image.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method.outputs import Outputs
from kdbench.models.grouped import Grouped
from kdbench.models.layers import ConvNorm, init_classifier, init_convolutions
from kdbench.models.network import register_model


class InvertedResidual(nn.Module):
    """Expand, filter each channel, and project to a linear bottleneck; with the identity added where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        width = expansion * in_channels
        self.expand = ConvNorm(in_channels, width, 1)
        self.filter = ConvNorm(width, width, 3, stride=stride, groups=width)
        self.last = ConvNorm(width, out_channels, 1)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.filter(F.relu(self.expand(x), inplace=True)), inplace=True)
        out: Tensor = self.last(inner)
        return x + out if self.residual else out


SECTIONS = (
    # expansion, output channels, blocks, stride of the first block; one tuple for each group
    ((1, 8, 1, 1), (6, 12, 2, 1)),
    ((6, 16, 3, 2),),
    ((6, 32, 4, 2), (6, 48, 3, 1)),
    ((6, 80, 3, 2), (6, 160, 1, 1)),
)


@register_model("mobilenetv2_half")
class MobileNetV2(Grouped):
    """MobileNetV2 with half the channels in all layers but the last.

    Its bottlenecks are linear: neither norm nor activation follows a group, so that `features`, `preactivations` and `raw` are the
    same maps.
    """

    classifier: nn.Linear

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels = 16
        self.stem = ConvNorm(in_channels, channels, 3, stride=2)
        self.groups = nn.ModuleList()
        for sections in SECTIONS:
            group = nn.Sequential()
            for expansion, out_channels, blocks, stride in sections:
                for j in range(blocks):
                    group.append(InvertedResidual(channels, out_channels, stride=stride if j == 0 else 1, expansion=expansion))
                    channels = out_channels
            self.groups.append(group)
        self.head = ConvNorm(channels, 1280, 1)
        self.classifier = nn.Linear(1280, num_classes)
        init_convolutions(self)
        init_classifier(self.classifier)

    def forward(self, images: Tensor) -> Outputs:
        stem = x = F.relu(self.stem(images))
        features = []
        for block, ends in self.walk():
            x = block(x)
            features += [x] if ends else []
        last = F.relu(self.head(x), inplace=True)
        pooled = last.mean((2, 3))
        maps = tuple(features)
        return Outputs(self.classifier(pooled), stem, maps, maps, pooled, maps, pooled_maps=last)

    def norm_of(self, block: InvertedResidual) -> nn.BatchNorm2d:  # type: ignore[override]  # its blocks are no others
        return block.last.norm
