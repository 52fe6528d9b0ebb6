import math

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, pool_to, register, spatial_notes


@register("afd")
class AFD(Method):
    r"""CE(z_s, y) + beta sum_t mean_b sum_s a_bts mean((v_s - v_t)^2),  a_bts = softmax_s((k_bst . q_bt + e_s . e_t) / sqrt(D))

    s and t run over the groups of the student and of the teacher. v = n(mean_c f^2) is the energy of a map at its places, of unit
    L2 norm, where the student's is average-pooled to the teacher's size before n. From the means m of the channels,
    q_t = bn(linear(m_t)) and k_st = bn(linear(relu(bn(linear(m_s)))))_t have D values. The vectors e learn, too.

    Transfers: energies of layers that attention chooses (features)
    Paper: Ji, Heo and Park, "Show, attend and distill: knowledge distillation via attention-based feature matching", AAAI 2021,
    arXiv:2102.02973.
    Code: https://github.com/clovaai/attention-feature-distillation
    Deviations: maps are those of the groups; the authors take those of every residual block. The authors also
    add KD with T 4 and the weight 0.9.
    """

    reads = ("features",)
    min_batch_size = 2

    class Params(MethodParams):
        beta: NonNegativeFloat = 200.0
        dimensions: PositiveInt = 128

    params: Params

    def build(self, pair: Pair) -> None:
        groups_s, groups_t, d = pair.student.features, pair.teacher.features, self.params.dimensions
        self.keys = nn.ModuleList(nn.Sequential(nn.Linear(s[0], d), nn.BatchNorm1d(d), nn.ReLU()) for s in groups_s)
        self.queries = nn.ModuleList(nn.Sequential(nn.Linear(t[0], d), nn.BatchNorm1d(d)) for t in groups_t)
        self.bilinear = nn.Sequential(nn.Linear(d, d * len(groups_t)), nn.BatchNorm1d(d * len(groups_t)))
        self.place_s = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(groups_s), d)))
        self.place_t = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(groups_t), d)))
        spatial_notes(groups_s[:1], groups_t[:1])  # the largest maps: where even they have one place, nothing is taught

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        weights = self.attention(student.features, teacher.features)
        energies = [energy(maps) for maps in student.features]
        total = student.logits.new_zeros(())
        for t, maps in enumerate(teacher.features):
            total = total + (weights[:, t] * distances(energies, energy(maps))).sum(1).mean()
        return {"attention": self.params.beta * total}

    def attention(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        """(B, T, S) weights of the student's groups for each of the teacher's, which sum to 1 over S."""
        key, query = (
            torch.stack([embed(maps.mean(dim=(2, 3))) for embed, maps in zip(embeddings, groups, strict=True)], dim=1)
            for embeddings, groups in ((self.keys, student), (self.queries, teacher))
        )
        bilinear = self.bilinear(key.flatten(0, 1)).view(*key.shape[:2], len(teacher), -1)
        return matching(bilinear, query, self.place_s, self.place_t)


@full_precision
def matching(keys: Tensor, queries: Tensor, place_s: Tensor, place_t: Tensor) -> Tensor:
    """(B, T, S) from (B, S, T, D), (B, T, D), (S, D) and (T, D)."""
    scores = torch.einsum("bstd,btd->bts", keys, queries) + place_t @ place_s.T
    return (scores / math.sqrt(queries.shape[-1])).softmax(dim=2)


@full_precision
def energy(maps: Tensor) -> Tensor:
    """(B, 1, H, W) from maps (B, C, H, W); a norm writes no squares of all."""
    norms: Tensor = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    return norms.square() / maps.shape[1]


@full_precision
def distances(student: list[Tensor], teacher: Tensor) -> Tensor:
    """(B, S) mean squared differences between S normed energies and that of the teacher (B, 1, H, W), at its places."""
    *_, height, width = teacher.shape
    pooled = torch.cat([pool_to(energy, (height, width)) for energy in student], dim=1)
    v_s, v_t = (F.normalize(energies.flatten(2), dim=2) for energies in (pooled, teacher))
    return (v_s - v_t).square().mean(2)
