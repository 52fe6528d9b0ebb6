import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt

from kdbench import (
    Batch,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    Stage,
    UnitInterval,
    batch_norm_needs,
    hint_regressor,
    kd_divergence,
    middle,
    register,
)


@register("fitnets")
class FitNets(Method):
    r"""Stage 1: mean((relu(bn(conv(f_s))) - f_t)^2), f the middle group; stage 2: knowledge distillation

    Transfers: middle maps, then softened probabilities (features)
    Paper: Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, arXiv:1412.6550.
    Code: https://github.com/adri-romsor/FitNets
    Deviations: the networks are not maxout; the regressor is RepDistiller's (batch norm and ReLU after the convolution), and its
    loss a mean where the paper has half a sum. Stage 1 is as long as RepDistiller's first stages. Stage 2 is `kd` with its usual
    weights; the authors add to the full cross-entropy, without T^2, 4 times the one from the teacher at T 3, and anneal the 4 to
    1. Stage 1 trains the student up to the middle group, because no gradient reaches further.
    """

    reads = ("features", "logits")
    weights = ("alpha",)
    min_classes = 2

    class Params(MethodParams):
        hint_epochs: PositiveInt = 30
        temperature: PositiveFloat = 4.0
        alpha: UnitInterval = 0.9

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = 1 - self.params.alpha
        hint = middle(pair.teacher.features)
        self.regressor = hint_regressor(middle(pair.student.features), hint)
        self.min_batch_size = batch_norm_needs(hint)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("hint", self.params.hint_epochs, self.hint, (self.regressor,), trains_student=True),)

    def hint(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """The loss of stage 1."""
        hint = middle(teacher.features)
        guided = middle(student.features)
        return {"hint": F.mse_loss(self.regressor(guided), hint)}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        divergence = kd_divergence(student.logits, teacher.logits, self.params.temperature)
        return {"divergence": self.params.alpha * divergence}
