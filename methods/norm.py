from weakref import ref

import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, refuse_unclassified_maps, register
from kdbench.losses import batch_norm_needs, full_precision, pool_to

SCHEDULE = ((10, 0.1), (20, 0.5), (180, 1.0), (210, 0.5))
"""The authors' epochs of 240, each with the weight until then; 0.1 in the rest."""


@register("norm")
class NORM(Method):
    r"""ce_weight CE(z, y) + w beta sum_n mean((e_n - f_t)^2),  z = scale layernorm(W mean(f_s + contract(e)) + b),  e = expand(f_s)

    f_s is the map that the student's classifier pools, f_t the teacher's last group. expand gives `copies` times the teacher's C
    channels; each C of them are a copy e_n. It and contract are 1x1 convolutions, each with a batch norm, and belong to the network
    deployed. W and b are the student's classifier. w is 0.1, 0.5, 1, 0.5 and 0.1 in the course of the training.

    Transfers: last maps, to several copies (features)
    Paper: Liu et al., "NORM: Knowledge distillation via N-to-one representation matching", ICLR 2023.
    Code: https://github.com/OSVAI/NORM
    Deviations: w changes at the same shares of any training as in the authors' 240 epochs; on ImageNet theirs are others, of 0.9 at
    most. Maps of WRNs are read, and the student's block stands, after the last batch norm and ReLU, there before them. Their
    MobileNetV2 has no ReLU after its first and its last convolution. Where the teacher's map is larger, it is max-pooled, as there.
    Where the student's is larger, e is average-pooled; the authors' code max-pools it on ImageNet, and stops with an error on
    CIFAR. There are no golden numbers. The defaults are those of the authors' README; their script tries weights of the
    cross-entropy from 0.0625 to 0.5. A method beside this one reads the student's logits as they are without the block.
    """

    reads = ("features", "pooled_maps", "pooled")
    min_classes = 3  # of two, normed logits are the same for all images, but for their order

    class Params(MethodParams):
        ce_weight: NonNegativeFloat = 0.1
        beta: NonNegativeFloat = 1.0
        copies: PositiveInt = 8
        scale: PositiveFloat = 2.5

    params: Params

    def build(self, pair: Pair) -> None:
        refuse_unclassified_maps(student=pair.student)
        (c_s, *size_s), (c_t, *size_t) = pair.student.pooled_maps, pair.teacher.features[-1]
        self.ce_weight = self.params.ce_weight
        self.size = (min(size_s[0], size_t[0]), min(size_s[1], size_t[1]))
        self.min_batch_size = batch_norm_needs(pair.student.pooled_maps)
        width = self.params.copies * c_t
        self.expand, self.contract = projection(c_s, width), projection(width, c_s)
        self.seen: tuple[ref[Tensor], Tensor] | None = None

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        maps = student.pooled_maps
        expanded = self.expand(maps)
        self.seen = ref(maps), expanded  # for `predict`, since a batch norm must see a batch once
        copies = pool_to(expanded, self.size).reshape(len(maps), self.params.copies, -1, *self.size)
        wanted = F.adaptive_max_pool2d(teacher.features[-1], self.size)
        weight = batch.by_epoch(lambda epoch: self.weight(epoch / batch.epochs) * self.params.beta * self.params.copies)
        return {"copies": weight * squared_distance(copies, wanted[:, None])}

    def weight(self, reached: float) -> float:
        """The step of the schedule when this share of the training is done."""
        return next((weight for until, weight in SCHEDULE if 240 * reached < until), 0.1)

    def predict(self, student: Outputs) -> Tensor:
        maps, seen, self.seen = student.pooled_maps, self.seen, None  # nothing of the step's graph may outlive the step
        expanded = seen[1] if seen and seen[0]() is maps else self.expand(maps)
        return self.params.scale * normed(student.classify((maps + self.contract(expanded)).mean(dim=(2, 3))))

    def deployed(self) -> tuple[Tensor, ...]:
        return (*self.expand.parameters(), *self.contract.parameters())


def projection(c_in: int, c_out: int) -> nn.Sequential:
    """1x1 convolution and batch norm, initialised as by the authors."""
    conv = nn.Conv2d(c_in, c_out, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


@full_precision
def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of the squared difference of maps that broadcast."""
    return (student - teacher).square().mean()


@full_precision
def normed(logits: Tensor) -> Tensor:
    """(B, K), each row of mean 0 and variance 1."""
    return F.layer_norm(logits, logits.shape[1:], eps=1e-7)
