"""A method of your own: one file. Run it with `kdbench run examples/suite.yaml --plugin examples/cosine.py`."""

import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, register


@register("cosine")
class Cosine(Method):
    r"""CE(z_s, y) + beta mean_b (1 - cos(W p_s, p_t)),  p the pooled features, W learnt

    Paper: none; an example.
    """

    reads = ("pooled",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 10.0

    params: Params

    def build(self, pair: Pair) -> None:
        self.embed = nn.Linear(pair.student.pooled[0], pair.teacher.pooled[0], bias=False)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        distance = 1 - F.cosine_similarity(self.embed(student.pooled), teacher.pooled)
        return {"distance": self.params.beta * distance.mean()}
