import math

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from kdbench import (
    Batch,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    deepest_pairs,
    full_precision,
    pairing_notes,
    pool_to_smaller,
    pooling_notes,
    register,
)

EPS = 1e-5


class Gaussian(nn.Module):
    """q(t | s): its mean is a network of the student's map, its variance learns per channel of the teacher's."""

    def __init__(self, c_student: int, c_teacher: int, variance: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in in (c_student, c_teacher, c_teacher):
            layers += [nn.Conv2d(c_in, c_teacher, 1, bias=False), nn.ReLU()]
        self.regressor = nn.Sequential(*layers[:-1])
        self.log_scale = nn.Parameter(torch.full((c_teacher,), math.log(math.expm1(variance - EPS))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """-log q(t | s) without its constant, mean over all entries of the maps (B, C, H, W)."""
        student, teacher = pool_to_smaller(student, teacher)
        variance = F.softplus(self.log_scale) + EPS
        return negative_log_likelihood(self.regressor(student), teacher, variance[:, None, None])


@full_precision
def negative_log_likelihood(mean: Tensor, target: Tensor, variance: Tensor) -> Tensor:
    """Scalar; `variance` broadcasts to the maps."""
    return 0.5 * ((mean - target).square() / variance + torch.log(variance)).mean()


@register("vid")
class VID(Method):
    r"""CE(z_s, y) + beta sum_i mean((mu_i(f_s) - f_t)^2 / (2 sigma_i^2) + log(sigma_i^2) / 2),  sigma_i^2 = softplus(rho_i) + 1e-5

    Per group i a network mu_i of three 1x1 convolutions, and a learned rho_i per channel of the teacher.

    Transfers: mutual information of maps (features)
    Paper: Ahn et al., "Variational information distillation for knowledge transfer", CVPR 2019, arXiv:1904.05835.
    Code: https://github.com/ssahn0215/variational-information-distillation; the form is that of
    https://github.com/HobbitLong/RepDistiller, which took it from there.
    Deviations: where the networks differ in their number of groups, groups are paired from the deepest backwards. Maps of unequal
    size are average-pooled to the smaller one, as there. Groups of WRNs are read after the batch norm and ReLU that follow them,
    there before, as `hooks: raw` does.
    """

    reads = ("features",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 1.0
        initial_variance: PositiveFloat = 5.0

    params: Params

    def build(self, pair: Pair) -> None:
        shapes = pair.student.features, pair.teacher.features
        self.gaussians = nn.ModuleList(Gaussian(s[0], t[0], self.params.initial_variance) for s, t in deepest_pairs(*shapes))
        self.notes += pairing_notes(*shapes) + pooling_notes(*shapes)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        total = student.logits.new_zeros(())
        for gaussian, maps in zip(self.gaussians, deepest_pairs(student.features, teacher.features), strict=True):
            total = total + gaussian(*maps)
        return {"information": self.params.beta * total}
