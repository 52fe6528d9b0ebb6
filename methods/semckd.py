import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, batch_norm_needs, full_precision, pool_to_smaller, register


@register("semckd")
class SemCKD(Method):
    r"""CE(z_s, y) + beta sum_ij mean_b a_bij mean((r_ij(f_s,i) - f_t,j)^2) / S,  a_bi = softmax_j(q_i(G_s,i)_b . k_j(G_t,j)_b)

    f_s,i are the student's S groups, f_t,j the teacher's, and b runs over the batch. G (B, B) holds the inner products of a group's
    maps. q_i and k_j turn its rows into unit vectors: linear, ReLU, linear. r_ij are convolutions of 1x1, 3x3 and 1x1. The larger
    of two maps is average-pooled to the size of the smaller, the student's before r.

    Transfers: maps of layers that attention chooses (features)
    Paper: Chen et al., "Cross-layer distillation with semantic calibration", AAAI 2021, arXiv:2012.03236.
    Code: https://github.com/DefangChen/SemCKD
    Deviations: a row of G has as many places as the largest batch has images; those of smaller batches end with zeros, where the
    authors leave such batches out. The authors add KD with the weight 1: `semckd+kd`. The default is theirs for CIFAR-100; on
    ImageNet it is 50. As in their code, the student learns through its G, too. Their code also builds layers that it never uses.
    """

    reads = ("features",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 400.0

    params: Params

    def build(self, pair: Pair) -> None:
        self.images = pair.largest_batch
        self.queries = nn.ModuleList(embedding(self.images) for _ in pair.student.features)
        self.keys = nn.ModuleList(embedding(self.images) for _ in pair.teacher.features)
        pairs = [(s, t) for s in pair.student.features for t in pair.teacher.features]
        self.regressors = nn.ModuleList(regressor(s[0], t[0]) for s, t in pairs)
        self.min_batch_size = batch_norm_needs(*((t[0], min(s[1], t[1]), min(s[2], t[2])) for s, t in pairs))

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        weights = self.attention(student.features, teacher.features).flatten(1).unbind(1)
        total = student.logits.new_zeros(())
        pairs = [(f_s, f_t) for f_s in student.features for f_t in teacher.features]
        for weight, regress, maps in zip(weights, self.regressors, pairs, strict=True):
            f_s, f_t = pool_to_smaller(*maps)
            total = total + distance(regress(f_s), f_t, weight)
        return {"calibration": self.params.beta * total / len(student.features)}

    def attention(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        """(B, S, T) weights of the teacher's groups for each of the student's, which sum to 1 over T."""
        queries, keys = (
            torch.stack([embed(products(maps, self.images)) for embed, maps in zip(embeddings, groups, strict=True)], dim=1)
            for embeddings, groups in ((self.queries, student), (self.keys, teacher))
        )
        return similarity(queries, keys).softmax(dim=2)


def embedding(images: int) -> nn.Sequential:
    """Of rows with so many places."""
    width = max(images // 4, 1)
    return nn.Sequential(nn.Linear(images, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))


def regressor(c_student: int, c_teacher: int) -> nn.Sequential:
    """From the student's channels to the teacher's."""
    width = 2 * c_teacher
    return nn.Sequential(
        *(nn.Conv2d(c_student, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Conv2d(width, c_teacher, 1, bias=False),
    )


@full_precision
def products(maps: Tensor, places: int) -> Tensor:
    """(B, places) inner products of maps (B, C, H, W) with those of all B images, and zeros."""
    flat = maps.flatten(1)
    return F.pad(flat @ flat.T, (0, places - len(flat)))


@full_precision
def similarity(queries: Tensor, keys: Tensor) -> Tensor:
    """(B, S, T) cosines of vectors (B, S, D) and (B, T, D)."""
    return F.normalize(queries, dim=2) @ F.normalize(keys, dim=2).mT


@full_precision
def distance(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """Mean squared difference of maps (B, C, H, W), each image's times its weight (B,)."""
    return ((student - teacher).square().mean(dim=(1, 2, 3)) * weights).mean()
