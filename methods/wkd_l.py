import math

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, full_precision, register

EPS = 1e-8


@register("wkd_l")
class WKDL(Method):
    r"""CE(z_s, y) - mean_b p_t,y log p_s,y + w gamma mean_b <F, C>,  C_ij = 1 - exp(-sharpness (1 - cos(w_i, w_j)))

    p is softmax(z). F transports the student's softmax(z / T) over the other classes than y to the teacher's at the cost C, by
    Sinkhorn's iterations. w_i are rows of the teacher's classifier. w = (1 + cos(pi q)) / 2, where q is 0 until the epoch
    `decay_after` and then rises linearly to 1.

    Transfers: probabilities, by their distance between classes (logits)
    Paper: Lv, Yang and Li, "Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation", NeurIPS 2024,
    arXiv:2412.08139.
    Code: https://github.com/JiamingLv/WKD
    Deviations: the cost is the one that their code calls `fc`. Their results on CIFAR-100 are with another one, from the CKA of the
    classes' features over the training set, which is not here. The defaults are theirs for that one, in 240 epochs; on ImageNet
    gamma is 30 and the temperature 2. As in their code, only gamma decays, and epochs count from 1, so that w is 0 in the last.
    """

    reads = ("logits",)
    weights: tuple[str, ...] = ("gamma",)
    min_classes = 3
    cost: Tensor

    class Params(MethodParams):
        gamma: NonNegativeFloat = 600.0
        temperature: PositiveFloat = 8.0
        sharpness: PositiveFloat = 1.0
        regularisation: PositiveFloat = 0.05
        iterations: PositiveInt = 10
        decay_after: NonNegativeInt = 150

    params: Params

    def build(self, pair: Pair) -> None:
        rows = F.normalize(pair.teacher_parts.classifier_weight.detach())
        if not len(rows):
            raise PairError(
                "its cost compares the rows of the teacher's classifier, and the teacher has none that is linear; choose another "
                "teacher"
            )
        self.register_buffer("cost", (1 - torch.exp(-self.params.sharpness * (1 - rows @ rows.T))).relu() + EPS)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        start = self.params.decay_after
        length = max(batch.epochs - start, 1)
        weight = batch.by_epoch(
            lambda epoch: self.params.gamma * (1 + math.cos(math.pi * (max(epoch + 1 - start, 0) / length))) / 2
        )
        target = batch.labels[:, None] == torch.arange(student.logits.shape[1], device=batch.labels.device)
        return {
            "target": target_term(student.logits, teacher.logits, target),
            "others": weight * self.distance(student.logits, teacher.logits, target),
        }

    @full_precision
    def distance(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """Mean transport cost between the softmax of logits (B, K) over the classes that are not in `target` (B, K)."""
        p_s, p_t = (F.softmax(z.masked_fill(target, -torch.inf) / self.params.temperature, dim=1) for z in (student, teacher))
        kernel = torch.exp(-self.cost / self.params.regularisation)
        u = (~target).to(p_s) / (target.shape[1] - 1)
        for _ in range(self.params.iterations):
            v = p_t / (u @ kernel + EPS)
            u = p_s / (v @ kernel.T + EPS)
        return (u * (v @ (kernel * self.cost).T)).sum(1).mean()


@full_precision
def target_term(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the probability of the class in `target` (B, K) alone, from logits (B, K); mean over the batch."""
    return -(teacher.softmax(1) * student.log_softmax(1) * target).sum(1).mean()
