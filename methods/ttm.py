import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, full_precision, register, sample_divergences


@register("ttm")
class TTM(Method):
    r"""CE(z_s, y) + beta mean(w KL(p_t^gamma / sum_k p_t[k]^gamma || p_s)),  p = softmax(z)

    w is 1, and with `weighted`, the method WTTM, it is sum_k p_t[k]^gamma: images of which the teacher is less sure weigh more. A
    power gamma is a temperature of 1 / gamma, for the teacher alone, and there is no factor T^2.

    Transfers: probabilities that the teacher alone softens (logits)
    Paper: Zheng and Yang, "Knowledge distillation based on transformed teacher matching", ICLR 2024, arXiv:2402.11148.
    Code: https://github.com/zkxufo/TTM
    Deviations: none. The authors choose gamma and beta per pair; the defaults are those of their example, VGG-13 to VGG-8.
    """

    reads = ("logits",)
    min_classes = 2

    class Params(MethodParams):
        beta: NonNegativeFloat = 45.0
        gamma: PositiveFloat = 0.1
        weighted: bool = False

    params: Params

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"divergence": self.params.beta * self._divergence(student.logits, teacher.logits)}

    def _divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        divergences = sample_divergences(student_logits, self.params.gamma * teacher_logits)
        if self.params.weighted:
            divergences = divergences * power_sum(teacher_logits, self.params.gamma)
        return divergences.mean()


@full_precision
def power_sum(logits: Tensor, gamma: float) -> Tensor:
    """sum_k p[k]^gamma of each row, (B,)."""
    return torch.exp(gamma * F.log_softmax(logits, dim=1)).sum(1)
