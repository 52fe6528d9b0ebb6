"""What a method may know of a teacher and a student before training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kdbench.errors import KdbenchError
from kdbench.method.outputs import Shapes

USUAL_BATCH = 64
"""Images in a batch where nobody says how many there are."""


class PairError(KdbenchError):
    """A method cannot train this pair of networks. The message says why, and what to choose."""


@dataclass(frozen=True)
class TeacherParts:
    """Copies of the teacher's parameters that some methods read.

    Attributes:
        classifier_weight: (K, D), the weight of the classifier.
        classifier_bias: (K,), its bias.
        norms: for each group, weight and bias of the last batch norm before its pre-activation, (C_i,) each. Empty if the network
            has no such norms.
    """

    classifier_weight: Tensor
    classifier_bias: Tensor
    norms: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Pair:
    """All that a method may know of a teacher and a student before training.

    Attributes:
        student: shapes of the student's hook points.
        teacher: shapes of the teacher's hook points.
        labels: (N,), int64, of all N training images. A memory bank has N rows.
        teacher_parts: the teacher's classifier and last batch norms.
        image_shape: (C, H, W) of the images.
        smallest_batch: how many images the smallest batch of the training has.
        largest_batch: how many the largest has. Both are 64 where the recipe is not known.
        others: shapes of the hook points of further teachers, whose outputs are `teacher.others`. Empty where there is one teacher.
    """

    student: Shapes
    teacher: Shapes
    labels: Tensor
    teacher_parts: TeacherParts
    image_shape: tuple[int, int, int]
    smallest_batch: int = USUAL_BATCH
    largest_batch: int = USUAL_BATCH
    others: tuple[Shapes, ...] = ()
