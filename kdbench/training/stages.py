"""Trains what methods learn from a teacher alone, side by side, and loads it into the methods of students."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from torch import nn

from kdbench.method.interface import Composition
from kdbench.method.specs import build_part
from kdbench.models import Network
from kdbench.models.weights import read_checkpoint, write_checkpoint
from kdbench.spec.trial import TrialSpec
from kdbench.streams import seeded
from kdbench.suite.teacher_stages import TeacherStage, checkpoint_of
from kdbench.training.bench import Bench
from kdbench.training.cohort import FrozenTeacher, Stream, train_in_lockstep
from kdbench.training.device import environment, exact
from kdbench.training.faults import machine_fault
from kdbench.training.lane import Lane, Row
from kdbench.training.segments import Position, teacher_stages


def train_teacher_stages(
    stages: Mapping[Path, TeacherStage],
    *,
    spec: TrialSpec,
    teacher: FrozenTeacher,
    bench: Bench,
    stop: Callable[[], bool],
    epoch_done: Callable[[Position, Sequence[Lane]], None],
    graphs: bool,
) -> dict[str, str] | None:
    """Train stages of one teacher in lockstep, and write each to its file.

    The recipe, apart from the optimiser's settings that a stage gives, is the teacher's own, and so are the batches and the
    precision: what is learnt depends on the teacher `spec`, on the stage's parameters and on its seed, and on no student. Each
    stage is built as if the teacher were its own student.

    Args:
        stages: by the file that each is to be written to.

    Returns:
        Why stages failed, by their ids; None when stopped before the end.
    """
    failures: dict[str, str] = {}
    lanes: dict[Path, Lane] = {}
    with exact(bench.device, precision=spec.recipe.precision, image_shape=bench.dataset.image_shape):
        teacher = teacher.under(spec.recipe)
        for file, stage in stages.items():
            try:
                lane = _lane(stage, spec, teacher.network, bench, checkpoint_of(file))
            except Exception as problem:  # isolation: the trials that need this stage fail
                if fault := machine_fault(problem):
                    raise fault from None
                failures[stage.id] = f"{type(problem).__name__}: {problem}"
            else:
                lanes |= {file: lane} if lane else {}
        stream = Stream(bench.training_data(spec.recipe.augmentation), spec.recipe, spec.id)
        if not train_in_lockstep(
            list(lanes.values()), stream, teacher=teacher, evaluation={}, stop=stop, epoch_done=epoch_done, graphs=graphs
        ):
            return None
    for file, lane in lanes.items():
        if lane.failure:
            failures[stages[file].id] = lane.failure
        else:
            modules = [module.state_dict() for module in _modules(lane.method, stages[file])]
            write_checkpoint(file, {"modules": modules, "rows": lane.rows})
        checkpoint_of(file).unlink(missing_ok=True)
    return failures


def load_teacher_stages(method: Composition, stages: Iterable[tuple[Path, TeacherStage]], failures: Mapping[str, str]) -> list[Row]:
    """Load what was learnt into a student's method; returns the curves of the stages.

    Args:
        method: of the student.
        stages: those that it needs, each with its file.
        failures: why stages failed, by their ids.

    Raises:
        RuntimeError: a stage failed, or what it learnt does not fit the method.
    """
    rows: list[Row] = []
    for file, stage in stages:
        if stage.id in failures:
            raise RuntimeError(f"stage {stage.name} failed: {failures[stage.id]}")
        if modules := _modules(method, stage):
            kept = read_checkpoint(file)
            assert kept, f"{file} was there when the run began"
            for module, weights in zip(modules, kept["modules"], strict=True):
                module.load_state_dict(weights)
            rows += kept["rows"]
    return rows


def _modules(method: Composition, wanted: TeacherStage) -> tuple[nn.Module, ...]:
    """What a stage trains in a method; nothing where it is left out."""
    stages = method.parts[wanted.part.name].stages()
    return next((stage.modules for stage in stages if stage.name == wanted.stage and stage.epochs), ())


def _lane(stage: TeacherStage, spec: TrialSpec, network: Network, bench: Bench, checkpoint: Path) -> Lane | None:
    """The stage's lane, at its start or where its checkpoint stands; None where it has no epochs."""
    own = bench.shapes(spec.student, spec.hooks)
    pair = bench.pair(own, own, network.teacher_parts(), spec.recipe)
    with seeded(stage.draw, "adapters", stage.part.name):
        part = build_part(stage.part, pair)
    method = Composition({stage.part.name: part}).to(bench.device)
    segment = next((found for found in teacher_stages(method, spec.recipe.optimiser) if found.name == stage.name), None)
    if segment is None:
        return None
    origin = environment(bench.device).model_dump()
    lane = Lane(
        stage.label,
        seed=stage.draw,
        student=None,
        method=method,
        segments=[segment],
        precision=spec.recipe.precision,
        device=bench.device,
        checkpoint=lambda state: write_checkpoint(checkpoint, {**state, "origin": origin}),
    )
    state = read_checkpoint(checkpoint)
    if state and state["origin"] == origin:
        lane.restore(state)
    return lane
