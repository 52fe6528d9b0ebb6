from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, register, sample_divergences


@register("normkd")
class NormKD(Method):
    r"""ce_weight CE(z_s, y) + kd_weight mean(T_t^2 KL(softmax(z_t / T_t) || softmax(z_s / T_s))),  T_i = temperature std(z_i)

    Each image has a temperature of its own in each network, from the standard deviation of its logits. So this is KD on
    standardised logits, with the variance of the teacher's logits as the weight of an image.

    Transfers: probabilities at each image's own temperature (logits)
    Paper: Chi et al., "NormKD: normalized logits for knowledge distillation", 2023, arXiv:2308.00520.
    Code: https://github.com/gizi1/NormKD
    Deviations: logits that are all equal pass no gradient; the authors' is NaN there.
    """

    reads = ("logits",)
    weights: tuple[str, ...] = ("kd_weight",)
    min_classes = 2

    class Params(MethodParams):
        temperature: PositiveFloat = 2.0
        ce_weight: NonNegativeFloat = 0.1
        kd_weight: NonNegativeFloat = 0.9

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = self.params.ce_weight
        if pair.student.logits[0] == 2:
            self.weights = ()
            self.notes.append("two logits differ by 1.41 standard deviations, whatever the network says: nothing is transferred")

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"divergence": self.params.kd_weight * self._divergence(student.logits, teacher.logits).mean()}

    def _divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        (z_s, _), (z_t, t_t) = (cooled(logits, self.params.temperature) for logits in (student_logits, teacher_logits))
        return t_t**2 * sample_divergences(z_s, z_t)


@full_precision
def cooled(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits (B, K) over the temperature of their row, and these temperatures (B,)."""
    std = logits.std(1, keepdim=True)
    return logits / (temperature * std.clamp(min=1e-6)) * (std > 1e-6), temperature * std[:, 0]
