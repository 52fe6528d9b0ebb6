import math

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, masked_log_softmax, register


@register("rld")
class RLD(Method):
    r"""CE(z_s, y) + w (alpha tau^2 KL(b_t || b_s) + beta T^2 KL(q_t || q_s)),  w = min(epoch / warm_up_epochs, 1)

    b_s = (p_s[y], 1 - p_s[y]) is the student's distribution of the label against the rest, and b_t = (max p_t, 1 - max p_t) the
    teacher's of its first choice, right or wrong, against the rest; p = softmax(z / tau). q is the softmax of z / T over the
    classes that the teacher ranks below the label, so that those which it wrongly ranks above teach nothing.

    Transfers: confidence, and classes ranked below labels (logits)
    Paper: Sun et al., "Knowledge distillation with refined logits", ICCV 2025, arXiv:2408.07703.
    Code: https://github.com/zju-SWJ/RLD
    Deviations: the logarithms of b are taken in log space, so that they stay finite where the authors' log(0) does not. As in the
    authors' code the epochs of the warm-up count from 1. tau is their ALPHA_T, 1 by default; their command for CIFAR-100 sets it to
    T (`--same-t`). On ImageNet T is 1, the warm-up 1 epoch, and beta 0.5 (ResNet-18) or 2 (MobileNet).
    """

    reads = ("logits",)
    weights: tuple[str, ...] = ("alpha", "beta")
    min_classes = 2

    class Params(MethodParams):
        alpha: NonNegativeFloat = 1.0
        beta: NonNegativeFloat = 8.0
        tau: PositiveFloat = 1.0
        temperature: PositiveFloat = 4.0
        warm_up_epochs: NonNegativeInt = 20

    params: Params

    def build(self, pair: Pair) -> None:
        if pair.student.logits[0] == 2:
            self.weights = ("alpha",)
            self.notes.append("with two classes at most one is ranked below the label, and the term of those that are is 0")

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        tau, t = self.params.tau, self.params.temperature
        alpha = batch.by_epoch(lambda epoch: self.warm_up(epoch) * self.params.alpha * tau**2)
        beta = batch.by_epoch(lambda epoch: self.warm_up(epoch) * self.params.beta * t**2)
        confidence = confidence_divergence(student.logits / tau, teacher.logits / tau, batch.labels)
        correlation = masked_divergence(student.logits / t, teacher.logits / t, batch.labels)
        return {
            "confidence": alpha * confidence,
            "masked_correlation": beta * correlation,
        }

    def warm_up(self, epoch: int) -> float:
        """w in an epoch, counted from 0."""
        return min((epoch + 1) / max(self.params.warm_up_epochs, 1), 1.0)


@full_precision
def confidence_divergence(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """KL(b_t || b_s), the mean over the batch."""
    b_s, b_t = against_rest(student_logits, labels), against_rest(teacher_logits, teacher_logits.argmax(1))
    return F.kl_div(b_s, b_t, reduction="batchmean", log_target=True)


def against_rest(logits: Tensor, classes: Tensor) -> Tensor:
    """(B, 2), the logarithms of each row's probability for its one of `classes` (B,) and for all others."""
    chosen = classes[:, None] == torch.arange(logits.shape[1], device=logits.device)
    rest = logits.masked_fill(chosen, -math.inf).logsumexp(1)
    return F.log_softmax(torch.stack(((logits * chosen).sum(1), rest), dim=1), dim=1)


@full_precision
def masked_divergence(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """KL(q_t || q_s), the mean over the batch; 0 for an image of which the teacher ranks no class below the label."""
    target = labels[:, None] == torch.arange(teacher_logits.shape[1], device=labels.device)
    below = teacher_logits < (teacher_logits * target).sum(1, keepdim=True)
    log_s, log_t = masked_log_softmax(student_logits, below), masked_log_softmax(teacher_logits, below)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
