from pydantic import NonNegativeFloat, PositiveFloat

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, kd_divergence, register, standardized_logits


@register("kd_standardized")
class KDStandardized(Method):
    r"""ce_weight CE(z_s, y) + kd_weight T^2 KL(softmax(n(z_t) / T) || softmax(n(z_s) / T)),  n(z) = (z - mean(z)) / std(z)

    Transfers: softened probabilities of standardised logits (logits)
    Paper: Sun et al., "Logit standardization in knowledge distillation", CVPR 2024, arXiv:2403.01427.
    Code: https://github.com/sunshangquan/logit-standardization-KD
    Deviations: logits that are all equal pass no gradient; the authors' is of the order of 1e7 there.
    """

    reads = ("logits",)
    weights: tuple[str, ...] = ("kd_weight",)
    min_classes = 2

    class Params(MethodParams):
        temperature: PositiveFloat = 2.0
        ce_weight: NonNegativeFloat = 0.1
        kd_weight: NonNegativeFloat = 9.0

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = self.params.ce_weight
        if pair.student.logits[0] == 2:
            self.weights = ()
            self.notes.append(
                "of two logits n(z) is 0.707 and -0.707, whatever the network says: nothing is transferred, and the student learns "
                "from the cross-entropy alone"
            )

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        z_s, z_t = standardized_logits(student.logits), standardized_logits(teacher.logits)
        divergence = kd_divergence(z_s, z_t, self.params.temperature)
        return {"divergence": self.params.kd_weight * divergence}
