from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, UnitInterval, full_precision, register


@register("label_smoothing")
class LabelSmoothing(Method):
    r"""(1 - alpha) CE(z_s, y) + alpha mean_k (-log p_s(k)),  p_s = softmax(z_s)

    It is the cross-entropy to a target of 1 - alpha for the label, plus alpha / K for each of the K classes. No teacher is read.

    Transfers: nothing but uniform probabilities (baseline)
    Paper: Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR 2016, arXiv:1512.00567.
    Code: torch's `cross_entropy(..., label_smoothing=alpha)`, with which it agrees.
    Deviations: none. Some codebases share alpha among the K - 1 other classes: that is this alpha times K / (K - 1).
    """

    weights = ("alpha",)
    min_classes = 2

    class Params(MethodParams):
        alpha: UnitInterval = 0.1

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = 1 - self.params.alpha

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"smoothing": self.params.alpha * uniform_cross_entropy(student.logits)}


@full_precision
def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """The cross-entropy from the uniform distribution to logits (B, K)."""
    return -logits.log_softmax(1).mean()
