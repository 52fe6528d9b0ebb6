from collections.abc import Callable

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
    full_precision,
    pool_to,
    refuse_unclassified_maps,
    register,
    spatial_notes,
)

SMALLEST_NORM = 1e-4


@register("catkd")
class CATKD(Method):
    r"""CE(z_s, y) + beta mean((n(pool W_s f_s) - n(pool W_t f_t))^2),  n = L2 normalisation of each class's map

    W f are class activation maps: each place of the map f that the classifier pools, classified without the bias. They are
    average-pooled to `resolution` x `resolution` before they are normalised. The student's classifier learns from this term, too.

    The authors choose beta for each pair, and whether maps are normalised: without (`normalise: false`) and beta 15 for ResNet-32x4
    to ResNet-8x4; with it and beta 15 for VGG-13 to MobileNetV2.

    Transfers: class activation maps (features)
    Paper: Guo et al., "Class attention transfer based knowledge distillation", CVPR 2023, arXiv:2304.12777.
    Code: https://github.com/GzyAftermath/CAT-KD
    Deviations: the authors take the classifiers' biases away, in both networks. Here the networks keep theirs, and the maps go
    without. Norms under 1e-4 count as 1e-4, so that dead maps get no huge gradient. Beta is that of their engine/cfg.py, which no
    pair of theirs uses.
    """

    reads = ("pooled_maps", "pooled")

    class Params(MethodParams):
        beta: NonNegativeFloat = 400.0
        resolution: int = Field(2, ge=2)
        normalise: bool = True

    params: Params

    def build(self, pair: Pair) -> None:
        refuse_unclassified_maps(student=pair.student, teacher=pair.teacher)
        if self.params.normalise:
            self.notes += spatial_notes((pair.student.pooled_maps,), (pair.teacher.pooled_maps,))

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        cams_s, cams_t = (self.cams(outputs.pooled_maps, outputs.classify) for outputs in (student, teacher))
        return {"cams": self.params.beta * F.mse_loss(cams_s, cams_t)}

    @full_precision
    def cams(self, maps: Tensor, classify: Callable[[Tensor], Tensor]) -> Tensor:
        """Class activation maps (B, K, r, r) of maps (B, C, H, W)."""
        pooled = pool_to(maps, (self.params.resolution, self.params.resolution))  # before the classifier, which is linear
        bias = classify(pooled.new_zeros(1, pooled.shape[1], 1, 1))
        cams = classify(pooled) - bias
        if not self.params.normalise:
            return cams
        norms: Tensor = torch.linalg.vector_norm(cams, dim=(2, 3), keepdim=True)
        return cams / norms.clamp(min=SMALLEST_NORM)
