"""What every network of the harness is, and the registry of models."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method.outputs import Outputs
from kdbench.method.pair import TeacherParts
from kdbench.registry import Registry


class Factory(Protocol):
    """Makes a freshly initialised model."""

    def __call__(self, *, num_classes: int, in_channels: int) -> nn.Module: ...


MODELS: Registry[Factory] = Registry("model", "models")
register_model = MODELS.register


def modules_command(name: str) -> str:
    """What lists the modules of a model that can be hooks, for messages."""
    return f"`kdbench show model {name} --modules{MODELS.plugin_option(name)}`"


class Network(nn.Module, ABC):
    """A classifier that hands out its hook points.

    Attributes:
        classifier: the last layer, from `Outputs.pooled` to `Outputs.logits`: linear, or a 1x1 convolution. None if no such layer
            gives the logits.
        reads_raw: whether `Outputs.features` are `Outputs.raw`, as `hooks: raw` asks for.
    """

    classifier: nn.Linear | nn.Conv2d | None
    reads_raw: bool = False

    @property
    def heads(self) -> tuple[nn.Linear | nn.Conv2d, ...]:
        """The layers that have an output for each class. There are several where their answers are averaged."""
        return (self.classifier,) if self.classifier else ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `forward` gives, with the classifier that `Outputs.classify` applies, and the features that are asked for.

        Raises:
            KdbenchError: it is to be read raw, and gives no raw maps.
        """
        outputs = super().__call__(*args, **kwargs)
        if not isinstance(outputs, Outputs):
            return outputs
        if self.reads_raw and not outputs.raw:
            raise KdbenchError(
                "it does not tell its maps before the norms and activations that follow its groups. Take `hooks: raw` out."
            )
        return replace(outputs, features=outputs.raw if self.reads_raw else outputs.features, classifier=self.classify)

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

    def end_groups(self, name: str, hooks: Sequence[str]) -> None:
        """Let the groups end with other blocks than the usual ones.

        Args:
            name: of the model, for messages.
            hooks: the names of the blocks, shallow to deep.

        Raises:
            KdbenchError: it has no such blocks, or its groups are fixed.
        """
        raise KdbenchError(f"hooks: {name} has its own groups, and others cannot be given. Take `hooks` out.")

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
