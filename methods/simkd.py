from weakref import ref

import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from kdbench import (
    Batch,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    batch_norm_needs,
    full_precision,
    pool_to,
    pooling_notes,
    refuse_unclassified_maps,
    register,
)


@register("simkd")
class SimKD(Method):
    r"""beta mean((r(f_s) - f_t)^2),  prediction z = W_t mean_x r(f_s)(x) + b_t

    f_s is the student's last group, f_t the map that the teacher's classifier pools, r a bottleneck of three convolutions with
    batch norm. W_t and b_t are the teacher's classifier, which the student reuses: no label is read, the student's own classifier
    gets no gradient, and r belongs to the network deployed.

    Transfers: last maps and teacher's classifier (features)
    Paper: Chen et al., "Knowledge distillation with the reused teacher classifier", CVPR 2022, arXiv:2203.14001.
    Code: https://github.com/DefangChen/SimKD
    Deviations: none; as there, the larger of two last maps is average-pooled to the size of the smaller, the student's before r.
    """

    reads = ("features", "pooled_maps")
    classifier_weight: Tensor
    classifier_bias: Tensor

    class Params(MethodParams):
        beta: NonNegativeFloat = 1.0
        factor: PositiveInt = 2

    params: Params

    def build(self, pair: Pair) -> None:
        refuse_unclassified_maps(teacher=pair.teacher)
        (c_s, *size_s), (c_t, *size_t) = pair.student.features[-1], pair.teacher.pooled_maps
        parts = pair.teacher_parts
        self.ce_weight = 0.0
        self.size = (min(size_s[0], size_t[0]), min(size_s[1], size_t[1]))
        self.min_batch_size = batch_norm_needs((c_t, *self.size))
        c_mid = max(1, c_t // self.params.factor)
        layers: list[nn.Module] = []
        for c_in, c_out, kernel in ((c_s, c_mid, 1), (c_mid, c_mid, 3), (c_mid, c_t, 1)):
            layers += [nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
        self.projector = nn.Sequential(*layers)
        self.seen: tuple[ref[Tensor], Tensor] | None = None
        self.register_buffer("classifier_weight", parts.classifier_weight.detach().clone())
        self.register_buffer("classifier_bias", parts.classifier_bias.detach().clone())
        self.notes += pooling_notes(pair.student.features[-1:], (pair.teacher.pooled_maps,))

    def projected(self, maps: Tensor) -> Tensor:
        """r(f_s), (B, C, H, W) with the teacher's channels, of the student's last `maps`."""
        projected: Tensor = self.projector(pool_to(maps, self.size))
        return projected

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        maps = student.features[-1]
        projected = self.projected(maps)
        self.seen = ref(maps), projected.detach()  # nothing of the step's graph may outlive the step
        return {"feature": self.params.beta * squared_distance(projected, pool_to(teacher.pooled_maps, self.size))}

    def predict(self, student: Outputs) -> Tensor:
        maps = student.features[-1]
        # A training step asks here, too, but r's batch norms must see a batch once.
        projected = self.seen[1] if self.seen and self.seen[0]() is maps else self.projected(maps)
        return F.linear(projected.mean(dim=(2, 3)), self.classifier_weight, self.classifier_bias)

    def deployed(self) -> tuple[Tensor, ...]:
        return (*self.projector.parameters(), self.classifier_weight, self.classifier_bias)


@full_precision
def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of the squared difference of maps (B, C, H, W)."""
    return (student - teacher).square().mean()
