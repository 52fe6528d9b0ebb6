from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from kdbench import SGD, Batch, Losses, Method, MethodParams, Outputs, Pair, Stage, pool_to_smaller, register


def convolutions(*widths: int, transposed: bool = False) -> nn.Sequential:
    """3x3 convolutions between successive `widths` of channels, each with its LeakyReLU(0.1) and no batch norm."""
    conv = nn.ConvTranspose2d if transposed else nn.Conv2d
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(widths):
        layers += [conv(c_in, c_out, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


@register("ft")
class FT(Method):
    r"""CE(z_s, y) + beta mean |n(translator(f_s)) - n(factor(f_t))|,  n = L2 normalisation of the flattened factor

    Stage 1, once per teacher and without labels: the paraphraser's encoder `factor` and its decoder learn under
    mean |decoder(factor(f_t)) - f_t|. f is the last group; the factor has k times the teacher's channels.

    Paper: Kim, Park and Kwak, "Paraphrasing complex network", NeurIPS 2018, arXiv:1802.04977.
    Code: https://github.com/Jangho-Kim/Factor-Transfer-pytorch
    Deviations: none where the last maps agree in size; else the larger factor is average-pooled to the smaller one's size.
    """

    reads = ("features",)

    class Params(MethodParams):
        k: PositiveFloat = 0.5
        beta: NonNegativeFloat = 500.0
        paraphraser_epochs: PositiveInt = 6
        paraphraser_lr: PositiveFloat = 0.1

    params: Params

    def build(self, pair: Pair) -> None:
        (c_s, *size_s), (c_t, *size_t) = pair.student.features[-1], pair.teacher.features[-1]
        c_factor = max(1, round(self.params.k * c_t))
        self.encoder = convolutions(c_t, c_t, c_factor, c_factor)
        self.decoder = convolutions(c_factor, c_factor, c_t, c_t, transposed=True)
        self.translator = convolutions(c_s, c_s, c_factor, c_factor)
        if size_s != size_t:
            self.notes.append(f"factors of {size_s} and {size_t} (student, teacher) are average-pooled to the smaller size")

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage(
                "paraphraser",
                self.params.paraphraser_epochs,
                self.reconstruction,
                (self.encoder, self.decoder),
                trains_student=False,
                depends_on=("k", "paraphraser_epochs", "paraphraser_lr"),
                optimiser=SGD(lr=self.params.paraphraser_lr),
            ),
        )

    def reconstruction(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """The loss of stage 1."""
        f_t = teacher.features[-1]
        return {"reconstruction": F.l1_loss(self.decoder(self.encoder(f_t)), f_t)}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        with torch.no_grad():
            factor_t = self.encoder(teacher.features[-1])
        factor_s, factor_t = pool_to_smaller(self.translator(student.features[-1]), factor_t)
        return {"factor": self.params.beta * F.l1_loss(self.normalised(factor_s), self.normalised(factor_t))}

    def normalised(self, factor: Tensor) -> Tensor:
        """(B, C * H * W), each row of unit L2 norm."""
        return F.normalize(factor.flatten(1))
