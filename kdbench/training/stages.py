"""What methods learn from the teacher alone: trained once per teacher and kept beside it, whatever student asks first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from kdbench.code import core_code, method_code
from kdbench.method import Composition, Method, Stage
from kdbench.models import Network
from kdbench.recipe import Schedule
from kdbench.streams import seeded
from kdbench.training.bench import Bench
from kdbench.training.cohort import FrozenTeacher, Stream, train_in_lockstep
from kdbench.training.device import environment, exact
from kdbench.training.faults import machine_fault
from kdbench.training.lane import Lane, Row
from kdbench.training.segments import STAGES, Position, Segment
from kdbench.trial import MethodSpec, TrialSpec, build_part, digest
from kdbench.weights import read_checkpoint, write_checkpoint


@dataclass(frozen=True)
class Lesson:
    """One stage of one method on one teacher; `key` is the hash of all that it depends on."""

    part: MethodSpec
    stage: str
    key: str

    @property
    def name(self) -> str:
        """For logs and curves, such as `ft.paraphraser`."""
        return f"{self.part.name}.{self.stage}"


def lessons(trial: TrialSpec, method: Composition, *, teacher: FrozenTeacher) -> list[Lesson]:
    """The stages of a trial's methods that read the teacher alone."""
    specs = {spec.name: spec for spec in trial.methods}
    found = []
    for part, stage in method.stages():
        if not stage.trains_student and stage.epochs:
            learnt_from = {name: specs[part].params[name] for name in stage.depends_on}
            key = digest([teacher.sha256, core_code(), method_code([specs[part]]), part, stage.name, learnt_from])
            found.append(Lesson(specs[part], stage.name, key))
    return found


def teach(
    wanted: Iterable[Lesson],
    *,
    spec: TrialSpec,
    teacher: FrozenTeacher,
    bench: Bench,
    folder: Path,
    lanes: int,
    stop: Callable[[], bool],
    epoch_done: Callable[[Position, Sequence[Lane]], None],
    graphs: bool,
) -> dict[str, Mapping[str, Any]] | None:
    """Train the lessons that `folder` lacks, in lockstep, and return all of them.

    The recipe, apart from the optimiser's settings that the stage gives, is the teacher's own, and so are the streams and the
    precision: what is learnt depends on the teacher `spec` and on no student. Each stage is built as if the teacher were its own
    student.

    Returns:
        By key: `modules`, a list of state dicts, `rows`, the curves, and `failure`; None when stopped before the end.
    """
    unique = {lesson.key: lesson for lesson in wanted}
    known: dict[str, Mapping[str, Any]] = {key: state for key in unique if (state := read_checkpoint(folder / f"{key}.pt"))}
    missing = [key for key in unique if key not in known]
    if not missing:
        return known
    stream = Stream(bench.training_data(spec.recipe.augmentation), spec.recipe, spec.id)
    precision = spec.recipe.precision
    with exact(bench.device, precision=precision, image_shape=bench.dataset.image_shape):
        teacher = teacher.under(spec.recipe)
        for first in range(0, len(missing), lanes):
            learners: dict[str, Lane] = {}
            for key in missing[first : first + lanes]:
                try:
                    learners[key] = _learner(unique[key], spec, teacher.network, bench, folder / f"{key}.checkpoint.pt")
                except Exception as problem:  # isolation: the trials that want this lesson fail
                    if fault := machine_fault(problem):
                        raise fault from None
                    known[key] = {"modules": [], "rows": [], "failure": f"{type(problem).__name__}: {problem}"}
            if not train_in_lockstep(
                list(learners.values()), stream, teacher=teacher, evaluation={}, stop=stop, epoch_done=epoch_done, graphs=graphs
            ):
                return None
            for key, lane in learners.items():
                state = {
                    "modules": [m.state_dict() for m in _modules(lane.method, unique[key])],
                    "rows": lane.rows,
                    "failure": lane.failure,
                }
                if not lane.failure:
                    write_checkpoint(folder / f"{key}.pt", state)
                (folder / f"{key}.checkpoint.pt").unlink(missing_ok=True)
                known[key] = state
    return known


def recall(lane_method: Composition, learnt: Iterable[Lesson], known: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Load what was learnt into a lane's method; returns the curves of its lessons.

    Raises:
        RuntimeError: a lesson failed, or what it learnt does not fit the lane.
    """
    rows: list[Row] = []
    for lesson in learnt:
        state = known[lesson.key]
        if state["failure"]:
            raise RuntimeError(f"stage {lesson.name} failed: {state['failure']}")
        for module, weights in zip(_modules(lane_method, lesson), state["modules"], strict=True):
            module.load_state_dict(weights)
        rows += state["rows"]
    return rows


def _modules(method: Composition, lesson: Lesson) -> tuple[nn.Module, ...]:
    return _stage(method.parts[lesson.part.name], lesson.stage).modules


def _stage(part: Method, name: str) -> Stage:
    return next(stage for stage in part.stages() if stage.name == name)


def _learner(lesson: Lesson, spec: TrialSpec, network: Network, bench: Bench, checkpoint: Path) -> Lane:
    """The lesson's lane, at its start or where its checkpoint stands."""
    own = bench.shapes(spec.student, spec.hooks)
    pair = bench.pair(own, own, network.teacher_parts(), spec.recipe)
    with seeded(spec.id, "adapters", lesson.part.name):
        part = build_part(lesson.part, pair)
    method = Composition({lesson.part.name: part}).to(bench.device)
    stage = _stage(part, lesson.stage)
    optimiser = stage.optimiser or spec.recipe.optimiser
    segment = Segment(lesson.name, STAGES, 0, stage.epochs, stage.losses, stage.modules, optimiser, Schedule())
    origin = environment(bench.device).model_dump()
    lane = Lane(
        lesson.name,
        seed=spec.id,
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
