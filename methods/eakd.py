import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, register, sample_divergences


@register("eakd")
class EAKD(Method):
    r"""ce_weight CE(z_s, y) + kd_weight T^2 mean(w KL(softmax(z_t / T) || softmax(z_s / T))),  w = (H_t + H_t H_s / bound) / 2

    H are the entropies of softmax(z / 3). Images of which the networks are less sure weigh more; w passes no gradient.

    Transfers: softened probabilities, weighed by entropy (logits)
    Paper: Su et al., "EA-KD: entropy-based adaptive knowledge distillation", ICCV 2025, arXiv:2311.13621.
    Code: https://github.com/cpsu00/EA-KD
    Deviations: none. The bound of the entropy is 100 in the authors' code for CIFAR-100, where the logarithm of 100 would be meant,
    so that H_s has little to say; on ImageNet it is log(1000) = 6.91.
    """

    reads = ("logits",)
    weights = ("kd_weight",)
    min_classes = 2

    class Params(MethodParams):
        temperature: PositiveFloat = 4.0
        entropy_temperature: PositiveFloat = 3.0
        entropy_bound: PositiveFloat = 100.0
        ce_weight: NonNegativeFloat = 0.1
        kd_weight: NonNegativeFloat = 0.9

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = self.params.ce_weight

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        t = self.params.temperature
        divergences = t**2 * sample_divergences(student.logits / t, teacher.logits / t)
        h_s, h_t = (entropies(outputs.logits.detach() / self.params.entropy_temperature) for outputs in (student, teacher))
        weights = (h_t + h_t * h_s / self.params.entropy_bound) / 2
        return {"divergence": self.params.kd_weight * (weights * divergences).mean()}


@full_precision
def entropies(logits: Tensor) -> Tensor:
    """Of the softmax of each row, (B,), with the authors' 1e-10 against log(0)."""
    p = torch.softmax(logits, dim=1)
    return -(p * torch.log(p + 1e-10)).sum(1)
