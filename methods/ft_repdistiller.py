import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from kdbench import (
    SGD,
    Batch,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    Stage,
    factor_convolutions,
    full_precision,
    pool_to_smaller,
    pooling_notes,
    register,
    spatial_notes,
)


@register("ft_repdistiller")
class FTRepDistiller(Method):
    r"""CE(z_s, y) + beta mean |q(translator(f_s)) - q(factor(f_t))|,  q(F) = vec(mean_c F^2) / ||vec(mean_c F^2)||_2

    Stage 1, from the teacher alone and without labels: the paraphraser's encoder `factor` and its decoder learn under
    mean (decoder(factor(f_t)) - f_t)^2. f is the last group; the factor has k times the teacher's channels.

    Transfers: attention maps of FT's factors (features)
    Paper: none in this form; it is what RepDistiller and the tables made with it call FT. It compares attention maps of the
    factors, so that its results are not those of the method of Kim, Park and Kwak, which is `ft`.
    Code: https://github.com/HobbitLong/RepDistiller
    Deviations: groups of WRNs are read after the batch norm and ReLU that follow them, there before, as `hooks: raw` does. Of
    `ft` it differs in both losses, the translator's batch norm, the paraphraser's 30 epochs at 0.01, and beta. Of a student whose
    last maps are 0 the gradient at the translator is of the order of 1e8, as there.
    """

    reads = ("features",)
    teacher_stages = {"paraphraser": ("k", "paraphraser_epochs", "paraphraser_lr")}

    class Params(MethodParams):
        k: PositiveFloat = 0.5
        beta: NonNegativeFloat = 200.0
        paraphraser_epochs: PositiveInt = 30
        paraphraser_lr: PositiveFloat = 0.01

    params: Params

    def build(self, pair: Pair) -> None:
        c_s, c_t = pair.student.features[-1][0], pair.teacher.features[-1][0]
        c_factor = max(1, int(self.params.k * c_t))
        self.encoder = factor_convolutions(c_t, c_t, c_factor, c_factor)
        self.decoder = factor_convolutions(c_factor, c_factor, c_t, c_t, transposed=True)
        self.translator = factor_convolutions(c_s, c_s, c_factor, c_factor, norm=True)
        last = pair.student.features[-1:], pair.teacher.features[-1:]
        self.notes += pooling_notes(*last) + spatial_notes(*last)

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage(
                "paraphraser",
                self.params.paraphraser_epochs,
                self.reconstruction,
                (self.encoder, self.decoder),
                trains_student=False,
                optimiser=SGD(lr=self.params.paraphraser_lr),
            ),
        )

    def reconstruction(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """The loss of stage 1."""
        f_t = teacher.features[-1]
        return {"reconstruction": F.mse_loss(self.decoder(self.encoder(f_t)), f_t)}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        with torch.no_grad():
            factor_t = self.encoder(teacher.features[-1])
        factor_s, factor_t = pool_to_smaller(self.translator(student.features[-1]), factor_t)
        return {"factor": self.params.beta * F.l1_loss(self.attention(factor_s), self.attention(factor_t))}

    @full_precision
    def attention(self, factor: Tensor) -> Tensor:
        """(B, H * W), each row of unit L2 norm."""
        return F.normalize(factor.square().mean(1).flatten(1))
