import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, full_precision, register


@register("sp")
class SP(Method):
    r"""CE(z_s, y) + beta ||G_s - G_t||_F^2 / B^2,  G = F F^T with rows of unit L2 norm

    F (B, C H W) are the flattened maps of the last group.

    Transfers: similarities between images (relations)
    Paper: Tung and Mori, "Similarity-preserving knowledge distillation", ICCV 2019, arXiv:1907.09682.
    Code: none by the authors; the form is that of https://github.com/HobbitLong/RepDistiller, which they verified.
    Deviations: groups of WRNs are read after the batch norm and ReLU that follow them, there before, as `hooks: raw` does.
    """

    reads = ("features",)
    min_batch_size = 2

    class Params(MethodParams):
        beta: NonNegativeFloat = 3000.0

    params: Params

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        difference = similarities(student.features[-1]) - similarities(teacher.features[-1])
        return {"similarity": self.params.beta * difference.square().mean()}


@full_precision
def similarities(maps: Tensor) -> Tensor:
    """(B, B) Gram matrix of maps (B, C, H, W), each row of unit L2 norm."""
    flat = maps.flatten(1)
    return F.normalize(flat @ flat.T)
