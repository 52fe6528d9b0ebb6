from collections.abc import Sequence
from itertools import pairwise

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from kdbench import (
    Batch,
    Losses,
    Method,
    MethodParams,
    Outputs,
    Pair,
    PairError,
    Stage,
    full_precision,
    pool_to_smaller,
    refuse_memory,
    register,
)


@register("fsp")
class FSP(Method):
    r"""Stage 1: beta sum_i mean((G_s^i - G_t^i)^2),  G^i = sum_x f_i(x) f_{i+1}(x)^T / (H W);  stage 2: CE(z_s, y)

    f_0 is the stem, f_1.. the groups, x runs over the H x W places.

    Transfers: products of successive groups' maps (relations)
    Paper: Yim et al., "A gift from knowledge distillation: fast optimization, network minimization and transfer learning",
    CVPR 2017.
    Code: none by the authors in PyTorch; the form is that of https://github.com/HobbitLong/RepDistiller.
    Deviations: as there, the larger of two successive maps is average-pooled to the smaller, where the paper max-pools, and stage 1
    keeps its learning rate, where the paper's falls. Groups of WRNs are read after the batch norm and ReLU that follow them, in
    RepDistiller before, as `hooks: raw` does.
    """

    reads = ("stem", "features")

    class Params(MethodParams):
        stage_epochs: PositiveInt = 30
        beta: PositiveFloat = 1.0
        memory_limit_gib: PositiveFloat = 16.0

    params: Params

    def build(self, pair: Pair) -> None:
        student, teacher = ([maps[0] for maps in (shapes.stem, *shapes.features)] for shapes in (pair.student, pair.teacher))
        if student != teacher:
            raise PairError(
                f"it compares flow matrices and needs equal channels after the stem and after each group; the student has "
                f"{student}, the teacher {teacher}. Choose a pair of one width, such as resnet20 and resnet56."
            )
        entries = sum(a * b for a, b in pairwise(student))
        refuse_memory(5 * pair.largest_batch * entries, "its flow matrices", limit_gib=self.params.memory_limit_gib)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("flow", self.params.stage_epochs, self.flow, (), trains_student=True),)

    def flow(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """The loss of stage 1."""
        return {"flow": self.params.beta * flow_loss((student.stem, *student.features), (teacher.stem, *teacher.features))}

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {}


def flow_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over successive maps of the mean squared difference of flow matrices; lists of maps (B, C_i, H_i, W_i)."""
    total = student[0].new_zeros(())
    for maps_s, maps_t in zip(pairwise(student), pairwise(teacher), strict=True):
        total = total + (flow_matrix(*maps_s) - flow_matrix(*maps_t)).square().mean()
    return total


@full_precision
def flow_matrix(lower: Tensor, upper: Tensor) -> Tensor:
    """(B, C, D) mean over space of the outer products of maps (B, C, H, W) and (B, D, H', W')."""
    a, b = (maps.flatten(2) for maps in pool_to_smaller(lower, upper))
    return a @ b.mT / a.shape[2]
