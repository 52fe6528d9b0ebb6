from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, register


@register("cc")
class CC(Method):
    r"""CE(z_s, y) + beta mean_i (delta_i . delta_{i+1}),  delta_i = |W_s p_s^i - W_t p_t^i|

    p are pooled vectors; i runs over the batch. Both embeddings W learn.

    Transfers: embedding differences of neighbouring images (relations)
    Paper: Peng et al., "Correlation congruence for knowledge distillation", ICCV 2019, arXiv:1904.01802.
    Code: none published; the form is that of https://github.com/HobbitLong/RepDistiller, sent by the authors.
    Deviations: that form is not the paper's, which compares kernel matrices and adds instance congruence.
    """

    reads = ("pooled",)
    min_batch_size = 2

    class Params(MethodParams):
        beta: NonNegativeFloat = 0.02
        dimensions: PositiveInt = 128

    params: Params

    def build(self, pair: Pair) -> None:
        self.embed_student = nn.Linear(pair.student.pooled[0], self.params.dimensions)
        self.embed_teacher = nn.Linear(pair.teacher.pooled[0], self.params.dimensions)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        e_s, e_t = self.embed_student(student.pooled), self.embed_teacher(teacher.pooled)
        return {"correlation": self.params.beta * congruence(e_s, e_t)}


@full_precision
def congruence(student: Tensor, teacher: Tensor) -> Tensor:
    """Scalar from embeddings (B, D), B at least 2."""
    delta = (student - teacher).abs()
    return (delta[:-1] * delta[1:]).sum(1).mean()
