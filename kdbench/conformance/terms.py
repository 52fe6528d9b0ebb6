"""What a method's losses are for given outputs: the terms of every segment of a training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from kdbench.conformance.hook_points import synthetic_outputs
from kdbench.conformance.setting import RECIPE
from kdbench.method.batch import Batch
from kdbench.method.composition import Composition, checked
from kdbench.method.interface import Method
from kdbench.method.outputs import Outputs
from kdbench.method.pair import Pair
from kdbench.method.stages import Losses
from kdbench.streams import generator, seeded
from kdbench.training.segments import Segment, segments, teacher_stages


def synthetic_pair(
    cls: type[Method], pair: Pair, student: Callable[..., Tensor], teacher: Callable[..., Tensor], batch: Batch
) -> tuple[Outputs, Outputs]:
    """Outputs of a student and of its teacher, or teachers, for a batch and its views, of tensors that two functions give."""
    size, views = len(batch.labels), {name: len(view.images) for name, view in batch.views.items()}
    return (
        synthetic_outputs(pair.student, student, size=size, views=views),
        synthetic_outputs(pair.teacher, teacher, size=size, views=views, others=int(cls.several_teachers)),
    )


def evaluate_segments(
    method: Composition, student: Outputs, teacher: Outputs, batch: Batch, *, draw: int = 0
) -> list[tuple[Segment, Losses]]:
    """Every segment of a training with its terms: stages of the teacher alone, then of the student too, then the main one.

    `draw` numbers what a method draws at random.

    Raises:
        TypeError: a term is no tensor of shape ().
    """
    alone, with_student = teacher_stages(method, RECIPE.optimiser), segments(method, nn.Module(), RECIPE)
    with seeded(draw, "default"):
        return [
            (segment, checked(segment.losses(first, teacher, replace(batch, generator=generator(draw, segment.name)))))
            for found, first in ((alone, teacher), (with_student, student))
            for segment in found
        ]


def loss_terms(method: Composition, student: Outputs, teacher: Outputs, batch: Batch, *, draw: int = 0) -> dict[str, Tensor]:
    """The terms of all segments, named `segment.term`."""
    found = evaluate_segments(method, student, teacher, batch, draw=draw)
    return {f"{segment.name}.{name}": value for segment, losses in found for name, value in losses.items()}


def values(method: Composition, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, float]:
    """The terms of all segments, and the sum of what the method predicts where that is not the student's logits."""
    method = copy.deepcopy(method)  # which moves its banks
    found = loss_terms(method, student, teacher, batch)
    prediction = method.predict(student)
    if prediction is not student.logits:
        found["prediction"] = prediction.sum()
    return {name: value.item() for name, value in found.items()}
