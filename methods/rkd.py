import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, full_precision, refuse_memory, register


@register("rkd")
class RKD(Method):
    r"""CE(z_s, y) + w_d mean_ij h(d_s^ij, d_t^ij) + w_a mean_ijk h(a_s^ijk, a_t^ijk),  h = Huber's loss

    d^ij = ||p_i - p_j|| / their mean; a^ijk = e^ij . e^ik with e^ij = (p_j - p_i) / ||p_j - p_i||; p are pooled vectors.

    Transfers: distances and angles between images (relations)
    Paper: Park et al., "Relational knowledge distillation", CVPR 2019, arXiv:1904.05068.
    Code: https://github.com/lenscloth/RKD
    Deviations: distances come from differences of vectors, not from a Gram matrix, which loses their digits in float32. Where two
    vectors coincide, the angle passes no gradient; the authors' is of the order of 1e12 there.
    """

    reads = ("pooled",)
    weights = ("distance_weight", "angle_weight")
    min_batch_size = 2

    class Params(MethodParams):
        distance_weight: NonNegativeFloat = 25.0
        angle_weight: NonNegativeFloat = 50.0
        memory_limit_gib: PositiveFloat = 16.0

    params: Params

    def build(self, pair: Pair) -> None:
        size, width = pair.largest_batch, max(pair.student.pooled[0], pair.teacher.pooled[0])
        if size < 3:
            raise PairError(
                f"it relates images to one another, and of fewer than 3 nothing is left; here a batch has {size} at most. Raise "
                "`batch_size` in the recipe, or train on more images"
            )
        held = size**2 * (6 * width + 3 * size)
        refuse_memory(held, f"the angles in a batch of {size}", limit_gib=self.params.memory_limit_gib)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        distances_s, angles_s = relations(student.pooled)
        distances_t, angles_t = relations(teacher.pooled)
        return {
            "distance": self.params.distance_weight * F.smooth_l1_loss(distances_s, distances_t),
            "angle": self.params.angle_weight * F.smooth_l1_loss(angles_s, angles_t),
        }


@full_precision
def relations(pooled: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B, B) of mean 1 over the pairs, and cosines (B, B, B) at the first index, of vectors (B, D)."""
    others = 1 - torch.eye(len(pooled), dtype=pooled.dtype, device=pooled.device)
    differences = pooled[None] - pooled[:, None]
    squared = differences.square().sum(2)
    norms = squared.clamp(min=1e-12).sqrt()  # clamped before the root, whose slope at 0 is infinite
    units = differences / norms[..., None] * (squared > 1e-12)[..., None]
    return others * norms / ((others * norms).sum() / others.sum()), units @ units.mT
