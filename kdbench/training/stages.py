"""Trains what methods learn from a teacher alone, side by side, and loads it into the methods of students."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from kdbench.method.interface import Composition
from kdbench.method.specs import build_part
from kdbench.models import Network
from kdbench.spec.trial import TrialSpec
from kdbench.streams import seeded
from kdbench.suite.teacher_stages import TeacherStage
from kdbench.training.builder import Builder
from kdbench.training.cohort import FrozenTeacher, Stream, train_in_lockstep
from kdbench.training.device import exact
from kdbench.training.epoch_sums import Row
from kdbench.training.fatal_errors import fatal_error
from kdbench.training.lane import Lane
from kdbench.training.segments import Position, teacher_stages

State = Mapping[str, Any]

Learnt = dict[str, Any]
"""What a stage learnt: `modules`, the state of each that it trains, and `rows`, its curves."""


@dataclass(frozen=True)
class TrainedStages:
    """How some stages ended.

    Attributes:
        learnt: of those that ended well, by their ids.
        failures: why the others failed, by their ids.
    """

    learnt: dict[str, Learnt] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def train_teacher_stages(
    stages: Sequence[TeacherStage],
    *,
    spec: TrialSpec,
    teacher: FrozenTeacher,
    builder: Builder,
    resume: Callable[[TeacherStage], State | None],
    checkpoint: Callable[[TeacherStage, State], None],
    stop: Callable[[], bool],
    epoch_done: Callable[[Position, Sequence[Lane]], None],
    graphs: bool,
) -> TrainedStages | None:
    """Train stages of one teacher in lockstep.

    The recipe, apart from the optimiser's settings that a stage gives, is the teacher's own, and so are the batches and the
    precision: what is learnt depends on the teacher `spec`, on the stage's parameters and on its seed, and on no student. Each
    stage is built as if the teacher were its own student.

    Args:
        stages: that learn from this teacher.
        spec: the trial of the teacher.
        teacher: its network.
        builder: builds networks and batches.
        resume: the last checkpoint of a stage, None where there is none.
        checkpoint: called with a stage and its state after every epoch but the last.
        stop: asked at the start of every epoch.
        epoch_done: called after every epoch.
        graphs: whether steps may be CUDA graphs.

    Returns:
        None when stopped before the end.
    """
    trained = TrainedStages()
    lanes: list[tuple[TeacherStage, Lane]] = []
    with exact(builder.device, precision=spec.recipe.precision, image_shape=builder.dataset.image_shape):
        teacher = teacher.under(spec.recipe)
        for stage in stages:
            try:
                lane = _lane(stage, spec, teacher.network, builder, checkpoint)
                if lane and (state := resume(stage)):
                    lane.restore(state)
            except Exception as problem:  # isolation: the trials that need this stage fail
                if fault := fatal_error(problem):
                    raise fault from None
                trained.failures[stage.id] = f"{type(problem).__name__}: {problem}"
            else:
                if lane:
                    lanes.append((stage, lane))
                else:
                    trained.learnt[stage.id] = {"modules": [], "rows": []}
        stream = Stream(builder.training_data(spec.recipe.augmentation), spec.recipe, spec.id)
        if not train_in_lockstep(
            [lane for _, lane in lanes], stream, teacher=teacher, evaluation={}, stop=stop, epoch_done=epoch_done, graphs=graphs
        ):
            return None
    for stage, lane in lanes:
        if lane.failure:
            trained.failures[stage.id] = lane.failure
        else:
            modules = [module.state_dict() for module in _modules(lane.method, stage)]
            trained.learnt[stage.id] = {"modules": modules, "rows": lane.rows}
    return trained


def load_teacher_stages(method: Composition, learnt: Iterable[tuple[TeacherStage, Learnt]]) -> list[Row]:
    """Load what stages learnt into a student's method; returns their curves.

    Raises:
        RuntimeError: what was learnt does not fit the method.
    """
    rows: list[Row] = []
    for stage, found in learnt:
        if modules := _modules(method, stage):
            for module, state in zip(modules, found["modules"], strict=True):
                module.load_state_dict(state)
            rows += found["rows"]
    return rows


def _modules(method: Composition, wanted: TeacherStage) -> tuple[nn.Module, ...]:
    """What a stage trains in a method; nothing where it has no epochs."""
    stages = method.parts[wanted.part.name].stages()
    return next((stage.modules for stage in stages if stage.name == wanted.stage and stage.epochs), ())


def _lane(
    stage: TeacherStage,
    spec: TrialSpec,
    network: Network,
    builder: Builder,
    checkpoint: Callable[[TeacherStage, State], None],
) -> Lane | None:
    """The stage's lane, at its start; None where it has no epochs."""
    own = builder.shapes(spec.student, spec.hooks)
    pair = builder.pair(own, own, network.teacher_parts(), spec.recipe)
    with seeded(stage.stream_seed, "adapters", stage.part.name):
        part = build_part(stage.part, pair)
    method = Composition({stage.part.name: part}).to(builder.device)
    segment = next((found for found in teacher_stages(method, spec.recipe.optimiser) if found.name == stage.name), None)
    if segment is None:
        return None
    return Lane(
        stage.label,
        seed=stage.stream_seed,
        student=None,
        method=method,
        segments=[segment],
        precision=spec.recipe.precision,
        device=builder.device,
        checkpoint=lambda state: checkpoint(stage, state),
    )
