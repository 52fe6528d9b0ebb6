import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, UnitInterval, full_precision, register

PROBABILITY = 0.99
"""What the virtual teacher gives the label."""


@register("tfkd_reg")
class TfKDReg(Method):
    r"""(1 - alpha) CE(z_s, y) + alpha multiplier / (B K) sum_{b, k} q_k log(q_k / p_k),  q = softmax(u / T), p = softmax(z_s)

    u is a virtual teacher: 0.99 for the label, and 0.01 / (K - 1) for each other class. No teacher is read.

    Transfers: probabilities of a virtual teacher (logits)
    Paper: Yuan et al., "Revisiting knowledge distillation via label smoothing regularization", CVPR 2020, arXiv:1909.11723.
    Code: https://github.com/yuanli2333/Teacher-free-Knowledge-Distillation
    Deviations: none from the authors' code. There, as here, the softmax is taken of the probabilities u themselves, so that q is
    almost uniform at T = 20; the divergence is a mean over all B K numbers, which `multiplier` makes up for (at K = 100 it is the
    usual mean over images); the student has no temperature. The defaults are those of their ResNet-18 on CIFAR-100.
    """

    weights = ("alpha", "multiplier")
    min_classes = 2

    class Params(MethodParams):
        alpha: UnitInterval = 0.1
        temperature: PositiveFloat = 20.0
        multiplier: NonNegativeFloat = 100.0

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = 1 - self.params.alpha

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        divergence = virtual_divergence(student.logits, batch.labels, self.params.temperature)
        return {"divergence": self.params.alpha * self.params.multiplier * divergence}


@full_precision
def virtual_divergence(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean over all entries of q log(q / p), of logits (B, K)."""
    classes = logits.shape[1]
    own = labels[:, None] == torch.arange(classes, device=labels.device)
    virtual = torch.where(own, PROBABILITY, (1 - PROBABILITY) / (classes - 1)).to(logits)
    return F.kl_div(logits.log_softmax(1), (virtual / temperature).log_softmax(1), reduction="none", log_target=True).mean()
