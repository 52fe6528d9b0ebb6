import torch.nn.functional as F
from pydantic import NonNegativeFloat

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, hint_regressor, register


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
        try:
            self.regressor = hint_regressor(
                *(shapes.features[len(shapes.features) // 2] for shapes in (pair.student, pair.teacher))
            )
        except ValueError as reason:
            raise PairError(str(reason)) from None

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        hint = teacher.features[len(teacher.features) // 2]
        guided = student.features[len(student.features) // 2]
        return {"hint": self.params.beta * F.mse_loss(self.regressor(guided), hint)}
