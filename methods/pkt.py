import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, full_precision, register

EPS = 1e-7


@register("pkt")
class PKT(Method):
    r"""CE(z_s, y) + beta mean_ij P_t[i, j] log(P_t[i, j] / P_s[i, j]),  P[i, j] = k(p_i, p_j) / sum_j k(p_i, p_j)

    k(a, b) = (cos(a, b) + 1) / 2; p are pooled vectors.

    Transfers: probabilities that images are neighbours (relations)
    Paper: Passalis and Tefas, "Learning deep representations with probabilistic knowledge transfer", ECCV 2018, arXiv:1803.10837.
    Code: https://github.com/passalis/probabilistic_kt
    Deviations: the paper sums over the pairs; the authors' code, followed here, takes the mean over all B^2. A zero vector passes a
    finite gradient where the authors' is NaN.
    """

    reads = ("pooled",)
    min_batch_size = 2

    class Params(MethodParams):
        beta: NonNegativeFloat = 30000.0

    params: Params

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        p_s, p_t = affinities(student.pooled), affinities(teacher.pooled)
        return {"affinity": self.params.beta * (p_t * torch.log((p_t + EPS) / (p_s + EPS))).mean()}


@full_precision
def affinities(pooled: Tensor) -> Tensor:
    """(B, B), rows that sum to 1, from vectors (B, D)."""
    units: Tensor = pooled / (torch.linalg.vector_norm(pooled, dim=1, keepdim=True) + EPS)
    kernel = (units @ units.T + 1) / 2
    return kernel / kernel.sum(1, keepdim=True)
