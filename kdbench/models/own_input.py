"""A network that takes images in its own way: normalised with other numbers than the data set's, or of another size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method.outputs import Outputs
from kdbench.models.network import Network
from kdbench.spec.trial import NetworkInput


class OwnInput(Network):
    """A network behind a change of its images: from the data set's normalisation to its own, then to its own size.

    Args:
        network: what sees the changed images.
        input: its normalisation and size.
        mean: what the data set subtracts from each channel of pixels scaled to 0..1.
        std: what it then divides by.

    Its state is the network's under the prefix `network.`; its hook points, classifier and norms are the network's.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Network, input: NetworkInput, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.size = input.size
        own = input.normalise
        self.renormalises = own is not None
        scale = [s / t for s, t in zip(std, own.std, strict=True)] if own else [1.0]
        shift = [(m - n) / t for m, n, t in zip(mean, own.mean, own.std, strict=True)] if own else [0.0]
        device = next(network.parameters()).device
        for name, values in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, torch.tensor(values, device=device).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Outputs:
        """The hook points for images (B, C, H, W) as the data set normalises them."""
        if self.renormalises:
            images = images * self.scale + self.shift
        if self.size and images.shape[2:] != (self.size, self.size):
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        outputs: Outputs = self.network(images)
        return outputs

    @property
    def classifier(self) -> nn.Linear | nn.Conv2d | None:  # type: ignore[override]  # no attribute, or it had two names
        return self.network.classifier

    @property
    def heads(self) -> tuple[nn.Linear | nn.Conv2d, ...]:
        return self.network.heads

    def classify(self, values: Tensor) -> Tensor:
        return self.network.classify(values)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.network.group_norms()
