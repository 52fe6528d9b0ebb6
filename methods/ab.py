import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from kdbench import (
    Batch,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    PairError,
    Stage,
    batch_norm_needs,
    deepest_pairs,
    full_precision,
    hint_regressor,
    kd_divergence,
    pairing_notes,
    register,
)


@register("ab")
class AB(Method):
    r"""Stage 1: beta sum_i 2^(i - n) / B sum [relu(m + r_i(a_s)) if a_t <= 0, relu(m - r_i(a_s)) if a_t > 0]^2, i = 1..n

    Stage 2: ce_weight CE(z_s, y) + kd_weight KL(softmax(z_t / T) || softmax(z_s / T)). a are the groups' pre-activations; r_i is
    convolution and batch norm, or nothing where the shapes agree. For plain cross-entropy in stage 2, as in RepDistiller, set
    ce_weight to 1 and kd_weight to 0.

    Transfers: which neurons are active (features)
    Paper: Heo et al., "Knowledge transfer via distillation of activation boundaries formed by hidden neurons", AAAI 2019,
    arXiv:1811.03233.
    Code: https://github.com/bhheo/AB_distillation; stage 2 without the factor T^2 and without cross-entropy, as there.
    Deviations: the connectors are RepDistiller's (a bias in the convolution, PyTorch's initialisation, other kernels where sizes
    differ). The teacher is in evaluation mode; the authors' code leaves it in training mode in stage 1. Where the networks differ
    in their number of groups, groups are paired from the deepest backwards. Nesterov momentum, with which the authors train in both
    stages and RepDistiller in none, is the recipe's to set: stage 1 has the recipe's optimiser, as the authors' does on CIFAR-10.
    """

    reads = ("preactivations", "logits")
    weights = ("kd_weight",)
    min_classes = 2

    class Params(MethodParams):
        stage_epochs: PositiveInt = 30
        beta: PositiveFloat = 0.003
        margin: PositiveFloat = 1.0
        ce_weight: NonNegativeFloat = 0.0
        kd_weight: NonNegativeFloat = 1.0
        temperature: PositiveFloat = 3.0

    params: Params

    def build(self, pair: Pair) -> None:
        self.ce_weight = self.params.ce_weight
        shapes = pair.student.preactivations, pair.teacher.preactivations
        if not all(shapes):
            raise PairError("it needs the pre-activations of both networks; choose a student and a teacher that give them")
        pairs = deepest_pairs(*shapes)
        self.connectors = nn.ModuleList(nn.Identity() if s == t else hint_regressor(s, t)[:2] for s, t in pairs)
        self.min_batch_size = batch_norm_needs(*(t for s, t in pairs if s != t))
        self.notes += pairing_notes(*shapes)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("boundaries", self.params.stage_epochs, self.boundaries, (self.connectors,), trains_student=True),)

    def boundaries(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """The loss of stage 1."""
        total = student.logits.new_zeros(())
        pairs = deepest_pairs(student.preactivations, teacher.preactivations)
        for i, (connector, (a_s, a_t)) in enumerate(zip(self.connectors, pairs, strict=True)):
            total = total + 2.0 ** (i + 1 - len(pairs)) * boundary_loss(connector(a_s), a_t, self.params.margin)
        return {"boundary": self.params.beta * total}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        divergence = kd_divergence(student.logits, teacher.logits, self.params.temperature) / self.params.temperature**2
        return {"divergence": self.params.kd_weight * divergence}


@full_precision
def boundary_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Squared hinge by the sign of the teacher's pre-activations (B, C, H, W), summed, over B."""
    short = F.relu(margin - student) * (teacher > 0) + F.relu(margin + student) * (teacher <= 0)
    return short.square().sum() / len(student)
