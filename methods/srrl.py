from typing import Literal

import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, batch_norm_needs, full_precision, register


@register("srrl")
class SRRL(Method):
    r"""CE(z_s, y) + feature_weight mean((p - p_t)^2) + logits_weight mean((W_t p + b_t - z_t)^2),  p = mean_x r(f_s)(x)

    f_s is the student's last group, p_t what the teacher's classifier reads, and W_t and b_t are that classifier, frozen. r is a
    1x1 convolution, a batch norm and a ReLU. With `form: pooled` it is p = r(p_s), as in the tables of SimKD and CTKD.

    Transfers: pooled vectors and their classification (features)
    Paper: Yang et al., "Knowledge distillation via softmax regression representation learning", ICLR 2021.
    Code: https://github.com/jingyang2017/KD_SRRL; the pooled form is that of https://github.com/DefangChen/SimKD
    Deviations: the convolution starts as torch's do and as the pooled form's does there, while the authors' weights are normal, of
    variance 2 / C_t. The defaults are the authors' for ImageNet; cls_KD has a logits_weight of 5. The authors' training loop
    stops with an error where it calls this loss; what is computed here is what the loss gives for the arguments there.
    """

    reads = ("logits", "features", "pooled")
    weights: tuple[str, ...] = ("feature_weight", "logits_weight")
    classifier_weight: Tensor
    classifier_bias: Tensor

    class Params(MethodParams):
        form: Literal["maps", "pooled"] = "maps"
        feature_weight: NonNegativeFloat = 1.0
        logits_weight: NonNegativeFloat = 1.0

    params: Params

    def build(self, pair: Pair) -> None:
        (c_t,) = pair.teacher.pooled
        c_s, *size = pair.student.features[-1] if self.params.form == "maps" else (*pair.student.pooled, 1, 1)
        self.connector = nn.Sequential(nn.Conv2d(c_s, c_t, 1, bias=False), nn.BatchNorm2d(c_t), nn.ReLU())
        self.min_batch_size = batch_norm_needs((c_s, *size))
        self.register_buffer("classifier_weight", pair.teacher_parts.classifier_weight.detach().clone())
        self.register_buffer("classifier_bias", pair.teacher_parts.classifier_bias.detach().clone())

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        maps = student.features[-1] if self.params.form == "maps" else student.pooled[:, :, None, None]
        feature, logits = self.distances(self.connector(maps), teacher.pooled, teacher.logits)
        return {"feature": self.params.feature_weight * feature, "logits": self.params.logits_weight * logits}

    @full_precision
    def distances(self, projected: Tensor, pooled: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squares: of the mean of maps (B, D, H, W) to vectors (B, D), and of what the classifier makes of it to `logits`."""
        vectors = projected.mean(dim=(2, 3))
        seen = F.linear(vectors, self.classifier_weight, self.classifier_bias)
        return (vectors - pooled).square().mean(), (seen - logits).square().mean()
