"""Trains what methods learn from a teacher alone, side by side, and loads it into the methods of students."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from kdbench.method.composition import Composition
from kdbench.method.interface import METHODS
from kdbench.method.specs import build_part
from kdbench.method.stages import Survey
from kdbench.models import Network
from kdbench.spec.trial import TrialSpec
from kdbench.streams import seeded
from kdbench.suite.teacher_stages import TeacherStage
from kdbench.training.builder import Builder
from kdbench.training.cohort import train_in_lockstep
from kdbench.training.device import exact
from kdbench.training.epoch_sums import Row
from kdbench.training.fatal_errors import fatal_error
from kdbench.training.frozen_teacher import FrozenTeacher
from kdbench.training.lane import Lane
from kdbench.training.segments import Position, teacher_stages
from kdbench.training.stream import Stream
from kdbench.training.surveys import survey_together
from kdbench.training.waiting import Waiting

State = Mapping[str, Any]

Learnt = dict[str, Any]
"""What a stage learnt: `modules`, the state of each that it trains, and `rows`, its curves."""


@dataclass(frozen=True)
class TrainedStages:
    """How some stages ended.

    Attributes:
        learnt: of those that ended well, by their ids.
        failures: why others failed, by their ids.
        stopped: whether there are others still, which have not come to their end.
    """

    learnt: dict[str, Learnt] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


def train_teacher_stages(
    stages: Sequence[TeacherStage],
    *,
    spec: TrialSpec,
    teacher: FrozenTeacher,
    builder: Builder,
    resume: Callable[[TeacherStage], State | None],
    checkpoint: Callable[[TeacherStage, State], None],
    stop: Callable[[], bool],
    resumed: Callable[[TeacherStage, Lane], None],
    epoch_done: Callable[[Position, Sequence[tuple[TeacherStage, Lane]]], None],
    graphs: bool,
    waiting: Waiting,
) -> TrainedStages:
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
        resumed: called where a stage goes on from its checkpoint.
        epoch_done: called after every epoch, with the stages that were trained in it.
        graphs: whether steps may be CUDA graphs.
        waiting: is told whenever the host waits for the device.
    """
    lanes: list[tuple[TeacherStage, Lane]] = []
    with exact(builder.device, precision=spec.recipe.precision, image_shape=builder.dataset.image_shape):
        teacher = teacher.under(spec.recipe)
        trained = _surveyed(stages, spec, teacher, builder, waiting)
        for stage in stages:
            if stage.id in trained.learnt or stage.id in trained.failures:
                continue
            try:
                lane = _lane(stage, spec, teacher.network, builder, checkpoint)
                if lane and (state := resume(stage)):
                    lane.restore(state)
                    resumed(stage, lane)
            except Exception as problem:  # isolation: the trials that need this stage fail
                if fault := fatal_error(problem):
                    raise fault from None
                trained.failures[stage.id] = f"{type(problem).__name__}: {problem}"
            else:
                if lane:
                    lanes.append((stage, lane))
                else:
                    trained.learnt[stage.id] = {"modules": [], "rows": []}
        data = builder.training_data(spec.recipe.augmentation)
        stream = Stream(data, spec.recipe, spec.stream_seed, builder.dataset.num_classes)
        finished = train_in_lockstep(
            [lane for _, lane in lanes],
            stream,
            teachers=[teacher],
            evaluation={},
            stop=stop,
            epoch_done=lambda now, active: epoch_done(now, [(stage, lane) for stage, lane in lanes if lane in active]),
            graphs=graphs,
            waiting=waiting,
        )
    for stage, lane in lanes:
        if lane.failure:
            trained.failures[stage.id] = lane.failure_with_advice
        elif lane.position is None:
            modules = [module.state_dict() for module in _modules(lane.method, stage)]
            trained.learnt[stage.id] = {"modules": modules, "rows": lane.rows}
    return replace(trained, stopped=not finished)


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
    """What a stage trains in a method, or a survey fills; nothing where a stage has no epochs."""
    part = method.parts[wanted.part.name]
    if wanted.stage in part.teacher_surveys:
        return tuple(survey.module for survey in part.surveys() if survey.name == wanted.stage)
    return next((stage.modules for stage in part.stages() if stage.name == wanted.stage and stage.epochs), ())


def _surveyed(
    stages: Sequence[TeacherStage], spec: TrialSpec, teacher: FrozenTeacher, builder: Builder, waiting: Waiting
) -> TrainedStages:
    """The surveys among the stages, done in one pass; the others are in neither mapping."""
    trained = TrainedStages()
    found: list[tuple[TeacherStage, Survey]] = []
    for stage in stages:
        if stage.stage not in METHODS.get(stage.part.name).teacher_surveys:
            continue
        try:
            method = _method(stage, spec, teacher.network, builder)
            found += [(stage, survey) for _, survey in method.surveys() if survey.name == stage.stage]
        except Exception as problem:  # isolation, as where stages are trained
            if fault := fatal_error(problem):
                raise fault from None
            trained.failures[stage.id] = f"{type(problem).__name__}: {problem}"
    if found:
        surveys = [survey for _, survey in found]
        with waiting.for_device(stage.label for stage, _ in found):
            failures = survey_together(surveys, waiting.items(builder.surveyed_data.plain_batches()), teacher)
        for (stage, survey), failure in zip(found, failures, strict=True):
            if failure:
                trained.failures[stage.id] = failure
            else:
                trained.learnt[stage.id] = {"modules": [survey.module.state_dict()], "rows": []}
    return trained


def _method(stage: TeacherStage, spec: TrialSpec, network: Network, builder: Builder) -> Composition:
    """The stage's method, built as if the teacher were its own student."""
    own = builder.shapes(*spec.network)
    pair = builder.pair(own, [own], network.teacher_parts(), spec.recipe)
    with seeded(stage.stream_seed, "adapters", stage.part.name):
        part = build_part(stage.part, pair)
    return Composition({stage.part.name: part}).to(builder.device)


def _lane(
    stage: TeacherStage,
    spec: TrialSpec,
    network: Network,
    builder: Builder,
    checkpoint: Callable[[TeacherStage, State], None],
) -> Lane | None:
    """The stage's lane, at its start; None where it has no epochs."""
    method = _method(stage, spec, network, builder)
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
