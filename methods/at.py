import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat
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
    register,
    spatial_notes,
)


@register("at")
class AT(Method):
    r"""CE(z_s, y) + beta sum_i mean((Q_s^i - Q_t^i)^2),  Q = vec(mean_c |f|^p) / ||vec(mean_c |f|^p)||_2

    Transfers: attention maps of each group (features)
    Paper: Zagoruyko and Komodakis, "Paying more attention to attention: improving the performance of convolutional neural
    networks via attention transfer", ICLR 2017, arXiv:1612.03928.
    Code: https://github.com/szagoruyko/attention-transfer
    Deviations: the paper writes an L2 norm of the difference; the authors' code, followed here, takes the mean of squares. Maps of
    unequal size are average-pooled to the smaller one, as in RepDistiller. Where the networks differ in their number of groups,
    groups are paired from the deepest backwards. Groups of WRNs are read after the batch norm and ReLU that follow them, there
    before, as `hooks: raw` does.
    """

    reads = ("features",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 1000.0
        p: float = Field(2.0, ge=1)  # below 1 the gradient of |f|^p is infinite where f is 0, as after a ReLU

    params: Params

    def build(self, pair: Pair) -> None:
        self.notes += pairing_notes(pair.student.features, pair.teacher.features)
        self.notes += pooling_notes(pair.student.features, pair.teacher.features)
        self.notes += spatial_notes(pair.student.features, pair.teacher.features)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        total = student.logits.new_zeros(())
        for f_s, f_t in deepest_pairs(student.features, teacher.features):
            f_s, f_t = pool_to_smaller(f_s, f_t)
            total = total + (self.attention(f_s) - self.attention(f_t)).square().mean()
        return {"attention": self.params.beta * total}

    @full_precision
    def attention(self, maps: Tensor) -> Tensor:
        """Normalised attention maps (B, H * W) of activations (B, C, H, W); a norm writes no powers of all."""
        return F.normalize(torch.linalg.vector_norm(maps, self.params.p, dim=1).pow(self.params.p).flatten(1) / maps.shape[1])
