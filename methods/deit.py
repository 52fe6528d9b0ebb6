from typing import Literal

import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, UnitInterval, kd_divergence, register


@register("deit")
class DeiT(Method):
    r"""(1 - alpha) CE(z_c, y) + alpha CE(z_d, argmax z_t);  of `kind: soft` alpha T^2 KL(softmax(z_t / T) || softmax(z_d / T)) / K

    z_c are the logits of the student's class token, z_d those of its distillation token. The prediction is their mean. K is the
    number of classes.

    Transfers: the teacher's decision, to a token (logits)
    Paper: Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021,
    arXiv:2012.12877.
    Code: https://github.com/facebookresearch/deit
    Deviations: none. The soft loss is divided by K as in the authors' code; in the paper it is not, and has T 3 and alpha 0.1.
    """

    reads = ("logits", "heads")
    weights = ("alpha",)
    min_classes = 2

    class Params(MethodParams):
        kind: Literal["hard", "soft"] = "hard"
        temperature: PositiveFloat = 1.0
        alpha: UnitInterval = 0.5

    params: Params

    def build(self, pair: Pair) -> None:
        if len(pair.student.heads) != 2:
            raise PairError(
                "it trains a head for labels and a head for distillation, and the student does not average two heads; choose a "
                "distilled transformer, such as timm/deit_tiny_distilled_patch16_224"
            )
        self.ce_weight = 0.0  # labels are for the class head alone

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        of_class, distilled = student.heads
        labelled = batch.cross_entropy(of_class)
        return {
            "class_head": (1 - self.params.alpha) * labelled,
            "distillation_head": self.params.alpha * self.distance(distilled, teacher.logits),
        }

    def distance(self, distilled: Tensor, teacher: Tensor) -> Tensor:
        """What the distillation head learns, unweighted."""
        if self.params.kind == "hard":
            return F.cross_entropy(distilled, teacher.argmax(1))
        return kd_divergence(distilled, teacher, self.params.temperature) / teacher.shape[1]
