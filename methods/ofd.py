import math

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from kdbench import (
    Batch,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    PairError,
    batch_norm_needs,
    deepest_pairs,
    full_precision,
    pairing_notes,
    pool_to_smaller,
    pooling_notes,
    register,
)


@register("ofd")
class OFD(Method):
    r"""CE(z_s, y) + beta sum_i 2^(i - n) / B sum [r_i(a_s) - max(a_t, m_i)]^2 where a_t > 0 or r_i(a_s) > max(a_t, m_i), i = 1..n

    a are the groups' pre-activations, r_i is a 1x1 convolution and batch norm. The margin m_i, one per channel, is the expectation
    of a_t where it is negative: E[a | a < 0] for a ~ N(bias, weight^2) of the teacher's last batch norm before it.

    Transfers: pre-activations above a margin (features)
    Paper: Heo et al., "A comprehensive overhaul of feature distillation", ICCV 2019, arXiv:1904.01866.
    Code: https://github.com/clovaai/overhaul-distillation; https://github.com/megvii-research/mdistiller gives the same loss.
    Deviations: the teacher is in evaluation mode; the authors run it in training mode, which also moves its running statistics.
    Maps of unequal size are average-pooled to the smaller one. Where the networks differ in their number of groups, groups are
    paired from the deepest backwards, as in mdistiller. On ImageNet the authors' beta is 1e-4. Nesterov momentum, with which the
    authors train on CIFAR-100 and ImageNet, is the recipe's to set: `optimiser: {lr: 0.1, nesterov: true}`.
    """

    reads = ("preactivations",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 0.001

    params: Params

    def build(self, pair: Pair) -> None:
        shapes_s, shapes_t = pair.student.preactivations, pair.teacher.preactivations
        if not shapes_s or not shapes_t:
            raise PairError("it needs the pre-activations of both networks; choose a student and a teacher that give them")
        norms = pair.teacher_parts.norms
        if len(norms) != len(shapes_t):
            raise PairError(
                f"it takes its margins from the last batch norm of each of the teacher's {len(shapes_t)} groups, but only "
                f"{len(norms)} have one; choose another teacher"
            )
        pairs = deepest_pairs(shapes_s, shapes_t)
        self.connectors = nn.ModuleList(connector(s[0], t[0]) for s, t in pairs)
        for i, norm in enumerate(norms[len(norms) - len(pairs) :]):
            self.register_buffer(f"margin_{i}", margin(*norm)[:, None, None])
        self.min_batch_size = batch_norm_needs(*(s for s, _ in pairs))
        self.notes += pairing_notes(shapes_s, shapes_t) + pooling_notes(shapes_s, shapes_t)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        total = student.logits.new_zeros(())
        pairs = deepest_pairs(student.preactivations, teacher.preactivations)
        for i, (connect, (a_s, a_t)) in enumerate(zip(self.connectors, pairs, strict=True)):
            distance = partial_distance(*pool_to_smaller(connect(a_s), a_t), self.get_buffer(f"margin_{i}"))
            total = total + 2.0 ** (i + 1 - len(pairs)) * distance
        return {"feature": self.params.beta * total}


def connector(c_student: int, c_teacher: int) -> nn.Module:
    """1x1 convolution and batch norm, initialised as by the authors."""
    conv = nn.Conv2d(c_student, c_teacher, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return nn.Sequential(conv, nn.BatchNorm2d(c_teacher))


def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """E[a | a < 0] for a ~ N(bias, weight^2), (C,); -3 |weight| where a < 0 has a probability below 0.001."""
    std, mean = weight.detach().double().abs(), bias.detach().double()
    negative = torch.special.ndtr(-mean / std)
    expectation = mean - std * torch.exp(-(mean / std).square() / 2) / math.sqrt(2 * math.pi) / negative
    return torch.where(negative > 0.001, expectation, -3 * std).float()  # the authors round them to float32 too


@full_precision
def partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Squared distance of maps (B, C, H, W), but nothing where both are below the margin's reach, summed, over B."""
    target = torch.maximum(teacher, margin)
    counts = (student > target) | (target > 0)
    return ((student - target).square() * counts).sum() / len(student)
