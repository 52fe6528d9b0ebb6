import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, UnitInterval, full_precision, register, sample_divergences


@register("crld")
class CRLD(Method):
    r"""ce_weight (CE(w) + CE(s)) + within_weight mean(m_w (D(w, w) + D(s, s))) + cross_weight mean(m_s (D(s, w) + D(w, s)))

    D(a, b) = T^2 KL(softmax(z_t^b / T) || softmax(z_s^a / T)) for the student's view a and the teacher's view b of an image: w, the
    usual one, and s, a strong augmentation. m_w is 1 where the teacher gives a class of the usual view at least the probability
    `weak_confidence`, m_s where it gives one of the strong view at least `strong_confidence`; else they are 0.

    Transfers: probabilities of two views, where sure (logits)
    Paper: Zhang et al., "Cross-view consistency regularisation for knowledge distillation", MM 2024, arXiv:2412.16493.
    Code: https://github.com/haiduo/DeepKD has a copy of the authors'.
    Deviations: none. As in the code, the usual view's mask is that of both terms within a view and the strong one's of both across
    views, and means are over all images, masked ones included.
    """

    reads = ("logits",)
    views = ("strong",)
    weights = ("within_weight", "cross_weight")
    min_classes = 2

    class Params(MethodParams):
        within_weight: NonNegativeFloat = 2.0
        cross_weight: NonNegativeFloat = 0.5
        ce_weight: NonNegativeFloat = 1.0
        temperature: PositiveFloat = 4.0
        weak_confidence: UnitInterval = 0.9
        strong_confidence: UnitInterval = 0.2

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = self.params.ce_weight

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        t = self.params.temperature
        (s_w, s_s), (t_w, t_s) = ((outputs.logits, outputs.views["strong"].logits) for outputs in (student, teacher))
        within = sample_divergences(s_w / t, t_w / t) + sample_divergences(s_s / t, t_s / t)
        cross = sample_divergences(s_s / t, t_w / t) + sample_divergences(s_w / t, t_s / t)
        sure_w, sure_s = sure(t_w, self.params.weak_confidence), sure(t_s, self.params.strong_confidence)
        return {
            "within_views": self.params.within_weight * t**2 * (sure_w * within).mean(),
            "cross_views": self.params.cross_weight * t**2 * (sure_s * cross).mean(),
            "strong_cross_entropy": self.params.ce_weight * batch.cross_entropy(s_s, view="strong"),
        }


@full_precision
def sure(logits: Tensor, confidence: float) -> Tensor:
    """(B,), whether a class has at least this probability."""
    return torch.softmax(logits, dim=1).amax(1) >= confidence
