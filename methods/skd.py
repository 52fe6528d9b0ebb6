import math

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, full_precision, kd_divergence, register


@register("skd")
class SKD(Method):
    r"""ce_weight CE(z_s, y) + kd_weight (q_B T^2 KL(softmax(z_t / T) || softmax(z_s / T)) + q_K mean_i sqrt(D_i' S^-1 D_i))

    D = (G_s - G_t) / K is the difference of the cosine similarities (B, B) of the images' logits. D_i are its rows, and S is their
    covariance plus `ridge` times the identity: the mean is one of Mahalanobis distances. q_B is ceil(B / 2) / B, q_K the same of K.

    Transfers: softened probabilities, similarities of logits (logits)
    Paper: Jeong et al., "Streamlined knowledge distillation", CVPR 2026.
    Code: https://github.com/HyunJunSik/StreamLined
    Deviations: the paper has neither q nor the division by K; the authors' code does. There, masks of the less sure half of images
    and classes multiply losses that are means already, so that they select nothing: q are what they come to where no two are as
    sure. Another copy there has weights 0.5 and 0.5. T is chosen per pair. Rows of D and logits that are 0 pass no gradient, where
    the authors' is not finite.
    """

    reads = ("logits",)
    weights = ("kd_weight",)
    min_classes = 2
    min_batch_size = 2

    class Params(MethodParams):
        temperature: PositiveFloat = 4.0
        ridge: PositiveFloat = 0.1
        ce_weight: NonNegativeFloat = 0.1
        kd_weight: NonNegativeFloat = 0.9

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = self.params.ce_weight

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        images, classes = (math.ceil(count / 2) / count for count in student.logits.shape)
        divergence = kd_divergence(student.logits, teacher.logits, self.params.temperature)
        distance = direction_distance(student.logits, teacher.logits, self.params.ridge)
        return {
            "instances": self.params.kd_weight * images * divergence,
            "directions": self.params.kd_weight * classes * distance,
        }


@full_precision
def direction_distance(student_logits: Tensor, teacher_logits: Tensor, ridge: float) -> Tensor:
    """mean_i sqrt(D_i' S^-1 D_i), of shape ()."""
    u_s, u_t = units(student_logits), units(teacher_logits)
    differences = (u_s @ u_s.T - u_t @ u_t.T) / student_logits.shape[1]
    centred = differences - differences.mean(0)
    covariance = centred.T @ centred / (len(centred) - 1)  # torch.cov makes the host wait, as does cholesky
    root = torch.linalg.cholesky_ex(covariance + ridge * torch.eye(len(centred), dtype=u_s.dtype, device=u_s.device)).L
    lengths: Tensor = torch.linalg.vector_norm(torch.linalg.solve_triangular(root, differences.T, upper=False), dim=0)
    return lengths.mean()


def units(logits: Tensor) -> Tensor:
    """(B, K), each row of length 1."""
    norms: Tensor = torch.linalg.vector_norm(logits, dim=1, keepdim=True)
    return logits / norms.clamp(min=1e-6) * (norms > 1e-6)
