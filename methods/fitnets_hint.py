import torch.nn.functional as F
from pydantic import NonNegativeFloat

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, hint_regressor, middle, register


@register("fitnets_hint")
class FitNetsHint(Method):
    r"""CE(z_s, y) + beta mean((relu(bn(conv(f_s))) - f_t)^2),  f the middle group

    Paper: none in this form; it is what later harnesses call FitNets. The two-stage method of Romero et al. is `fitnets`.
    Code: https://github.com/HobbitLong/RepDistiller
    """

    reads = ("features",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 100.0

    params: Params

    def build(self, pair: Pair) -> None:
        self.regressor = hint_regressor(middle(pair.student.features), middle(pair.teacher.features))

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        hint = middle(teacher.features)
        guided = middle(student.features)
        return {"hint": self.params.beta * F.mse_loss(self.regressor(guided), hint)}
