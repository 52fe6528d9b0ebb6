import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, UnitInterval, full_precision, refuse_memory, register


@register("pskd")
class PSKD(Method):
    r"""(1 - a) CE(z_s, y) + a CE(P, softmax(z_s)),  a = alpha epoch / epochs

    P is what the student itself gave for the image one epoch before: its softmax in training mode, of the image as it was augmented
    then. In the first epoch P is the label. No teacher is read.

    Transfers: its own earlier probabilities (logits)
    Paper: Kim et al., "Self-knowledge distillation with progressive refinement of targets", ICCV 2021, arXiv:2006.12000.
    Code: https://github.com/lgcnsai/PS-KD-Pytorch
    Deviations: none. As in the authors' code, epochs count from 1. They train with Nesterov momentum.
    """

    weights = ("alpha",)
    min_classes = 2
    predictions: Tensor

    class Params(MethodParams):
        alpha: UnitInterval = 0.8
        memory_limit_gib: PositiveFloat = 16.0

    params: Params

    def build(self, pair: Pair) -> None:
        (classes,) = pair.student.logits
        holding = f"the {classes} probabilities of each of {len(pair.labels)} images"
        refuse_memory(len(pair.labels) * classes, holding, limit_gib=self.params.memory_limit_gib)
        self.register_buffer("predictions", F.one_hot(pair.labels, classes).float())

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        share = self.params.alpha * (batch.epoch + 1) / batch.epochs
        self.ce_weight = 1 - share
        distance = cross_entropy(student.logits, self.predictions[batch.indices])
        self.predictions.index_copy_(0, batch.indices, student.logits.detach().to(self.predictions).softmax(1))
        return {"earlier": share * distance}


@full_precision
def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """From probabilities (B, K) to logits (B, K), mean over the batch."""
    return -(targets * logits.log_softmax(1)).sum(1).mean()
