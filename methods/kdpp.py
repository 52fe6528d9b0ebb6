import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from kdbench import Batch, Losses, Method, MethodParams, Outputs, Pair, Survey, full_precision, kd_divergence, register


class ClassMeans(nn.Module):
    """Means of the teacher's pooled vectors: `means` (K, D), of each class. 0 for a class without images."""

    means: Tensor
    counts: Tensor

    def __init__(self, classes: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, dimensions))
        self.register_buffer("counts", torch.zeros(classes, 1))

    def see(self, teacher: Outputs, labels: Tensor) -> None:
        """Add the vectors of some images."""
        of_class = (torch.arange(len(self.means), device=labels.device)[:, None] == labels).to(self.means)
        self.means += of_class @ teacher.pooled.to(self.means)
        self.counts += of_class.sum(1, keepdim=True)

    def finish(self) -> None:
        """Turn sums into means."""
        self.means /= self.counts.clamp(min=1)


@register("kdpp")
class KDPP(Method):
    r"""CE(z_s, y) + w kd_weight T^2 KL(q_t || q_s) + nd_weight mean_b (1 - <s, e_y> / max(|s|, |t|)),  q = softmax(z / T)

    w = min(epoch / warm_up_epochs, 1). s and t are pooled vectors, and e_y is the direction of the mean of t over the training
    images of the label's class, not augmented. Where s is the longer of the two the last term is 1 - cos(s, e_y), and elsewhere
    1 - <s, e_y> / |t|, so that s grows.

    Where the vectors differ in width, s is W dropout(bn(s)), with a linear layer W that learns.

    Transfers: norm and direction of pooled vectors (features)
    Paper: Wang et al., "Improving knowledge distillation via regularizing feature norm and direction", ECCV 2024, arXiv:2305.17007.
    Code: https://github.com/WangYZ1608/Knowledge-Distillation-via-ND
    Deviations: the authors round the class means to four decimals in the files that they ship. The weights are those of
    ResNet-56 to ResNet-20; they are chosen per pair. As in their code the epochs of the warm-up count from 0. It trains with
    Nesterov momentum, a learning rate of 0.1 and batches of 256 on two GPUs, all of which a recipe decides here.
    """

    reads = ("logits", "pooled")
    weights = ("kd_weight", "nd_weight")
    min_classes = 2
    teacher_surveys = {"class_means": ()}

    class Params(MethodParams):
        nd_weight: NonNegativeFloat = 2.0
        kd_weight: NonNegativeFloat = 1.0
        temperature: PositiveFloat = 4.0
        warm_up_epochs: NonNegativeInt = 20

    params: Params

    def build(self, pair: Pair) -> None:
        (d_s,), (d_t,) = pair.student.pooled, pair.teacher.pooled
        self.class_means = ClassMeans(pair.teacher.logits[0], d_t)
        self.embed: nn.Module = nn.Identity()
        if d_s != d_t:
            self.min_batch_size = 2
            linear = nn.Linear(d_s, d_t)
            nn.init.zeros_(linear.bias)
            self.embed = nn.Sequential(nn.BatchNorm1d(d_s), nn.Dropout(0.5), linear)

    def surveys(self) -> tuple[Survey, ...]:
        return (Survey("class_means", self.class_means, self.class_means.see, self.class_means.finish),)

    def kd_weight(self, epoch: int) -> float:
        """The weight of KD in an epoch, counted from 0."""
        return (min(epoch / epochs, 1.0) if (epochs := self.params.warm_up_epochs) else 1.0) * self.params.kd_weight

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        kd_weight = batch.by_epoch(self.kd_weight)
        divergence = kd_divergence(student.logits, teacher.logits, self.params.temperature)
        directions = F.normalize(self.class_means.means)[batch.labels]
        distance = norm_and_direction(self.embed(student.pooled), teacher.pooled, directions)
        return {"divergence": kd_weight * divergence, "direction": self.params.nd_weight * distance}


@full_precision
def norm_and_direction(student: Tensor, teacher: Tensor, directions: Tensor) -> Tensor:
    """The last term of vectors (B, D) and unit vectors (B, D)."""
    longer = torch.maximum(student.norm(dim=1), teacher.norm(dim=1))
    return (1 - (student * directions).sum(1) / longer.clamp(min=1e-6)).mean()
