import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, deepest_pairs, pool_to, register
from kdbench.losses import full_precision, pairing_notes


def nearest(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, C, H, W) to (B, C, *size), each cell a copy of the nearest; as matrix products, whose backward pass is deterministic."""
    if maps.shape[2:] == size:
        return maps
    places = (torch.arange(n, device=maps.device) for n in (*size, *maps.shape[2:]))
    out_rows, out_columns, rows, columns = (place[:, None] if i < 2 else place for i, place in enumerate(places))
    from_row = out_rows * len(rows) // size[0] == rows
    from_column = out_columns * len(columns) // size[1] == columns
    return from_row.to(maps.dtype) @ maps @ from_column.to(maps.dtype).T


class Fusion(nn.Module):
    """One level: takes the student's map and the fused map of the level below, gives its own fused map and what is compared."""

    def __init__(self, c_student: int, c_mid: int, shape_teacher: tuple[int, ...], deepest: bool) -> None:
        super().__init__()
        self.size = shape_teacher[1:]
        self.conv1 = nn.Sequential(nn.Conv2d(c_student, c_mid, 1, bias=False), nn.BatchNorm2d(c_mid))
        self.conv2 = nn.Sequential(nn.Conv2d(c_mid, shape_teacher[0], 3, padding=1, bias=False), nn.BatchNorm2d(shape_teacher[0]))
        self.attention = None if deepest else nn.Sequential(nn.Conv2d(2 * c_mid, 2, 1), nn.Sigmoid())
        for block in (self.conv1, self.conv2):
            nn.init.kaiming_uniform_(block.get_parameter("0.weight"), a=1)

    def forward(self, maps: Tensor, below: Tensor | None) -> tuple[Tensor, Tensor]:
        fused = self.conv1(maps)
        if self.attention is not None and below is not None:
            below = nearest(below, fused.shape[2:])
            weights = self.attention(torch.cat((fused, below), dim=1))
            fused = fused * weights[:, :1] + below * weights[:, 1:]
        fused = nearest(fused, self.size)
        return fused, self.conv2(fused)


@register("reviewkd")
class ReviewKD(Method):
    r"""CE(z_s, y) + w beta sum_i sum_l 2^-l mean((pool_l g_i - pool_l t_i)^2) / sum_l 2^-l,  w = min(epoch / warm_up_epochs, 1)

    From the pooled vector up to the shallowest group, g_i fuses the student's map of level i with the fused map of the level below
    by learned attention; t_i are the teacher's pooled vector and pre-activations. pool_0 is nothing, pool_1.. average to 4x4, 2x2
    and 1x1, where the map is larger. beta is chosen per pair, between 0.6 and 8: suites that repeat the paper set it.

    Transfers: maps of all groups, fused (features)
    Paper: Chen et al., "Distilling knowledge via knowledge review", CVPR 2021, arXiv:2104.09044.
    Code: https://github.com/dvlab-research/ReviewKD
    Deviations: the teacher's batch norms do not move; in the authors' code for CIFAR they do. WRN students are read after a group's
    activation, there before its batch norm, as `hooks: raw` does. Unequal numbers of groups are paired from the deepest. The
    warm-up counts from 0, as there. The authors' Nesterov momentum, on CIFAR-100 alone, is the recipe's to set.
    """

    reads = ("features", "preactivations", "pooled")
    min_batch_size = 2  # for the batch norms at the pooled vectors

    class Params(MethodParams):
        beta: NonNegativeFloat = 5.0
        warm_up_epochs: NonNegativeInt = 20

    params: Params

    def build(self, pair: Pair) -> None:
        if not pair.teacher.preactivations:
            raise PairError("it compares with pre-activations, and the teacher has none; choose another teacher")
        shapes, c_mid = (pair.student.features, pair.teacher.preactivations), min(512, pair.student.pooled[0])
        levels = [*deepest_pairs(*shapes), (pair.student.pooled, (*pair.teacher.pooled, 1, 1))]
        self.fusions = nn.ModuleList(Fusion(s[0], c_mid, t, deepest=i == 0) for i, (s, t) in enumerate(reversed(levels)))
        self.notes += pairing_notes(*shapes)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        epochs, beta = self.params.warm_up_epochs, self.params.beta
        weight = batch.by_epoch(lambda epoch: (min(epoch / epochs, 1.0) if epochs else 1.0) * beta)
        return {"review": weight * self.review(student, teacher)}

    def review(self, student: Outputs, teacher: Outputs) -> Tensor:
        """The unweighted loss."""
        pooled = student.pooled[..., None, None], teacher.pooled[..., None, None]
        levels = [*deepest_pairs(student.features, teacher.preactivations), pooled]
        total, fused = student.logits.new_zeros(()), None
        for fusion, (maps, target) in zip(self.fusions, reversed(levels), strict=True):
            fused, compared = fusion(maps, fused)
            total = total + hierarchical_context(compared, target)
        return total


@full_precision
def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar from maps (B, C, H, W) of equal shape; their difference is pooled."""
    gaps, weights = student - teacher, 1.0
    total = gaps.square().mean()
    for level, size in enumerate((size for size in (4, 2, 1) if size < student.shape[2]), start=1):
        weights += 2.0**-level
        total = total + 2.0**-level * pool_to(gaps, (size, size)).square().mean()
    return total / weights
