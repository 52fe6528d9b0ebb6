"""Two networks of your own: a plain classifier with hooks, and one that hands out its maps itself."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Network, Outputs, register_model


class Halving(nn.Module):
    """Maps (B, in_channels, H, W) to (B, channels, H / 2, W / 2), before the activation."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        halved: Tensor = self.norm(self.convolution(maps))
        return halved


@register_model("own_plain")
def plain(*, num_classes: int, in_channels: int) -> nn.Module:
    """From images to logits; the suite names the modules with which the groups end: `hooks: [shallow, deep]`."""
    layers = {
        "shallow": nn.Sequential(Halving(in_channels, 32), nn.ReLU()),
        "deep": nn.Sequential(Halving(32, 64), nn.ReLU()),
        "pool": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "fc": nn.Linear(64, num_classes),
    }
    return nn.Sequential(OrderedDict(layers))


@register_model("own_network")
class OwnNetwork(Network):
    """A stem and two groups; a suite names it and nothing else. This way has no limit on what a forward pass does."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.shallow = Halving(8, 16)
        self.deep = Halving(16, 32)
        self.classifier = nn.Linear(32, num_classes)

    def forward(self, images: Tensor) -> Outputs:
        stem = F.relu(self.stem(images))
        before_shallow = self.shallow(stem)
        shallow = F.relu(before_shallow)
        before_deep = self.deep(shallow)
        deep = F.relu(before_deep)
        pooled = deep.mean((2, 3))
        return Outputs(self.classifier(pooled), stem, (shallow, deep), (before_shallow, before_deep), pooled, pooled_maps=deep)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.shallow.norm, self.deep.norm
