import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, register

EPS = 1e-5


@register("itrd")
class ITRD(Method):
    r"""CE(z_s, y) + correlation_weight log2 sum_d |c_d - 1|^(2 alpha) + mutual_weight sum_ij (k_s^2 - k_s^2 k_t^2) / B^2

    c_d = sum_b s_bd t_bd / B for s = e(p_s) and t = p_t, standardised over the batch; k are the cosines of the vectors of images i
    and j. p are pooled vectors, and e is a linear layer.

    Transfers: correlations and cosines of vectors (relations)
    Paper: Miles, Rodriguez and Mikolajczyk, "Information theoretic representation distillation", BMVC 2022, arXiv:2112.00459.
    Code: https://github.com/roymiles/ITRD
    Deviations: what hardly varies over the batch is divided by a small constant, where the authors' loss is not a number. The
    defaults are those of the authors' README. As in their code, k_s is of p_s itself where both networks have vectors of one width,
    and of e(p_s) otherwise. The standard deviations are unbiased while c_d divides by B, so that c_d stays below 1. The mutual term
    has no logarithm.
    """

    reads = ("pooled",)
    weights: tuple[str, ...] = ("correlation_weight", "mutual_weight")
    min_batch_size = 2

    class Params(MethodParams):
        correlation_weight: NonNegativeFloat = 2.0
        mutual_weight: NonNegativeFloat = 1.0
        alpha: PositiveFloat = 1.01

    params: Params

    def build(self, pair: Pair) -> None:
        self.embed = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0])

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        embedded = self.embed(student.pooled)
        compared = student.pooled if student.pooled.shape == teacher.pooled.shape else embedded
        return {
            "correlation": self.params.correlation_weight * correlation(embedded, teacher.pooled, self.params.alpha),
            "mutual": self.params.mutual_weight * mutual(compared, teacher.pooled),
        }


@full_precision
def correlation(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Scalar from vectors (B, D), B at least 2."""
    s, t = (F.normalize(vectors - vectors.mean(0), dim=0, eps=EPS) for vectors in (student, teacher))
    correlations = (s * t).sum(0) * (len(s) - 1) / len(s)
    return torch.log2((correlations - 1).abs().pow(2 * alpha).sum())


@full_precision
def mutual(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar from vectors (B, D)."""
    gram_s, gram_t = (units @ units.T for units in (F.normalize(vectors, eps=EPS) for vectors in (student, teacher)))
    return (gram_s.square() - (gram_s * gram_t).square()).sum() / len(student) ** 2
