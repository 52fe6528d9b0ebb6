import math

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, kd_divergence, register, standardized_logits


@register("mlkd_noaug")
class MLKDNoAug(Method):
    r"""ce_weight CE(z_s, y) + kd_weight sum_T (q_B KD_T + q_K |P_s' P_s - P_t' P_t|^2 / K + q_B |P_s P_s' - P_t P_t'|^2 / B)

    P = softmax(z / T), one row for each image, and KD_T = T^2 KL(P_t || P_s). T goes through `temperature`, 3, 5, 2 and 6. q_B is
    ceil(B / 2) / B, q_K the same of K. With `standardized`, z of KD_T have mean 0 and deviation 1: begin T with 2, kd_weight is 9.

    Transfers: probabilities and their products, five temperatures (logits)
    Paper: Jin, Wang and Lin, "Multi-level logit distillation", CVPR 2023.
    Code: https://github.com/zju-SWJ/RLD, MLKD_NOAUG, which leaves the second view of mlkd out.
    Deviations: this is the authors' code, not the paper. Its masks of the less sure half of images and classes multiply losses that
    are means already, and select nothing: q are what they come to where no two are as sure.
    """

    reads = ("logits",)
    weights: tuple[str, ...] = ("kd_weight",)
    min_classes = 2

    class Params(MethodParams):
        temperature: PositiveFloat = 4.0
        ce_weight: NonNegativeFloat = 0.1
        kd_weight: NonNegativeFloat = 0.9
        standardized: bool = False

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = self.params.ce_weight
        if self.params.standardized and self.params.kd_weight == self.Params().kd_weight:
            self.notes.append("kd_weight is that of plain logits; the authors' standardised runs have 9")
        if self.params.standardized and pair.student.logits[0] == 2:
            self.notes.append("two standardised logits are 0.707 and -0.707, whatever the network says: only their products teach")

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return self.multi_level(student.logits, teacher.logits)

    def multi_level(self, z_s: Tensor, z_t: Tensor) -> dict[str, Tensor]:
        temperatures = (self.params.temperature, 3.0, 5.0, 2.0, 6.0)
        images, classes = (math.ceil(count / 2) / count for count in z_s.shape)
        of_classes, of_images = product_distances(*(torch.stack([z / t for t in temperatures]) for z in (z_s, z_t)))
        return {
            "instances": self.params.kd_weight * images * self.divergence(z_s, z_t, *temperatures),
            "classes": self.params.kd_weight * classes * of_classes,
            "batch": self.params.kd_weight * images * of_images,
        }

    def divergence(self, z_s: Tensor, z_t: Tensor, *temperatures: float) -> Tensor:
        """The sum of KD_T."""
        if self.params.standardized:
            z_s, z_t = standardized_logits(z_s), standardized_logits(z_t)
        return torch.stack([kd_divergence(z_s, z_t, t) for t in temperatures]).sum()


@register("mlkd")
class MLKD(MLKDNoAug):
    r"""ce_weight (CE(z_s, y) + CE(v_s, y)) + kd_weight (sum_T L_T + sum_{T = temperature, 3, 5} KD_T(v) + KD_2(z) + KD_6(z)),
    L_T = q_B KD_T(z) + q_K |P_s' P_s - P_t' P_t|^2 / K + q_B |P_s P_s' - P_t P_t'|^2 / B

    v are logits of a strong augmentation of the images of z. P = softmax(z / T) has one row for each image. KD_T(z) is
    T^2 KL(P_t || P_s). T goes through `temperature`, 3, 5, 2 and 6. q_B is ceil(B / 2) / B, q_K the same of K. With `standardized`,
    logits have mean 0 and standard deviation 1 in KD_T alone; T should then begin with 2, and kd_weight be 9.

    Transfers: multi-level probabilities of two views (logits)
    Paper: Jin, Wang and Lin, "Multi-level logit distillation", CVPR 2023.
    Code: https://github.com/Jin-Ying/Multi-Level-Logit-Distillation; standardised: sunshangquan/logit-standardization-KD
    Deviations: this is the authors' code, not their paper. Its masks of the less sure half of images and classes multiply losses
    that are means already, and select nothing: q are what they come to where no two are as sure. KD_2 and KD_6, meant for the
    strong view, are of the usual one. The authors train for 480 epochs, others for 240.
    """

    views = ("strong",)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        z_s, z_t = student.views["strong"].logits, teacher.views["strong"].logits
        strong = self.divergence(z_s, z_t, self.params.temperature, 3.0, 5.0)
        return {
            **self.multi_level(student.logits, teacher.logits),
            "strong_instances": self.params.kd_weight * (strong + self.divergence(student.logits, teacher.logits, 2.0, 6.0)),
            "strong_cross_entropy": self.params.ce_weight * batch.cross_entropy(z_s, view="strong"),
        }


@full_precision
def product_distances(student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """sum_T |P_s' P_s - P_t' P_t|^2 / K and sum_T |P_s P_s' - P_t P_t'|^2 / B, from logits (T, B, K) over their temperatures."""
    p_s, p_t = torch.softmax(student_logits, dim=2), torch.softmax(teacher_logits, dim=2)
    _, images, classes = p_s.shape
    of_classes, of_images = p_s.mT @ p_s - p_t.mT @ p_t, p_s @ p_s.mT - p_t @ p_t.mT
    return of_classes.square().sum() / classes, of_images.square().sum() / images
