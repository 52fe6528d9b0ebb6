"""What a step minimises."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.method.batch import Batch
from kdbench.method.composition import Composition, checked
from kdbench.method.outputs import Outputs
from kdbench.method.stages import Losses
from kdbench.training.segments import MAIN, Segment


@dataclass(frozen=True)
class StepLosses:
    """What a step minimises, each a tensor ().

    Attributes:
        total: the sum, weighted.
        terms: of the method or of a stage of it.
        ce: the cross-entropy, or what the terms are held against where it has no weight; None in a stage.
        ce_weight: the weight of the cross-entropy in the total.
        wrong: how many images the method predicts wrong; None in a stage.
        images: how many there are in the batch.
    """

    total: Tensor
    terms: Losses
    ce: Tensor | None
    ce_weight: float
    wrong: Tensor | None
    images: int


def step_losses(segment: Segment, method: Composition, outputs: Outputs, teacher: Outputs, batch: Batch) -> StepLosses:
    """The losses of a segment's step, given the student's outputs and the teacher's."""
    terms = dict(checked(segment.losses(outputs, teacher, batch)))
    total = sum(terms.values(), torch.zeros((), device=batch.labels.device))
    if segment.phase != MAIN:
        return StepLosses(total, terms, None, 0.0, None, len(batch.labels))
    weight = method.ce_weight  # the losses may have set it
    logits = method.predict(outputs)
    wrong = (logits.detach().argmax(1) != batch.labels).sum()
    # Of no weight it is not trained on, and the terms are held against it all the same.
    ce = (weight or 1.0) * batch.cross_entropy(logits)
    return StepLosses(total + ce if weight else total, terms, ce, weight, wrong, len(batch.labels))
