import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, UnitInterval, kd_divergence, register


@register("dgkd")
class DGKD(Method):
    r"""(1 - alpha) CE(z_s, y) + alpha T^2 / K sum_i d_i KL(softmax(z_i / T) || softmax(z_s / T))

    i runs over the teacher and its assistants, which are the pair's other teachers. d_i is 0 for `dropped` of them, drawn anew for
    each batch, and 1 for the others. K is the number of classes.

    Transfers: softened class probabilities of several teachers (logits)
    Paper: Son et al., "Densely guided knowledge distillation using multiple teacher assistants", ICCV 2021, arXiv:2009.08825.
    Code: https://github.com/wonchulSon/DGKD
    Deviations: none from the code, whose KL is a mean over classes too, hence 1 / K, and whose alpha of 1 leaves no cross-entropy.
    With one teacher nothing is dropped.
    """

    reads = ("logits",)
    several_teachers = True
    weights = ("alpha",)
    min_classes = 2

    class Params(MethodParams):
        temperature: PositiveFloat = 5.0
        alpha: UnitInterval = 1.0
        dropped: NonNegativeInt = 1

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = 1 - self.params.alpha
        self.dropped = self.params.dropped if pair.others else 0
        if not pair.others:
            self.notes.append("there is one teacher, and it is never dropped")
        elif self.dropped > len(pair.others):
            raise PairError(f"dropped: {self.dropped} of {1 + len(pair.others)} teachers leave none to learn from; give less")

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        teachers = (teacher, *teacher.others)
        kept = batch.random(torch.randperm, len(teachers)) >= self.dropped
        return {"divergence": self.params.alpha * self.divergence(student, teachers, kept)}

    def divergence(self, student: Outputs, teachers: tuple[Outputs, ...], kept: Tensor) -> Tensor:
        """T^2 / K times the sum of the divergences from those teachers that are `kept`, (N,)."""
        each = [kd_divergence(student.logits, teacher.logits, self.params.temperature) for teacher in teachers]
        return (torch.stack(each) * kept).sum() / student.logits.shape[1]
