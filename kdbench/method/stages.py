"""What a method does before the main training, and which of its parameters learn in their own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from kdbench.method.batch import Batch
from kdbench.method.outputs import Outputs
from kdbench.spec.optimiser import Optimiser

Losses = Mapping[str, Tensor]
"""Scalar terms of a loss by name, already weighted. The engine adds `ce_weight` times the cross-entropy, and logs each term."""


@dataclass(frozen=True)
class Stage:
    """A training before the main one.

    What a stage trains is frozen afterwards, except the student. A stage with `trains_student=False` learns from the teacher alone.
    Its method declares it in `teacher_stages`. It is trained before any student, once for each student seed, or once for all seeds
    if the suite says `stages: per-teacher`. It is kept beside the teacher, for every student and method that needs the same. Two
    such stages are trained side by side, so that neither sees what the other has learnt.

    Attributes:
        name: the name that logs show.
        epochs: how many epochs it lasts. With 0 it is left out, and what it would train stays as it was built.
        losses: a function `(student, teacher, batch) -> Losses`. A stage of the teacher alone gets the teacher's outputs for both.
        modules: the modules that it trains. Of a stage of the teacher alone nothing else is kept, no buffer elsewhere.
        trains_student: whether it trains the student, too.
        optimiser: its settings. None means the recipe's, at its first learning rate.
        milestones: epochs at whose start the learning rate is divided by ten. Without them it stays the same.
    """

    name: str
    epochs: int
    losses: Callable[[Outputs, Outputs, Batch], Losses]
    modules: tuple[nn.Module, ...]
    trains_student: bool
    optimiser: Optimiser | None = None
    milestones: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"stage {self.name} has {self.epochs} epochs. Give 0 or more.")


@dataclass(frozen=True)
class Survey:
    """One pass of the teacher over the training set before any training, without gradients: class means, for example.

    The images are as they are in a test: each once, in order, not augmented. What is found stays in the buffers of `module`. It is
    kept beside the teacher, for every student and method that needs the same. Its method declares it in `teacher_surveys`.

    Attributes:
        name: the name that logs show.
        module: holds the buffers that are filled. Nothing of it is trained.
        see: a function `(teacher, labels) -> None`, called with the teacher's outputs for the next images and their labels (B,).
        finish: called after the last images.
    """

    name: str
    module: nn.Module
    see: Callable[[Outputs, Tensor], None]
    finish: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of a method that learn with other settings than the recipe's.

    Attributes:
        module: holds them.
        lr_factor: what the recipe's learning rate is multiplied by.
        weight_decay: in place of the recipe's; None for the recipe's.
    """

    module: nn.Module
    lr_factor: float = 1.0
    weight_decay: float | None = None
