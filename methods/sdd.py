from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from kdbench import (
    Batch,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    decoupled,
    full_precision,
    pool_to,
    refuse_unclassified_maps,
    register,
    sample_divergences,
)


@register("sdd")
class SDD(Method):
    r"""ce_weight CE(z_s, y) + w mean_{b, r} a_{b, r} L(z_s^{b, r}, z_t^{b, r}),  w = min(epoch / warm_up_epochs, 1)

    z^r classify the means over R regions of the map that the classifier pools: the whole, 2x2 cells and 4x4 cells, or the first
    `levels` of these. a is 2 where the teacher is right about the label in a region and wrong in the whole, or the reverse, and 1
    elsewhere.

    L is one of three losses. `dkd`: alpha T^2 KL(b_t || b_s) + beta T^2 KL(q_t || q_s), where b is the target against the rest and
    q the distribution over the other classes. `kd`: alpha T^2 KL(softmax(z_t / T) || softmax(z_s / T)), which does not read beta;
    the authors' are alpha 0.9, ce_weight 0.1, warm_up_epochs 0. `nkd`: -alpha p_t(y) log p_s(y) - beta T^2 sum_k softmax(z_t / T)_k
    log softmax(z_s / T)_k.

    Transfers: probabilities of image regions (logits)
    Paper: Wei, Luo and Luo, "Scaled decoupled distillation", CVPR 2024, arXiv:2403.13512.
    Code: https://github.com/shicaiwei123/SDD-CVPR2024
    Deviations: the sum in `nkd` runs over all classes, as in the authors' code; the paper leaves the target out. As there, larger
    regions are means of the 4x4 cells, and epochs count from 1. The logarithms of b are taken in log space, so that they stay
    finite. The authors choose levels and beta per pair.
    """

    reads = ("pooled_maps", "pooled")
    weights: tuple[str, ...] = ("alpha", "beta")
    min_classes = 2

    class Params(MethodParams):
        loss: Literal["dkd", "kd", "nkd"] = "dkd"
        levels: int = Field(3, ge=1, le=3)
        alpha: NonNegativeFloat = 1.0
        beta: NonNegativeFloat = 8.0
        temperature: PositiveFloat = 4.0
        ce_weight: NonNegativeFloat = 1.0
        warm_up_epochs: NonNegativeInt = 20

    params: Params

    def build(self, pair: Pair) -> None:
        refuse_unclassified_maps(student=pair.student, teacher=pair.teacher)
        self.ce_weight = self.params.ce_weight
        if self.params.loss == "kd":
            self.weights = ("alpha",)
        elif self.params.loss == "dkd" and pair.student.logits[0] == 2:
            self.weights = ("alpha",)
            self.notes.append("with two classes the non-target term compares distributions over one class, and is 0")

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        z_s, z_t = (self.regions(outputs.pooled_maps, outputs.classify) for outputs in (student, teacher))
        right = z_t.argmax(2) == batch.labels[:, None]
        weight = 1 + (right != right[:, :1]).flatten()
        labels = batch.labels.repeat_interleave(right.shape[1])
        warm_up = batch.by_epoch(lambda epoch: min((epoch + 1) / max(self.params.warm_up_epochs, 1), 1.0))
        terms = self.terms(z_s.flatten(0, 1), z_t.flatten(0, 1), labels)
        return {name: warm_up * (weight * term).mean() for name, term in terms.items()}

    @full_precision
    def regions(self, maps: Tensor, classify: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (B, R, K) of the regions of maps (B, C, H, W), the whole first."""
        cells = [pool_to(pool_to(maps, (4, 4)), (side, side)).flatten(2) for side in (1, 2, 4)[: self.params.levels]]
        logits = classify(torch.cat(cells, dim=2).transpose(1, 2).flatten(0, 1))
        return logits.view(len(maps), -1, logits.shape[1])

    def terms(self, z_s: Tensor, z_t: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """L of logits (N, K) in its weighted terms, (N,) each."""
        t, alpha, beta = self.params.temperature, self.params.alpha, self.params.beta
        if self.params.loss == "kd":
            return {"divergence": alpha * t**2 * sample_divergences(z_s / t, z_t / t)}
        if self.params.loss == "nkd":
            own = (z_t.softmax(1) * z_s.log_softmax(1)).gather(1, labels[:, None]).squeeze(1)
            soft = ((z_t / t).softmax(1) * (z_s / t).log_softmax(1)).sum(1)
            return {"target": -alpha * own, "soft": -beta * t**2 * soft}
        target, other = zip(decoupled(z_s, labels, t), decoupled(z_t, labels, t), strict=True)
        own, rest = (t**2 * sample_divergences(student / t, teacher / t) for student, teacher in (target, other))
        return {"target": alpha * own, "non_target": beta * rest}
