import math

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, UnitInterval, register
from kdbench.losses import full_precision, refuse_memory


class Bank(nn.Module):
    """A moving unit vector per sample of the training set, `vectors` (N, D), and the contrast of other vectors with them."""

    vectors: Tensor
    log_normaliser: Tensor

    def __init__(self, samples: int, dimensions: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(dimensions / 3)
        self.register_buffer("vectors", torch.empty(samples, dimensions).uniform_(-bound, bound))
        self.register_buffer("log_normaliser", torch.tensor(math.inf))  # log Z; the first batch sets it

    def contrast(self, anchors: Tensor, own: Tensor, index: Tensor, draws: Tensor, k: int, tau: float, momentum: float) -> Tensor:
        """L of `anchors` (B, D) of samples `index` (B,), `draws` (B, N) counting their K negatives; then `own` enter the bank."""
        vectors, n = self.vectors.clone(), len(self.vectors)  # backward needs them as they were
        scores = anchors @ vectors.T / tau  # of all N, with counts: cheaper than K per anchor, and deterministic
        positives = (anchors * vectors[index]).sum(1) / tau
        with torch.no_grad():  # in log space, since e^(1 / tau) may exceed all numbers
            total = torch.logaddexp(positives.logsumexp(0), (scores + draws.log()).logsumexp((0, 1)))
            first = total + math.log(n / (len(anchors) * (k + 1)))
            self.log_normaliser.copy_(torch.where(self.log_normaliser.isinf(), first, self.log_normaliser))
            self.vectors.index_copy_(0, index, F.normalize(momentum * vectors[index] + (1 - momentum) * own))
        shift = self.log_normaliser + math.log(k / n + 1e-7)
        negatives = draws * (F.logsigmoid(shift - scores) - math.log1p(1e-7 * n / k))
        return -(F.logsigmoid(positives - shift).sum() + negatives.sum()) / len(anchors)


@register("crd")
class CRD(Method):
    r"""CE(z_s, y) + beta (L(v_s, M_t) + L(v_t, M_s)),  L(v, M) = -mean_b [log h(v_b, M_b) + sum_{n in N_b} log(1 - h(v_b, M_n))]

    h(v, m) = e / (e + K / N), e = exp(v . m / tau) / Z. v embeds the pooled vector by a linear layer that learns, to unit L2 norm;
    M holds a moving average of each of N samples' v; N_b are K samples of other classes than b's; the first batch sets Z.

    Transfers: embeddings, in contrast to negatives (relations)
    Paper: Tian, Krishnan and Isola, "Contrastive representation distillation", ICLR 2020, arXiv:1910.10699.
    Code: https://github.com/HobbitLong/RepDistiller
    Deviations: negatives are drawn with replacement; the authors' loader draws without where K samples of other classes exist.
    """

    reads = ("pooled",)
    by_class: Tensor
    spans: Tensor

    class Params(MethodParams):
        beta: NonNegativeFloat = 0.8
        dimensions: int = Field(128, ge=2)  # of one dimension, unit vectors are 1 or -1
        negatives: PositiveInt = 16384
        temperature: PositiveFloat = 0.07
        momentum: UnitInterval = 0.5
        memory_limit_gib: PositiveFloat = 16.0

    params: Params

    def build(self, pair: Pair) -> None:
        samples, dimensions = len(pair.labels), self.params.dimensions
        held = samples * (4 * dimensions + 8 * pair.largest_batch)  # two banks, each twice in a step, and eight matrices of B x N
        holding = f"its banks of {samples} samples and their scores in a batch of {pair.largest_batch}"
        refuse_memory(held, holding, limit_gib=self.params.memory_limit_gib)
        self.embed_student = nn.Linear(pair.student.pooled[0], dimensions)
        self.embed_teacher = nn.Linear(pair.teacher.pooled[0], dimensions)
        self.bank_student, self.bank_teacher = Bank(samples, dimensions), Bank(samples, dimensions)
        sizes = torch.bincount(pair.labels, minlength=pair.student.logits[0])
        if sizes.count_nonzero() < 2:
            raise PairError("its negatives are of other classes, and all training images are of one; choose another method")
        self.register_buffer("by_class", pair.labels.argsort(stable=True), persistent=False)
        self.register_buffer("spans", torch.stack((sizes.cumsum(0) - sizes, sizes), dim=1), persistent=False)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"contrast": self.params.beta * self.contrast(student.pooled, teacher.pooled, batch.indices, self.draw(batch))}

    def draw(self, batch: Batch) -> Tensor:
        """(B, K) samples of other classes than the batch's; the same ones on every device."""
        start, size = self.spans[batch.labels].T[..., None]
        uniform = batch.random_integers(len(start), self.params.negatives)
        position = uniform * (len(self.by_class) - size) >> 31  # among the other classes' samples, which surround the own class's
        return self.by_class[position + size * (position >= start)]

    @full_precision
    def contrast(self, student: Tensor, teacher: Tensor, index: Tensor, negatives: Tensor) -> Tensor:
        """The unweighted loss of pooled vectors (B, D) of the samples `index` (B,), which then enter the banks."""
        v_s, v_t = F.normalize(self.embed_student(student)), F.normalize(self.embed_teacher(teacher))
        draws = v_s.new_zeros(len(index), len(self.bank_student.vectors))
        draws.scatter_add_(1, negatives, torch.ones_like(negatives, dtype=draws.dtype))
        settings = index, draws, negatives.shape[1], self.params.temperature, self.params.momentum
        return self.bank_teacher.contrast(v_s, v_t, *settings) + self.bank_student.contrast(v_t, v_s, *settings)
