import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from kdbench import (
    Batch,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    UnitInterval,
    full_precision,
    pool_to_smaller,
    pooling_notes,
    register,
)


@register("mgd")
class MGD(Method):
    r"""CE(z_s, y) + beta sum((g(m a(f_s)) - f_t)^2) / B

    f is the last group. The mask m is 0 for a random share `masked` of an image's channels, and 1 for the others. a is a 1x1
    convolution where the networks differ in channels, and nothing otherwise; g are two 3x3 convolutions with a ReLU between them.

    Transfers: last maps, generated from masked ones (features)
    Paper: Yang et al., "Masked generative distillation", ECCV 2022, arXiv:2205.01529.
    Code: https://github.com/yzd-v/cls_KD
    Deviations: maps of unequal size are average-pooled to the smaller one; the authors' code takes equal sizes alone. The default
    weight is the authors' for CIFAR-100; on ImageNet it is 7e-5. As in their code, what is left is not scaled up.
    """

    reads = ("features",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 1.2e-3
        masked: UnitInterval = 0.15

    params: Params

    def build(self, pair: Pair) -> None:
        (c_s, *_), (c_t, *_) = pair.student.features[-1], pair.teacher.features[-1]
        self.align: nn.Module = nn.Identity() if c_s == c_t else nn.Conv2d(c_s, c_t, 1)
        self.generation = nn.Sequential(nn.Conv2d(c_t, c_t, 3, padding=1), nn.ReLU(), nn.Conv2d(c_t, c_t, 3, padding=1))
        self.notes += pooling_notes(pair.student.features[-1:], pair.teacher.features[-1:])

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        f_t = teacher.features[-1]
        draws = batch.random(torch.rand, f_t.shape[:2])
        return {"generation": self.params.beta * self.distance(student.features[-1], f_t, draws)}

    def distance(self, student: Tensor, teacher: Tensor, draws: Tensor) -> Tensor:
        """The unweighted loss of maps (B, C, H, W), with the channels masked whose `draws` (B, C) are below the share."""
        aligned, wanted = pool_to_smaller(self.align(student), teacher)
        kept = draws >= self.params.masked
        return squared_distance(self.generation(aligned * kept[:, :, None, None]), wanted)


@full_precision
def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Of maps (B, C, H, W), summed, over B."""
    return (student - teacher).square().sum() / len(student)
