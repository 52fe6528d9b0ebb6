import math
from itertools import product

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, PairError, full_precision, register

EPS = 1e-5


@register("wkd_f")
class WKDF(Method):
    r"""CE(z_s, y) + w beta sum (rho (mu_s - mu_t)^2 + (sigma_s - sigma_t)^2) / (B n^2),  w = (1 + cos(pi q)) / 2

    mu and sigma are mean and standard deviation of a channel over the places of a cell, of which n x n divide the maps r(f_s) and
    f_t. f is the last group; r is a 1x1 convolution, a batch norm and a ReLU. q is 0 until the epoch `decay_after` and then rises
    linearly to 1.

    Transfers: Gaussians of the last maps (features)
    Paper: Lv, Yang and Li, "Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation", NeurIPS 2024,
    arXiv:2412.08139.
    Code: https://github.com/JiamingLv/WKD
    Deviations: a cell of one place is refused, as it has no spread: so are the authors' 0.3, 3 and grid 4 for WRN-40-2 to
    ShuffleNetV1, whose last map is 4x4. The defaults are theirs for ResNet-32x4 to ResNet-8x4, in 240 epochs. They choose beta, rho
    and the grid n for each pair: on ImageNet beta 0.02 and rho 2 for ResNet-34 to ResNet-18. Set `decay_after` there, too: 150 is
    more than 100 epochs. For that pair the authors' is not known here; it is 30 for ResNet-50 to MobileNetV1, which has another r,
    with a bottleneck, that is not here. Epochs count from 1, so that w is 0 in the last.
    """

    reads = ("features",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 0.08
        rho: NonNegativeFloat = 4.0
        grid: PositiveInt = 1
        decay_after: NonNegativeInt = 150

    params: Params

    def build(self, pair: Pair) -> None:
        grid = self.params.grid
        for whose, (_, *size) in (("student", pair.student.features[-1]), ("teacher", pair.teacher.features[-1])):
            smallest = math.prod(min(end - start for start, end in windows(places, grid)) for places in size)
            if smallest < 2:
                fix = "larger images" if grid == 1 else "a smaller `grid`"
                raise PairError(
                    f"it compares spreads within {grid}x{grid} cells of a map, and a cell of the {whose}'s last map of "
                    f"{size[0]}x{size[1]} has one place alone; choose {fix} or another {whose}"
                )
        c_s, c_t = pair.student.features[-1][0], pair.teacher.features[-1][0]
        self.projector = nn.Sequential(nn.Conv2d(c_s, c_t, 1), nn.BatchNorm2d(c_t), nn.ReLU())

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        start, grid = self.params.decay_after, self.params.grid
        length = max(batch.epochs - start, 1)
        weight = batch.by_epoch(lambda epoch: self.params.beta * (1 + math.cos(math.pi * (max(epoch + 1 - start, 0) / length))) / 2)
        mean_s, spread_s = moments(self.projector(student.features[-1]), grid)
        mean_t, spread_t = moments(teacher.features[-1], grid)
        count = len(mean_s) * grid**2
        return {
            "mean": weight * self.params.rho * (mean_s - mean_t).square().sum() / count,
            "spread": weight * (spread_s - spread_t).square().sum() / count,
        }


def windows(places: int, cells: int) -> list[tuple[int, int]]:
    """Where each cell of a row starts and ends, as in adaptive average pooling."""
    return [(i * places // cells, -((i + 1) * places // -cells)) for i in range(cells)]


@full_precision
def moments(maps: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (B, C, grid^2) over the cells of maps (B, C, H, W)."""
    rows, columns = (windows(places, grid) for places in maps.shape[-2:])
    cells = [maps[..., top:bottom, left:right].flatten(2) for (top, bottom), (left, right) in product(rows, columns)]
    means, variances = (torch.stack(found, dim=2) for found in zip(*((cell.mean(2), cell.var(2)) for cell in cells), strict=True))
    return means, (variances + EPS).sqrt()
