import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, full_precision, register


@register("wsld")
class WSLD(Method):
    r"""CE(z_s, y) + alpha T^2 mean(-w sum_k p_t[k] log p_s[k]),  w = 1 - exp(-CE(z_s, y) / CE(z_t, y))

    p = softmax(z / T). w weighs each image: soft labels count little where the student does well beside the teacher. It passes no
    gradient. What it weighs is a cross-entropy and no divergence.

    Transfers: softened probabilities, weighed by image (logits)
    Paper: Zhou et al., "Rethinking soft labels for knowledge distillation: a bias-variance tradeoff perspective", ICLR 2021,
    arXiv:2102.00650.
    Code: https://github.com/bellymonster/Weighted-Soft-Label-Distillation
    Deviations: the teacher is in evaluation mode; the authors' loop leaves it in training mode. The defaults are those of
    CIFAR-100, which are in https://github.com/yzd-v/cls_KD alone; on ImageNet alpha is 2.5 and T is 2.
    """

    reads = ("logits",)
    weights = ("alpha",)
    min_classes = 2

    class Params(MethodParams):
        alpha: NonNegativeFloat = 2.25
        temperature: PositiveFloat = 4.0

    params: Params

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        soft = weighted_soft_labels(student.logits, teacher.logits, batch.labels, self.params.temperature)
        return {"soft_labels": self.params.alpha * self.params.temperature**2 * soft}


@full_precision
def weighted_soft_labels(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The cross-entropy with the teacher's soft labels, each image weighed by w."""
    with torch.no_grad():
        ce_s, ce_t = (F.cross_entropy(logits, labels, reduction="none") for logits in (student_logits, teacher_logits))
        weights = 1 - torch.exp(-ce_s / (ce_t + 1e-7))
    soft_labels = F.softmax(teacher_logits / temperature, dim=1)
    return (weights * F.cross_entropy(student_logits / temperature, soft_labels, reduction="none")).mean()
