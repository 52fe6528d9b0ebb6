import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, register

EPS = 1e-5


@register("rsd")
class RSD(Method):
    r"""CE(z_s, y) + beta (sum_i (C_ii - 1)^2 + kappa sum_{i != j} C_ij^2),  C = n(p_t)^T n(q(p_s)) / B

    p are pooled vectors, n standardises over the batch: (x - mean) / (std + 1e-5). q is a linear layer to `expansion` times the
    student's width, a batch norm, a GELU and a linear layer to the teacher's width.

    Transfers: pooled vectors without redundancy (features)
    Paper: Zhang et al., "Cross-architecture distillation made simple with redundancy suppression", ICCV 2025, arXiv:2507.21844.
    Code: https://github.com/spacewanderx/RSD
    Deviations: the linear layers start as torch's do, there from a truncated normal distribution of deviation 0.02. The authors
    train with timm's recipe; the defaults are theirs, and their standard deviations are biased.
    """

    reads = ("pooled",)
    min_batch_size = 2

    class Params(MethodParams):
        beta: NonNegativeFloat = 0.1
        kappa: NonNegativeFloat = 0.01
        expansion: PositiveInt = 2

    params: Params

    def build(self, pair: Pair) -> None:
        (d_s,), (d_t,) = pair.student.pooled, pair.teacher.pooled
        width = self.params.expansion * d_s
        self.projector = nn.Sequential(
            nn.Linear(d_s, width, bias=False), nn.BatchNorm1d(width), nn.GELU(), nn.Linear(width, d_t, bias=False)
        )

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        redundancy = distance_to_identity(self.projector(student.pooled), teacher.pooled, self.params.kappa)
        return {"redundancy": self.params.beta * redundancy}


@full_precision
def distance_to_identity(student: Tensor, teacher: Tensor, kappa: float) -> Tensor:
    """Sum of squares of (C - I), those off the diagonal times kappa; C is the cross-correlation of vectors (B, D)."""
    identity = torch.eye(student.shape[1], dtype=student.dtype, device=student.device)
    squares = (standardised(teacher).T @ standardised(student) / len(student) - identity).square()
    return kappa * squares.sum() + (1 - kappa) * squares.diagonal().sum()


def standardised(vectors: Tensor) -> Tensor:
    """(B, D), each column with the mean 0 and, but for a small constant, the standard deviation 1."""
    centred = vectors - vectors.mean(0)
    spread: Tensor = torch.linalg.vector_norm(centred, dim=0) / len(vectors) ** 0.5
    return centred / (spread + EPS)
