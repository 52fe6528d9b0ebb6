"""The time line of a cohort, and what a lane trains on it: stages of its methods, then the main training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from kdbench.method.interface import Batch, Composition, Losses, Stage
from kdbench.method.outputs import Outputs
from kdbench.spec.recipe import SGD, Recipe, Schedule


class Position(NamedTuple):
    """A place on the time line that all lanes of a cohort share: stages come first, then the main training."""

    phase: int
    epoch: int


STAGES, MAIN = 0, 1


@dataclass(frozen=True)
class Segment:
    """One stretch of a lane's training: a stage of a method, or the main one.

    `first` is its first epoch within the phase, `trained` what the optimiser gets.
    """

    name: str
    phase: int
    first: int
    epochs: int
    losses: Callable[[Outputs, Outputs, Batch], Losses]
    trained: tuple[nn.Module, ...]
    optimiser: SGD
    schedule: Schedule


def segments(method: Composition, student: nn.Module, recipe: Recipe) -> list[Segment]:
    """The stages that train the student, then the main training; what only the teacher's stages train is left out."""
    found = student_stages(method, student, recipe.optimiser)
    staged = {id(p) for _, stage in method.stages() for module in stage.modules for p in module.parameters()}
    rest = nn.ParameterList(p for p in method.parameters() if id(p) not in staged)
    main = Segment("main", MAIN, 0, recipe.epochs, method.losses, (student, rest), recipe.optimiser, recipe.schedule)
    return [*found, main]


def student_stages(method: Composition, student: nn.Module, optimiser: SGD) -> list[Segment]:
    """The stages that train the student, one behind the other; `optimiser` is that of stages without settings of their own."""
    found: list[Segment] = []
    for part, stage in method.stages():
        if stage.trains_student and stage.epochs:
            first = sum(segment.epochs for segment in found)
            found.append(_stage(part, stage, (student, *stage.modules), optimiser, first=first))
    return found


def teacher_stages(method: Composition, optimiser: SGD) -> list[Segment]:
    """The stages that learn from the teacher alone, each for a lane of its own; `optimiser` as for `student_stages`."""
    return [
        _stage(part, stage, stage.modules, optimiser)
        for part, stage in method.stages()
        if not stage.trains_student and stage.epochs
    ]


def _stage(part: str, stage: Stage, trained: tuple[nn.Module, ...], optimiser: SGD, *, first: int = 0) -> Segment:
    name, settings = f"{part}.{stage.name}", stage.optimiser or optimiser
    return Segment(name, STAGES, first, stage.epochs, stage.losses, trained, settings, Schedule())
