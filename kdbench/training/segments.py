"""The time line of a cohort, and what a lane trains on it: stages of its methods, then the main training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from kdbench.method.batch import Batch
from kdbench.method.composition import Composition
from kdbench.method.outputs import Outputs
from kdbench.method.stages import Losses, Stage
from kdbench.spec.optimiser import AnySchedule, Optimiser, Schedule
from kdbench.spec.recipe import Recipe
from kdbench.training.optimiser import Trained


class Position(NamedTuple):
    """A place on the time line that all lanes of a cohort share: stages come first, then the main training."""

    phase: int
    epoch: int


STAGES, MAIN = 0, 1


@dataclass(frozen=True)
class Segment:
    """One stretch of a lane's training: a stage of a method, or the main one.

    Attributes:
        first: its first epoch within the phase.
        trained: what the optimiser gets.
        label_smoothing: of the cross-entropy.
        gradient_clipping: the norm to which the gradient is cut; 0 for no cut.
        moving_average: decay of the average of the weights; 0 for none.
    """

    name: str
    phase: int
    first: int
    epochs: int
    losses: Callable[[Outputs, Outputs, Batch], Losses]
    trained: tuple[Trained, ...]
    optimiser: Optimiser
    schedule: AnySchedule
    label_smoothing: float = 0.0
    gradient_clipping: float = 0.0
    moving_average: float = 0.0

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """What it trains."""
        return tuple(part.module for part in self.trained)

    def rate(self, time: float) -> float:
        """The learning rate, `time` epochs after its start."""
        return self.schedule.rate(self.optimiser.lr, time, self.epochs)


def segments(method: Composition, student: nn.Module, recipe: Recipe) -> list[Segment]:
    """The stages that train the student, then the main training; what only the teacher's stages train is left out."""
    found = student_stages(method, student, recipe.optimiser)
    staged = {id(p) for _, stage in method.stages() for module in stage.modules for p in module.parameters()}

    def own(module: nn.Module, lr_factor: float = 1.0, weight_decay: float | None = None) -> Trained:
        rest = nn.ParameterList(p for p in module.parameters() if id(p) not in staged)
        decay = recipe.method_weight_decay if weight_decay is None else weight_decay
        return Trained(rest, lr_factor * recipe.method_lr, decay, named_by=module)

    groups = [own(group.module, group.lr_factor, group.weight_decay) for group in method.parameter_groups()]
    main = Segment(
        "main",
        MAIN,
        0,
        recipe.epochs,
        method.losses,
        (Trained(student), *groups, own(method)),
        recipe.optimiser,
        recipe.schedule,
        recipe.label_smoothing,
        recipe.gradient_clipping,
        recipe.moving_average,
    )
    return [*found, main]


def student_stages(method: Composition, student: nn.Module, optimiser: Optimiser) -> list[Segment]:
    """The stages that train the student, one behind the other; `optimiser` is that of stages without settings of their own."""
    found: list[Segment] = []
    for part, stage in method.stages():
        if stage.trains_student and stage.epochs:
            first = sum(segment.epochs for segment in found)
            found.append(_stage(part, stage, (student, *stage.modules), optimiser, first=first))
    return found


def teacher_stages(method: Composition, optimiser: Optimiser) -> list[Segment]:
    """The stages that learn from the teacher alone, each for a lane of its own; `optimiser` as for `student_stages`."""
    return [
        _stage(part, stage, stage.modules, optimiser)
        for part, stage in method.stages()
        if not stage.trains_student and stage.epochs
    ]


def _stage(part: str, stage: Stage, trained: tuple[nn.Module, ...], optimiser: Optimiser, *, first: int = 0) -> Segment:
    name, settings = f"{part}.{stage.name}", stage.optimiser or optimiser
    schedule = Schedule(milestones=stage.milestones)
    return Segment(name, STAGES, first, stage.epochs, stage.losses, tuple(map(Trained, trained)), settings, schedule)
