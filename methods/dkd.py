from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, decoupled, kd_divergence, register, standardized_logits


@register("dkd")
class DKD(Method):
    r"""CE(z_s, y) + w (alpha T^2 KL(b_t || b_s) + beta T^2 KL(q_t || q_s)),  w = min(epoch / warm_up_epochs, 1)

    b = (p_y, 1 - p_y) is the binary distribution target against rest, q the distribution over the other classes alone, both of
    softmax(z / T). beta is chosen per pair, between 2 and 8: suites that repeat the paper set it. With `standardized`, z are logits
    of mean 0 and standard deviation 1; T should then be 2, and alpha and beta 9 times as large.

    Transfers: target and other probabilities, apart (logits)
    Paper: Zhao et al., "Decoupled knowledge distillation", CVPR 2022, arXiv:2203.08679.
    Code: https://github.com/megvii-research/mdistiller; standardised: https://github.com/sunshangquan/logit-standardization-KD
    Deviations: the logarithms of b are taken in log space, so that they stay finite where the authors' log(0) does not. As in the
    authors' code the epochs of the warm-up count from 1.
    """

    reads = ("logits",)
    weights: tuple[str, ...] = ("alpha", "beta")
    min_classes = 2

    class Params(MethodParams):
        alpha: NonNegativeFloat = 1.0
        beta: NonNegativeFloat = 8.0
        temperature: PositiveFloat = 4.0
        warm_up_epochs: NonNegativeInt = 20
        standardized: bool = Field(False, exclude_if=lambda chosen: not chosen)  # trials without it keep their identity

    params: Params

    def build(self, pair: Pair) -> None:
        if self.params.standardized and self.params.alpha == self.Params().alpha:
            self.notes.append("alpha is that of plain logits; the authors' standardised runs have alpha and beta 9 times as large")
        if pair.student.logits[0] > 2:
            return
        if self.params.standardized:
            self.weights = ()
            self.notes.append("two standardised logits are 0.707 and -0.707, whatever the network says: nothing is transferred")
        else:
            self.weights = ("alpha",)
            self.notes.append("with two classes the non-target term compares distributions over one class, and is 0")

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        t = self.params.temperature
        alpha = batch.by_epoch(lambda epoch: self.warm_up(epoch) * self.params.alpha)
        beta = batch.by_epoch(lambda epoch: self.warm_up(epoch) * self.params.beta)
        z_s, z_t = student.logits, teacher.logits
        if self.params.standardized:
            z_s, z_t = standardized_logits(z_s), standardized_logits(z_t)
        target_s, other_s = decoupled(z_s, batch.labels, t)
        target_t, other_t = decoupled(z_t, batch.labels, t)
        return {
            "target": alpha * kd_divergence(target_s, target_t, t),
            "non_target": beta * kd_divergence(other_s, other_t, t),
        }

    def warm_up(self, epoch: int) -> float:
        """w in an epoch, counted from 0."""
        return min((epoch + 1) / max(self.params.warm_up_epochs, 1), 1.0)
