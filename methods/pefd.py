import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, register


@register("pefd")
class PEFD(Method):
    r"""CE(z_s, y) + beta mean_b (1 - cos(mean_i relu(W_i p_s + b_i), p_t)),  i = 1..projectors

    p are pooled vectors; the linear layers learn with the student.

    Transfers: directions of pooled vectors (features)
    Paper: Chen et al., "Improved feature distillation via projector ensemble", NeurIPS 2022, arXiv:2210.15274.
    Code: https://github.com/chenyd7/PEFD
    Deviations: a zero vector has the cosine 0, where the authors' is not a number. Their code also builds a fourth projector, which
    it never uses; there is none here.
    """

    reads = ("pooled",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 25.0
        projectors: PositiveInt = 3

    params: Params

    def build(self, pair: Pair) -> None:
        (d_s,), (d_t,) = pair.student.pooled, pair.teacher.pooled
        self.projectors = nn.ModuleList(nn.Linear(d_s, d_t) for _ in range(self.params.projectors))

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        projected = torch.stack([projector(student.pooled).relu() for projector in self.projectors])
        return {"direction": self.params.beta * angle(projected, teacher.pooled)}


@full_precision
def angle(projected: Tensor, pooled: Tensor) -> Tensor:
    """1 - cos of the mean of vectors (P, B, D) over P, and vectors (B, D); mean over B."""
    return (1 - (F.normalize(projected.mean(0)) * F.normalize(pooled)).sum(1)).mean()
