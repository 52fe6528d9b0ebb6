import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

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
    refuse_memory,
    register,
    spatial_notes,
)


@register("nst")
class NST(Method):
    r"""CE(z_s, y) + beta sum_i (mean k(t, t') + mean k(s, s') - 2 mean k(s, t)),  k(x, y) = (x . y)^2

    The squared maximum mean discrepancy per group i: s and t run over the channels of an image's maps, each flattened over space
    to unit L2 norm; means over channels and images.

    Transfers: activation patterns of the channels (features)
    Paper: Huang and Wang, "Like what you like: knowledge distill via neuron selectivity transfer", 2017, arXiv:1707.01219.
    Code: none by the authors; the form is that of https://github.com/HobbitLong/RepDistiller.
    Deviations: where the networks differ in their number of groups, groups are paired from the deepest backwards. Maps of unequal
    size are average-pooled to the smaller one, as there. Groups of WRNs are read after the batch norm and ReLU that follow them,
    there before, as `hooks: raw` does. The norms make a gradient as large as activations are small, as there.
    """

    reads = ("features",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 50.0
        memory_limit_gib: PositiveFloat = 16.0

    params: Params

    def build(self, pair: Pair) -> None:
        shapes = pair.student.features, pair.teacher.features
        self.notes += pairing_notes(*shapes) + pooling_notes(*shapes) + spatial_notes(*shapes)
        products = sum(3 * s[0] ** 2 + 2 * t[0] ** 2 for s, t in deepest_pairs(*shapes))
        refuse_memory(pair.largest_batch * products, "its products of channels", limit_gib=self.params.memory_limit_gib)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        total = student.logits.new_zeros(())
        for f_s, f_t in deepest_pairs(student.features, teacher.features):
            total = total + discrepancy(*pool_to_smaller(f_s, f_t))
        return {"selectivity": self.params.beta * total}


@full_precision
def discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between the channels of maps (B, C, H, W), scalar."""
    s, t = (F.normalize(maps.flatten(2), dim=2) for maps in (student, teacher))
    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Mean of the squared inner products between the channels of `a` (B, C, N) and of `b` (B, D, N)."""
    return (a @ b.mT).square().mean()
