from typing import TypeVar

import torch.nn.functional as F
from pydantic import NonNegativeFloat

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, batch_norm_needs, hint_regressor, register

T = TypeVar("T")


@register("fitnets_hint")
class FitNetsHint(Method):
    r"""CE(z_s, y) + beta mean((relu(bn(conv(f_s))) - f_t)^2),  f the second group

    Of a network with one group f is that one.

    Transfers: maps of the second group (features)
    Paper: none in this form; it is what later harnesses call FitNets. The two-stage method of Romero et al. is `fitnets`.
    Code: https://github.com/HobbitLong/RepDistiller, whose `--hint_layer` is 2, counted from the stem, whatever the network.
    Deviations: groups of WRNs are read after the batch norm and ReLU that follow them, there before, as `hooks: raw` does.
    """

    reads = ("features",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 100.0

    params: Params

    def build(self, pair: Pair) -> None:
        hint = second(pair.teacher.features)
        self.regressor = hint_regressor(second(pair.student.features), hint)
        self.min_batch_size = batch_norm_needs(hint)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        hint = second(teacher.features)
        guided = second(student.features)
        return {"hint": self.params.beta * F.mse_loss(self.regressor(guided), hint)}


def second(groups: tuple[T, ...]) -> T:
    """The second of a network's groups, or the only one. Takes maps or their shapes."""
    return groups[min(1, len(groups) - 1)]
