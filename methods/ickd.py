import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, batch_norm_needs, full_precision, refuse_memory, register


@register("ickd")
class ICKD(Method):
    r"""CE(z_s, y) + beta sum_b ||G(r(f_s)) - G(f_t)||_F^2 / (C B),  G(f) = f f^T with rows of unit L2 norm

    f are the C x (H W) maps of the last group, one matrix for each image, and r is a 1x1 convolution to the teacher's C channels
    and a batch norm. The sizes of the maps need not agree.

    Transfers: correlations between channels (features)
    Paper: Liu et al., "Exploring inter-channel correlation for diversity-preserved knowledge distillation", ICCV 2021.
    Code: https://github.com/ADLab-AutoDrive/ICKD
    Deviations: none from the form for CIFAR-100. The authors add KD with the weight 1 in some rows: `ickd+kd`. Their code also
    builds an embedding of the teacher, which it never uses; there is none here.
    """

    reads = ("features",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 2.5
        memory_limit_gib: PositiveFloat = 16.0

    params: Params

    def build(self, pair: Pair) -> None:
        (c_s, *_), (c_t, *_) = pair.student.features[-1], pair.teacher.features[-1]
        held = pair.largest_batch * 6 * c_t**2  # both Gram matrices, before and after the norm, their difference and a gradient
        refuse_memory(held, f"its {c_t}x{c_t} matrices of each image", limit_gib=self.params.memory_limit_gib)
        self.embed = nn.Sequential(nn.Conv2d(c_s, c_t, 1, bias=False), nn.BatchNorm2d(c_t))
        self.min_batch_size = batch_norm_needs(pair.student.features[-1])

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"correlation": self.params.beta * distance(self.embed(student.features[-1]), teacher.features[-1])}


@full_precision
def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Between the correlations of the channels of maps (B, C, H, W), which may differ in H and W; scalar."""
    s, t = (F.normalize(flat @ flat.mT, dim=2) for flat in (student.flatten(2), teacher.flatten(2)))
    return (s - t).square().sum() / (s.shape[0] * s.shape[1])
