"""What a step minimises."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kdbench.method.stages import Losses


@dataclass(frozen=True)
class StepLosses:
    """What a step minimises, each a tensor ().

    Attributes:
        total: the sum, weighted.
        terms: of the method or of a stage of it.
        ce: the cross-entropy, or what the terms are held against where it has no weight; None in a stage.
        ce_weight: the weight of the cross-entropy in the total.
        images: how many there are in the batch.
    """

    total: Tensor
    terms: Losses
    ce: Tensor | None
    ce_weight: float
    images: int
