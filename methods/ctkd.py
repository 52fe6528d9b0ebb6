import math

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, kd_divergence, register, standardized_logits


@register("ctkd")
class CTKD(Method):
    r"""ce_weight CE(z_s, y) + kd_weight tau^2 KL(softmax(z_t / tau) || softmax(z_s / tau)),  tau = lowest + span sigmoid(t)

    t is one number that learns with the student, from 1 (tau = 15.6). It makes the student's task harder, for its gradient is
    multiplied by lambda, which falls from 0 to -1 along half a cosine over `reversal_epochs`, and then stays there. With
    `standardized`, z are logits of mean 0 and standard deviation 1, and kd_weight should be 9.

    Transfers: probabilities at a learnt temperature (logits)
    Paper: Li et al., "Curriculum temperature for knowledge distillation", AAAI 2023, arXiv:2211.16231.
    Code: https://github.com/zhengli97/CTKD; standardised: https://github.com/sunshangquan/logit-standardization-KD
    Deviations: none from the code of the global temperature; the instance-wise one is left out. Epochs count from 1 there, so that
    lambda is -0.024 in the first epoch and not 0. t has the recipe's learning rate and weight decay, as there.
    """

    reads = ("logits",)
    weights: tuple[str, ...] = ("kd_weight",)
    min_classes = 2

    class Params(MethodParams):
        ce_weight: NonNegativeFloat = 0.1
        kd_weight: NonNegativeFloat = 0.9
        lowest: PositiveFloat = 1.0
        span: NonNegativeFloat = 20.0
        reversal_epochs: NonNegativeInt = 10
        standardized: bool = False

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = self.params.ce_weight
        self.t = nn.Parameter(torch.ones(()))
        if self.params.standardized and self.params.kd_weight == self.Params().kd_weight:
            self.notes.append("kd_weight is that of plain logits; the authors' standardised runs have 9")
        if self.params.standardized and pair.student.logits[0] == 2:
            self.weights = ()
            self.notes.append("two standardised logits are 0.707 and -0.707, whatever the network says: nothing is transferred")

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        z_s, z_t = student.logits, teacher.logits
        if self.params.standardized:
            z_s, z_t = standardized_logits(z_s), standardized_logits(z_t)
        t = self.t.detach()
        reversed_by = batch.by_epoch(lambda epoch: reversal(epoch, self.params.reversal_epochs))
        t = t + reversed_by * (self.t - t)  # of the same value, with another gradient
        tau = self.params.lowest + self.params.span * torch.sigmoid(t)
        return {"divergence": self.params.kd_weight * kd_divergence(z_s, z_t, tau)}


def reversal(epoch: int, epochs: int) -> float:
    """lambda in an epoch, counted from 0."""
    return (math.cos(math.pi * min((epoch + 1) / max(epochs, 1), 1)) - 1) / 2
