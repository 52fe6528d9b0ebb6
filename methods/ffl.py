import math

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, ParameterGroup, build_model, register
from kdbench.errors import KdbenchError
from kdbench.losses import kd_divergence, pool_to_smaller


@register("ffl")
class FFL(Method):
    r"""sum_{i = 1, 2, f} CE(z_i, y) + beta w [D(z_1, z_f) + D(z_2, z_f) + D(z_f, (z_1 + z_2) / 2)],  D(z, t) = T^2 KL(q_t || q_z)

    q = softmax(z / T). z_1 are the student's logits, z_2 those of a peer that learns beside it from its first step. z_f come from a
    fusion of both last maps: side by side through a depthwise 3x3 and a 1x1 convolution, the mean over places, a linear layer. Each
    target is without gradient. w = exp(-5 (1 - epoch / ramp_up_epochs)^2), and 1 after these epochs. No teacher is read.

    Transfers: fused probabilities of two networks (logits)
    Paper: Kim et al., "Feature fusion for online mutual knowledge distillation", 2019, arXiv:1904.09058.
    Code: https://github.com/Jangho-Kim/FFL-pytorch
    Deviations: the networks are two whole ones, as in the paper's pairs of unequal networks; the authors' code shares all groups
    but the last. It adds 1e-7 to each target. The student is tested alone; the authors test the fusion, too. They use Nesterov
    momentum. Last maps of unequal size are average-pooled to the smaller one. As there, the epochs of w count from 0.
    """

    weights = ("beta",)
    min_classes = 2
    min_batch_size = 2

    class Params(MethodParams):
        peer: str = "resnet32"
        beta: NonNegativeFloat = 1.0
        temperature: PositiveFloat = 3.0
        ramp_up_epochs: NonNegativeInt = 80

    params: Params

    def build(self, pair: Pair) -> None:
        num_classes, in_channels = pair.student.logits[0], pair.image_shape[0]
        try:
            self.peer = build_model(self.params.peer, num_classes=num_classes, in_channels=in_channels)
        except KdbenchError as problem:
            raise PairError(f"peer: {problem}") from None
        with torch.no_grad():
            maps = self.peer.eval()(torch.zeros(1, *pair.image_shape)).features
        self.peer.train()
        if not pair.student.features or not maps:
            raise PairError("it fuses the last maps of two networks, and one of them has no maps; choose another student or peer")
        self.fusion = Fusion(pair.student.features[-1][0], maps[-1].shape[1], num_classes)

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        return (ParameterGroup(self.fusion, weight_decay=1e-5),)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        peer: Outputs = self.peer(batch.images)
        fused = self.fusion(student.features[-1], peer.features[-1])
        weight, t = batch.by_epoch(self.weight), self.params.temperature
        ensemble = (student.logits.detach() + peer.logits.detach()) / 2
        return {
            "peer_cross_entropy": batch.cross_entropy(peer.logits),
            "fusion_cross_entropy": batch.cross_entropy(fused),
            "divergence": weight * kd_divergence(student.logits, fused.detach(), t),
            "peer_divergence": weight * kd_divergence(peer.logits, fused.detach(), t),
            "fusion_divergence": weight * kd_divergence(fused, ensemble, t),
        }

    def weight(self, epoch: int) -> float:
        """beta w in an epoch, counted from 0."""
        passed = min(epoch / self.params.ramp_up_epochs, 1.0) if self.params.ramp_up_epochs else 1.0
        return self.params.beta * math.exp(-5 * (1 - passed) ** 2)


class Fusion(nn.Module):
    """Logits (B, K) of two networks' last maps."""

    def __init__(self, channels: int, others: int, classes: int) -> None:
        super().__init__()
        both = channels + others
        depthwise = nn.Conv2d(both, both, 3, padding=1, groups=both, bias=False)
        pointwise = nn.Conv2d(both, channels, 1, bias=False)
        self.maps = nn.Sequential(depthwise, nn.BatchNorm2d(both), nn.ReLU(), pointwise, nn.BatchNorm2d(channels), nn.ReLU())
        self.classifier = nn.Linear(channels, classes)
        for conv in (depthwise, pointwise):
            nn.init.normal_(conv.weight, std=math.sqrt(2 / (conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels)))

    def forward(self, student: Tensor, peer: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.maps(torch.cat(pool_to_smaller(student, peer), dim=1)).mean((2, 3)))
        return logits
