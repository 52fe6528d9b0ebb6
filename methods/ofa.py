from itertools import pairwise

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, batch_norm_needs, full_precision, register
from kdbench.method.token_head import TokenHead


@register("ofa")
class OFA(Method):
    r"""CE(z_s, y) + kd_weight L(z_s) + ofa_weight sum_i L(head_i(f_i)),  L(z) = -mean_b sum_k ((p_t + [y])^eps - [y])_k log p_k

    p = softmax(z / T), and [y] is 1 for the label and 0 for the other classes. head_i makes logits of group i of n: by
    n - i blocks of depthwise and 1x1 convolutions, each of which halves the map and doubles the channels, or a 1x1 convolution for
    the last group; then the mean over places and a linear layer. Where all groups are of one shape, as in ViTs and Mixers, patches
    are merged down to about 7x7 instead, and max(n - i, 1) transformer blocks follow.

    At eps = 1, L is the cross-entropy from p_t. The authors take eps 1.5 for DeiT-T to ResNet-18.

    Transfers: probabilities, to every stage (logits)
    Paper: Hao et al., "One-for-all: bridge the gap between heterogeneous architectures in knowledge distillation", NeurIPS 2023,
    arXiv:2310.19444.
    Code: https://github.com/Hao840/OFAKD
    Deviations: as in the authors' code the power acts on every class, and there is no factor T^2. There, heads of ViTs read the
    class token, and those of Swin merge patches; here heads of ViTs average the patches, and Swin's are convolutions. Biases of
    the heads' linear layers start as torch's do, there at 0. The recipes of the paper (AdamW, RandAugment, mixup) are to be chosen
    in the suite.
    """

    reads = ("logits", "features")
    weights = ("kd_weight", "ofa_weight")
    min_classes = 2

    class Params(MethodParams):
        kd_weight: NonNegativeFloat = 1.0
        ofa_weight: NonNegativeFloat = 1.0
        eps: PositiveFloat = 1.0
        temperature: PositiveFloat = 1.0

    params: Params

    def build(self, pair: Pair) -> None:
        (classes,), groups = pair.student.logits, pair.student.features
        width = max(shapes.pooled[0] or shapes.features[-1][0] for shapes in (pair.student, pair.teacher))
        if len(groups) > 1 and len(set(groups)) == 1:
            heads: list[nn.Module] = [
                TokenHead(group, blocks=max(len(groups) - i, 1), classes=classes) for i, group in enumerate(groups, 1)
            ]
        else:
            heads = [convolutional_head(group[0], width, len(groups) - i, classes) for i, group in enumerate(groups, 1)]
            halved = [(c, *(-(side // -(2 ** (len(groups) - i))) for side in size)) for i, (c, *size) in enumerate(groups[:-1], 1)]
            self.min_batch_size = batch_norm_needs(*halved)
        self.heads = nn.ModuleList(heads)
        for module in self.heads.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        settings = teacher.logits, batch.labels, self.params.eps, self.params.temperature
        stages = [ofa_loss(head(maps), *settings) for head, maps in zip(self.heads, student.features, strict=True)]
        return {
            "logits": self.params.kd_weight * ofa_loss(student.logits, *settings),
            "stages": self.params.ofa_weight * torch.stack(stages).sum(),
        }


def convolutional_head(channels: int, width: int, halvings: int, classes: int) -> nn.Sequential:
    """Logits (B, K) of maps (B, C, H, W)."""
    widths = [channels * 2**i for i in range(halvings)] + [width]
    layers: list[nn.Module] = [] if halvings else [nn.Conv2d(channels, width, 1)]
    for c_in, c_out in pairwise(widths):
        for c, stride in ((c_in, 2), (c_out, 1)):
            layers += [nn.Conv2d(c_in, c_in, 3, stride, padding=1, groups=c_in, bias=False), nn.Conv2d(c_in, c, 1, bias=False)]
            layers += [nn.BatchNorm2d(c), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


@full_precision
def ofa_loss(logits: Tensor, teacher: Tensor, labels: Tensor, eps: float, temperature: float) -> Tensor:
    """L of logits (B, K)."""
    own = (labels[:, None] == torch.arange(logits.shape[1], device=labels.device)).to(logits)
    target = ((teacher / temperature).softmax(1) + own) ** eps - own
    return -(target * (logits / temperature).log_softmax(1)).sum(1).mean()
