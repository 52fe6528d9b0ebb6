"""What every network of the harness is, and the registry of models."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method.interface import TeacherParts
from kdbench.method.outputs import Outputs
from kdbench.registry import Registry


class Factory(Protocol):
    """Makes a freshly initialised model."""

    def __call__(self, *, num_classes: int, in_channels: int) -> nn.Module: ...


MODELS: Registry[Factory] = Registry("model", "models")
register_model = MODELS.register


class Network(nn.Module, ABC):
    """A classifier that hands out its hook points.

    Attributes:
        classifier: the last layer, from `Outputs.pooled` to `Outputs.logits`: linear, or a 1x1 convolution. None if no such layer
            gives the logits.
    """

    classifier: nn.Linear | nn.Conv2d | None

    @property
    def heads(self) -> tuple[nn.Linear | nn.Conv2d, ...]:
        """The layers that have an output for each class. There are several where their answers are averaged."""
        return (self.classifier,) if self.classifier else ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `forward` gives, with the classifier that `Outputs.classify` applies."""
        outputs = super().__call__(*args, **kwargs)
        return replace(outputs, classifier=self.classify) if isinstance(outputs, Outputs) else outputs

    @abstractmethod
    def forward(self, images: Tensor) -> Outputs:
        """The hook points for normalised images (B, C, H, W)."""

    def classify(self, values: Tensor) -> Tensor:
        """Logits (B, K) of vectors (B, D) like `Outputs.pooled`, or (B, K, H, W) of each place of maps (B, D, H, W).

        Raises:
            KdbenchError: the network has no classifier.
        """
        head = self.classifier
        if head is None:
            raise KdbenchError("its logits are no linear function of one vector, so that it has no classifier to apply.")
        weight = head.weight.flatten(1)
        if values.ndim == 2:
            return F.linear(values, weight, head.bias)
        return F.conv2d(values, weight[:, :, None, None], head.bias)

    @abstractmethod
    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """For each group, the last batch norm before its pre-activation, over all its channels. Empty if there is none."""

    def teacher_parts(self) -> TeacherParts:
        """Copies of the parameters that methods may read of a teacher, without gradient."""
        head = self.classifier
        weight = head.weight.detach().flatten(1).clone() if head else torch.empty(0, 0)
        bias = head.bias.detach().clone() if head and head.bias is not None else weight.new_zeros(len(weight))
        return TeacherParts(
            classifier_weight=weight,
            classifier_bias=bias,
            norms=tuple((norm.weight.detach().clone(), norm.bias.detach().clone()) for norm in self.group_norms()),
        )


class PostActivation(Network):
    """A network in which a ReLU follows the stem and every block; neither has that ReLU inside.

    Args:
        stem: (B, C, H, W) images to maps.
        groups: the blocks of each group, maps to maps.
        norms: what `group_norms` gives.
        head: between the last group and global average pooling.
        classifier: the last layer.
    """

    classifier: nn.Linear

    def __init__(
        self,
        *,
        stem: nn.Module,
        groups: Iterable[Iterable[nn.Module]],
        norms: Iterable[nn.BatchNorm2d],
        classifier: nn.Linear,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.groups = nn.ModuleList(nn.ModuleList(group) for group in groups)
        self.head = head or nn.Identity()
        self.classifier = classifier
        self._norms = tuple(norms)

    def forward(self, images: Tensor) -> Outputs:
        stem = x = F.relu(self.stem(images))
        features, preactivations = [], []
        for group in self.groups:
            for block in group:  # type: ignore[attr-defined]  # a list of modules
                preactivation = block(x)
                x = F.relu(preactivation)
            features.append(x)
            preactivations.append(preactivation)
        pooled = self.head(x).mean((2, 3))  # not adaptive pooling: its backward pass is not deterministic on CUDA
        raw = tuple(preactivations)  # no norm follows a group
        return Outputs(self.classifier(pooled), stem, tuple(features), raw, pooled, raw)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self._norms
