import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, masked_log_softmax, register


@register("nkd")
class NKD(Method):
    r"""CE(z_s, y) - mean(p_t[y] log p_s[y]) - gamma T^2 mean(sum_{k != y} q_t[k] log q_s[k])

    p is softmax(z). q is the softmax of z / T over all classes but the label y. Both terms are cross-entropies and no divergences.

    Transfers: target's probability, normalised other ones (logits)
    Paper: Yang et al., "From knowledge distillation to self-knowledge distillation: a unified approach with normalized loss and
    customized soft labels", ICCV 2023, arXiv:2303.13005.
    Code: https://github.com/yzd-v/cls_KD
    Deviations: none. The defaults are those of CIFAR-100; on ImageNet gamma is 1.5 and T is 1.
    """

    reads = ("logits",)
    weights: tuple[str, ...] = ("gamma",)
    min_classes = 2

    class Params(MethodParams):
        gamma: NonNegativeFloat = 3.5
        temperature: PositiveFloat = 3.0

    params: Params

    def build(self, pair: Pair) -> None:
        if pair.student.logits[0] == 2:
            self.weights = ()
            self.notes.append("with two classes there is one other class, of probability 1, and the non-target term is 0")

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        t = self.params.temperature
        return {
            "target": target_term(student.logits, teacher.logits, batch.labels),
            "non_target": self.params.gamma * t**2 * non_target_term(student.logits / t, teacher.logits / t, batch.labels),
        }


@full_precision
def target_term(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy with the labels, each image weighed by the teacher's probability for its label."""
    confidence = torch.exp(-F.cross_entropy(teacher_logits, labels, reduction="none"))
    return (confidence * F.cross_entropy(student_logits, labels, reduction="none")).mean()


@full_precision
def non_target_term(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of student and teacher over the other classes."""
    others = labels[:, None] != torch.arange(student_logits.shape[1], device=labels.device)
    log_s, log_t = (masked_log_softmax(logits, others) for logits in (student_logits, teacher_logits))
    return -(log_t.exp() * log_s).sum(1).mean()  # log_s is 0 at the label
