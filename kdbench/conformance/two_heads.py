"""A small network with two heads, for methods that train each of them."""

import re
from typing import Any

from torch import Tensor, nn

from kdbench.method.outputs import Outputs
from kdbench.models import MODELS, Network, build_model
from kdbench.models.network import Factory

NAME = "resnet8_two_heads"


class TwoHeads(Network):
    """A resnet8 whose logits are the mean of two heads."""

    classifier = None

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.body = build_model("resnet8", num_classes=num_classes, in_channels=in_channels)
        self.second = nn.Linear(64, num_classes)

    @property
    def heads(self) -> tuple[Any, ...]:
        return *self.body.heads, self.second

    def forward(self, images: Tensor) -> Outputs:
        found: Outputs = self.body(images)
        first, second = found.logits, self.second(found.pooled)
        nothing = first.new_empty(len(first), 0)
        logits = (first + second) / 2
        return Outputs(logits, found.stem, found.features, found.preactivations, nothing, found.raw, heads=(first, second))

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.body.group_norms()


def _family(match: re.Match[str]) -> Factory:
    return TwoHeads


MODELS.register_family(NAME, _family)  # no list of models shows it
