import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, UnitInterval, batch_norm_needs, register
from kdbench.losses import full_precision


@register("byot")
class BYOT(Method):
    r"""(1 - alpha) sum_i CE(z_i, y) + sum_{i < n} (alpha T^2 CE(softmax(z_n / T), softmax(z_i / T)) + beta |m (g_i - g_n)|^2)

    z_n are the student's logits and g_n the means of its last map; g_i and z_i come from a head on each shallower group i: a
    bottleneck of three convolutions, the mean over places, and a linear layer. m is 1 where g_i or g_n is above 0. What the deepest
    group gives is a target, without gradient. No teacher is read, and the heads are not deployed.

    Transfers: its deepest group's answers and vectors (features)
    Paper: Zhang et al., "Be your own teacher: improve the performance of convolutional neural networks via self distillation",
    ICCV 2019, arXiv:1905.08094.
    Code: none by the authors; the form is that of https://github.com/luanyunteng/pytorch-be-your-own-teacher. What they published
    later, https://github.com/ArchipLab-LinfengZhang/pytorch-self-distillation-final, is another form: no vectors, other weights.
    Deviations: none from the first of these, in which the distillation is a cross-entropy and the last term a sum over the batch.
    """

    weights = ("alpha", "beta")
    min_classes = 2

    class Params(MethodParams):
        alpha: UnitInterval = 0.1
        beta: NonNegativeFloat = 1e-6
        temperature: PositiveFloat = 3.0

    params: Params

    def build(self, pair: Pair) -> None:
        *shallow, last = pair.student.features or ((),)
        if not shallow:
            raise PairError("it teaches the groups before the last, and the student has none; choose a student of several groups")
        self.ce_weight = 1 - self.params.alpha
        self.bottlenecks = nn.ModuleList(bottleneck(group, last) for group in shallow)
        self.classifiers = nn.ModuleList(nn.Linear(last[0], pair.student.logits[0]) for _ in shallow)
        self.min_batch_size = batch_norm_needs(*((c, h // kernel(h, last[1]), w // kernel(w, last[2])) for c, h, w in shallow))

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        *shallow, last = student.features
        vectors = [head(maps).mean((2, 3)) for head, maps in zip(self.bottlenecks, shallow, strict=True)]
        answers = [classifier(vector) for classifier, vector in zip(self.classifiers, vectors, strict=True)]
        labels = torch.stack([batch.cross_entropy(answer) for answer in answers]).sum()
        soft = torch.stack([self.cross_entropy(answer, student.logits.detach()) for answer in answers]).sum()
        target = last.detach().mean((2, 3))
        return {
            "labels": (1 - self.params.alpha) * labels,
            "answers": self.params.alpha * soft,
            "vectors": self.params.beta * torch.stack([distance(vector, target) for vector in vectors]).sum(),
        }

    @full_precision
    def cross_entropy(self, shallow: Tensor, deepest: Tensor) -> Tensor:
        """T^2 CE from the softmax of logits (B, K) of the deepest group, mean over the batch."""
        t = self.params.temperature
        return -(t**2) * ((deepest / t).softmax(1) * (shallow / t).log_softmax(1)).sum(1).mean()


@full_precision
def distance(vectors: Tensor, target: Tensor) -> Tensor:
    """|m (g_i - g_n)|^2 of vectors (B, D), summed over the batch."""
    return ((vectors - target).square() * ((vectors > 0) | (target > 0))).sum()


def kernel(side: int, last: int) -> int:
    """How many places of a shallow map's side make one of the last map's."""
    return max(side // last, 1)


def bottleneck(group: tuple[int, ...], last: tuple[int, ...]) -> nn.Sequential:
    """Maps (B, C_i, H_i, W_i) to about the shape of the last ones."""
    c_in, c_out = group[0], last[0]
    c_mid, size = max(c_out // 4, 1), (kernel(group[1], last[1]), kernel(group[2], last[2]))
    layers: list[nn.Module] = []
    for conv in (nn.Conv2d(c_in, c_mid, 1), nn.Conv2d(c_mid, c_mid, size, stride=size), nn.Conv2d(c_mid, c_out, 1)):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]
    return nn.Sequential(*layers)
