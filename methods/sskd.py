import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from kdbench import SGD, Batch, Losses, Method, MethodParams, Outputs, Pair, Stage, UnitInterval, register
from kdbench.losses import full_precision, kd_divergence, sample_divergences


@register("sskd")
class SSKD(Method):
    r"""ce_weight CE(z_s, y) + kd_weight KD_4(z_s, z_t) + rotation_weight KD_4(z_s', z_t') + ssp_weight KD_0.5(A_s, A_t)

    KD_T is T^2 KL(softmax(z_t / T) || softmax(z_s / T)), mean over rows; ' marks images turned by 90, 180 and 270 degrees. A are
    cosine similarities (3 B, B) of turned images with the others, between vectors that a head of two linear layers makes of the
    pooled ones. Of the rows in which the teacher does not find the image that was turned, the best `ssp_kept` are kept.

    Stage 1, from the teacher alone: its head learns under CE(A_t, the image that was turned), without a temperature. The student's
    head learns with the student.

    Transfers: probabilities and similarities of turned images (relations)
    Paper: Xu et al., "Knowledge distillation meets self-supervision", ECCV 2020, arXiv:2006.07114.
    Code: https://github.com/xuguodong03/SSKD
    Deviations: turned images are a pass of their own, with batch statistics of their own; the authors' code forwards all four
    together. Rows in which the image has the same rank are kept by its similarity; there, which ones are dropped is undefined.
    The authors train without flips, which a recipe decides here.
    """

    reads = ("logits", "pooled")
    weights = ("kd_weight", "rotation_weight", "ssp_weight")
    views = ("rotations",)
    min_classes = 2
    min_batch_size = 2
    teacher_stages = {"ssp": ("ssp_epochs", "ssp_lr")}

    class Params(MethodParams):
        ce_weight: NonNegativeFloat = 0.1
        kd_weight: NonNegativeFloat = 0.9
        rotation_weight: NonNegativeFloat = 2.7
        ssp_weight: NonNegativeFloat = 10.0
        temperature: PositiveFloat = 4.0
        ssp_temperature: PositiveFloat = 0.5
        ssp_kept: UnitInterval = 0.75
        ssp_epochs: PositiveInt = 60
        ssp_lr: PositiveFloat = 0.05

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = self.params.ce_weight
        self.head_teacher, self.head_student = head(*pair.teacher.pooled), head(*pair.student.pooled)

    def stages(self) -> tuple[Stage, ...]:
        epochs, settings = self.params.ssp_epochs, SGD(lr=self.params.ssp_lr)
        drops = tuple(sorted({epochs // 2, 3 * epochs // 4} - {0}))
        return (Stage("ssp", epochs, self.ssp, (self.head_teacher,), trains_student=False, optimiser=settings, milestones=drops),)

    def ssp(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """The loss of stage 1."""
        found = similarities(self.head_teacher(teacher.views["rotations"].pooled), self.head_teacher(teacher.pooled))
        return {"ssp": F.cross_entropy(found, turned(found))}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        t, of_student, of_teacher = self.params.temperature, student.views["rotations"], teacher.views["rotations"]
        a_s = similarities(self.head_student(of_student.pooled), self.head_student(student.pooled))
        a_t = similarities(self.head_teacher(of_teacher.pooled), self.head_teacher(teacher.pooled))
        keep, t_ssp = kept(a_t, turned(a_t), self.params.ssp_kept), self.params.ssp_temperature
        ssp = t_ssp**2 * (keep * sample_divergences(a_s / t_ssp, a_t / t_ssp)).sum() / keep.sum().clamp(min=1)
        return {
            "divergence": self.params.kd_weight * kd_divergence(student.logits, teacher.logits, t),
            "rotations": self.params.rotation_weight * kd_divergence(of_student.logits, of_teacher.logits, t),
            "ssp": self.params.ssp_weight * ssp,
        }


def head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


@full_precision
def similarities(turned: Tensor, plain: Tensor) -> Tensor:
    """Cosines (3 B, B) of vectors (3 B, D) and (B, D)."""
    return F.normalize(turned) @ F.normalize(plain).T


def turned(similarities: Tensor) -> Tensor:
    """(3 B,): which image each row is a turned one of."""
    return torch.arange(similarities.shape[1], device=similarities.device).repeat_interleave(3)


def kept(similarities: Tensor, own: Tensor, share: float) -> Tensor:
    """(N,): of similarities (N, B), the rows with `own` (N,) in front, and this share of the others, the best ranks first."""
    to_own = similarities.gather(1, own[:, None])
    rank = (similarities > to_own).sum(1)
    order = to_own.squeeze(1).argsort(descending=True, stable=True)
    order = order[rank[order].argsort(stable=True)]
    wrong = (rank > 0).sum()
    count = len(rank) - wrong + (share * wrong.double()).floor()
    return torch.empty_like(rank).scatter_(0, order, torch.arange(len(rank), device=rank.device)) < count
