from typing import Literal

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
    batch_norm_needs,
    factor_convolutions,
    full_precision,
    pool_to_smaller,
    pooling_notes,
    register,
    spatial_notes,
)


@register("ft")
class FT(Method):
    r"""CE(z_s, y) + beta mean |n(translator(f_s)) - n(factor(f_t))|,  n = L2 normalisation of the flattened factor

    Stage 1, from the teacher alone and without labels: the paraphraser's encoder `factor` and its decoder learn under
    mean |decoder(factor(f_t)) - f_t|. f is the last group; the factor has k times the teacher's channels.

    The defaults are the authors'. `reconstruction` (mse), `batch_norm` (in the translator or in both), `paraphraser_epochs`,
    `paraphraser_lr` and `beta` give the forms that other codebases call FT.

    Transfers: factors of the last maps (features)
    Paper: Kim, Park and Kwak, "Paraphrasing complex network: network compression via factor transfer", NeurIPS 2018,
    arXiv:1802.04977.
    Code: https://github.com/Jangho-Kim/Factor-Transfer-pytorch
    Deviations: none where the last maps agree in size; else the larger factor is average-pooled to the smaller one's size.
    """

    reads = ("features",)
    teacher_stages = {"paraphraser": ("k", "paraphraser_epochs", "paraphraser_lr", "reconstruction", "batch_norm")}

    class Params(MethodParams):
        k: PositiveFloat = 0.5
        beta: NonNegativeFloat = 500.0
        paraphraser_epochs: PositiveInt = 6
        paraphraser_lr: PositiveFloat = 0.1
        reconstruction: Literal["l1", "mse"] = "l1"
        batch_norm: Literal["none", "translator", "both"] = "none"

    params: Params

    def build(self, pair: Pair) -> None:
        c_s, c_t = pair.student.features[-1][0], pair.teacher.features[-1][0]
        c_factor = max(1, round(self.params.k * c_t))
        norms = self.params.batch_norm
        self.encoder = factor_convolutions(c_t, c_t, c_factor, c_factor, norm=norms == "both")
        self.decoder = factor_convolutions(c_factor, c_factor, c_t, c_t, transposed=True, norm=norms == "both")
        self.translator = factor_convolutions(c_s, c_s, c_factor, c_factor, norm=norms != "none")
        last = pair.student.features[-1:], pair.teacher.features[-1:]
        if norms != "none":
            self.min_batch_size = batch_norm_needs(*last[0], *last[1])
        self.notes += pooling_notes(*last)
        if c_factor == 1:  # a factor of one number has the norm 1
            self.notes += spatial_notes(*last)

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
        distance = {"l1": F.l1_loss, "mse": F.mse_loss}[self.params.reconstruction]
        return {"reconstruction": distance(self.decoder(self.encoder(f_t)), f_t)}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        with torch.no_grad():
            factor_t = self.encoder(teacher.features[-1])
        factor_s, factor_t = pool_to_smaller(self.translator(student.features[-1]), factor_t)
        return {"factor": self.params.beta * F.l1_loss(self.normalised(factor_s), self.normalised(factor_t))}

    @full_precision
    def normalised(self, factor: Tensor) -> Tensor:
        """(B, C * H * W), each row of unit L2 norm."""
        return F.normalize(factor.flatten(1))
