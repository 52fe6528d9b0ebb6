import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, full_precision, register

EPS = 1e-12


@register("irg")
class IRG(Method):
    r"""CE(z_s, y) + beta (mean_ij (d_s(i, j) - d_t(i, j))^2 + mean((p_s - p_t)^2)),  d(i, j) = |p_i - p_j|^2 / max |p_k - p_l|^2

    p are pooled vectors; i, j, k and l are images of a batch. There is no second mean where the networks' vectors differ in width.

    Transfers: graphs of distances between images (relations)
    Paper: Liu et al., "Knowledge distillation via instance relationship graph", CVPR 2019.
    Code: https://github.com/yufanLIU/IRG; the form is that of https://github.com/DefangChen/SemCKD, taken from there.
    Deviations: the paper's third term, on how the graph changes between layers, is not here. It compares layers that the user
    names, and SemCKD's scripts name none. The default is SemCKD's for CIFAR-100, where KD with the weight 1 is added; on ImageNet
    it is 0.05.
    """

    reads = ("pooled",)
    min_batch_size = 2

    class Params(MethodParams):
        beta: NonNegativeFloat = 0.005

    params: Params

    def build(self, pair: Pair) -> None:
        self.vertices = pair.student.pooled == pair.teacher.pooled
        if not self.vertices and pair.largest_batch < 3:
            raise PairError(
                "it compares distances between images, each relative to the largest, so that of two images nothing is left; raise "
                "`batch_size` in the recipe"
            )

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        terms = {"edges": edges(student.pooled, teacher.pooled)}
        if self.vertices:
            terms["vertices"] = vertices(student.pooled, teacher.pooled)
        return {name: self.params.beta * term for name, term in terms.items()}


@full_precision
def edges(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the relative distances between vectors (B, D), which may differ in D."""
    return (distances(student) - distances(teacher)).square().mean()


@full_precision
def vertices(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of vectors (B, D)."""
    return (student - teacher).square().mean()


def distances(vectors: Tensor) -> Tensor:
    """(B, B) squared distances of vectors (B, D), divided by the largest."""
    norms = vectors.square().sum(1)
    squares = (norms[:, None] + norms - 2 * vectors @ vectors.T).clamp(min=EPS)
    squares = squares * (1 - torch.eye(len(vectors), dtype=squares.dtype, device=squares.device))
    return squares / (squares.amax() + EPS)
