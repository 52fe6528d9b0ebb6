from pydantic import PositiveFloat

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, UnitInterval, kd_divergence, register


@register("kd")
class KD(Method):
    r"""(1 - alpha) CE(z_s, y) + alpha T^2 KL(softmax(z_t / T) || softmax(z_s / T))

    Transfers: softened class probabilities (logits)
    Paper: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, arXiv:1503.02531.
    Code: none by the authors; the form is that of https://github.com/HobbitLong/RepDistiller.
    """

    reads = ("logits",)
    weights = ("alpha",)
    min_classes = 2

    class Params(MethodParams):
        temperature: PositiveFloat = 4.0
        alpha: UnitInterval = 0.9

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = 1 - self.params.alpha

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        divergence = kd_divergence(student.logits, teacher.logits, self.params.temperature)
        return {"divergence": self.params.alpha * divergence}
