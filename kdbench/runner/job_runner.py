"""Trains the trials of a job in lockstep, as many at once as memory holds, and hands each to the recorder when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from kdbench.data import Loader
from kdbench.files import set_aside
from kdbench.method.composition import Composition
from kdbench.method.specs import setting, teacher_label
from kdbench.models.weights import read_checkpoint, write_checkpoint
from kdbench.results.layout import CHECKPOINT
from kdbench.results.store import Store
from kdbench.runner.group_trainer import GroupTrainer, Work
from kdbench.runner.job import Job
from kdbench.runner.plan import Planned, Status
from kdbench.runner.progress import EpochReport, LaneReport, Progress
from kdbench.runner.recorder import Recorder
from kdbench.runner.teachers import Teacher, Teachers
from kdbench.spec.recipe import Recipe
from kdbench.suite.code_hash import core_code
from kdbench.training.balance import imbalance
from kdbench.training.builder import Builder
from kdbench.training.cohort import train_in_lockstep
from kdbench.training.device import environment, exact
from kdbench.training.epoch_sums import Row
from kdbench.training.evaluation import TEST
from kdbench.training.lane import Lane
from kdbench.training.segments import Position, segments
from kdbench.training.stream import Stream
from kdbench.training.waiting import Waiting


@dataclass(eq=False)
class JobRunner:
    """Runs jobs on one device, one after the other.

    Attributes:
        waiting: is told whenever the host waits for the device.
        others: trials of other jobs of the run; stages of one teacher are trained together.
        ungraphed: the methods of which it was said that they run without CUDA graphs.
    """

    store: Store
    builder: Builder
    groups: GroupTrainer
    progress: Progress
    stop: Callable[[], bool]
    teachers: Teachers
    recorder: Recorder
    waiting: Waiting
    others: Sequence[Planned] = ()
    ungraphed: set[str] = field(default_factory=set)

    def run(self, job: Job) -> bool:
        """Train the trials of a job, and what their methods learn from the teacher before; False when stopped.

        Raises:
            KdbenchError: weights of a teacher that is used as it is cannot be had or do not fit.
        """
        trials, recipe = job.trials, job.trials[0].spec.recipe
        if job.adopts:
            self._adopt(trials)
            return True
        trials = self._left(trials)
        with exact(self.builder.device, precision=recipe.precision, image_shape=self.builder.dataset.image_shape):
            teachers = self.teachers.get(job.teachers, recipe)
            if teachers is None:
                trials = tuple(planned for planned in trials if planned.spec.teacher is None)
            if teachers:
                needed = (stage for planned in chain(trials, self.others) for stage in planned.stages)
                finished = self.teachers.train_stages(teachers[0], needed)
                self._record_failed_stages(chain(trials, self.others), teachers, recipe)
                if not finished:
                    return False
                trials = self._left(trials)
            students = Work[Planned](
                train=lambda group, graphs: self._train(group, teachers or [], graphs=graphs),
                ended=lambda planned: planned.spec.id in self.recorder.written,
                name=lambda planned: planned.spec.method,
                noun="students",
            )
            return self.groups.train(trials, students)

    def _left(self, trials: Iterable[Planned]) -> tuple[Planned, ...]:
        return tuple(planned for planned in trials if planned.spec.id not in self.recorder.written)

    def _record_failed_stages(self, trials: Iterable[Planned], teachers: Sequence[Teacher], recipe: Recipe) -> None:
        """Record that trials have failed by a stage: at once, else a run that is stopped leaves it to the next one, and so on."""
        if not self.teachers.failed_stages.get(teachers[0].spec.id):
            return
        alike = tuple(teacher.spec for teacher in teachers), recipe.arithmetic
        for planned in {planned.spec.id: planned for planned in self._left(trials)}.values():
            if (planned.spec.teachers, planned.spec.recipe.arithmetic) == alike:
                with self.recorder.isolated(planned, teachers):
                    self.teachers.refuse_failed_stages(planned.spec)

    def train_stages(self, job: Job) -> bool:
        """Train the stages of a job, and none of its trials; False when stopped."""
        recipe = job.trials[0].spec.recipe
        with exact(self.builder.device, precision=recipe.precision, image_shape=self.builder.dataset.image_shape):
            teachers = self.teachers.get(job.teachers, recipe)
            return not teachers or self.teachers.train_stages(teachers[0], job.learnt)

    def _adopt(self, trials: Sequence[Planned]) -> None:
        """Measure and keep teachers that are used as they are."""
        for planned in trials:
            self.builder.start(planned.spec)  # weights that cannot be had are the user's to mend and no failed trial
            with self.recorder.isolated(planned):
                self.recorder.record_pretrained(planned, self.waiting)

    def _train(self, trials: Sequence[Planned], teachers: Sequence[Teacher], *, graphs: bool) -> bool:
        """Train some trials of a job side by side, and record each when it ends."""
        lanes: list[tuple[Planned, Lane]] = []
        for planned in trials:
            with self.recorder.isolated(planned, teachers):
                method = self.builder.composition(planned.spec, teachers[0].network.teacher_parts() if teachers else None)
                rows = self.teachers.load_stages(teachers[0], planned.spec, method) if teachers else []
                lanes.append((planned, self._lane(planned, method, rows, teachers)))

        def epoch_done(now: Position, active: Sequence[Lane]) -> None:
            self.progress.epoch(EpochReport.of(now, [(planned, lane) for planned, lane in lanes if lane in active]))
            for planned, lane in lanes:
                row = lane.rows[-1] if lane.rows else {}
                if lane in active and planned.spec.id not in warned and (warning := imbalance(planned.spec, lane.method, row)):
                    warned.add(planned.spec.id)
                    self.progress.say(warning)
            for _, lane in lanes:
                if lane.graph_refused and lane.name not in self.ungraphed:
                    self.ungraphed.add(lane.name)
                    self.progress.say(f"{lane.name} runs without CUDA graphs, more slowly: {lane.graph_refused}.")
            ended = [(planned, lane) for planned, lane in lanes if lane in active and lane.position is None]
            if ended:
                assert_unchanged()
            for planned, lane in ended:
                self.recorder.ended(planned, lane, teachers, self.waiting)

        def assert_unchanged() -> None:
            for teacher in teachers:
                teacher.frozen.assert_unchanged()

        warned: set[str] = set()

        spec = trials[0].spec
        finished = train_in_lockstep(
            [lane for _, lane in lanes],
            Stream(self.builder.training_data(spec.recipe.augmentation), spec.recipe, spec.seed, self.builder.dataset.num_classes),
            teachers=[teacher.frozen for teacher in teachers],
            evaluation=self._evaluation,
            stop=self.stop,
            epoch_done=epoch_done,
            graphs=graphs,
            waiting=self.waiting,
        )
        assert_unchanged()
        return finished

    def _lane(self, planned: Planned, method: Composition, rows: list[Row], teachers: Sequence[Teacher]) -> Lane:
        """The trial's lane, at its start after the stages whose `rows` are given, or where its checkpoint stands."""
        trial, file = planned.spec, planned.folder / CHECKPOINT
        ran_on = environment(self.builder.device)
        origin = [
            core_code(),
            planned.code,
            self.builder.dataset.fingerprint,
            *([teacher.record.weights_sha256 for teacher in teachers] if trial.teacher else [None]),
            ran_on.model_dump(),
        ]

        def keep(state: Mapping[str, Any]) -> None:
            write_checkpoint(file, {**state, "origin": origin})
            self.store.write_curves(trial.id, state["rows"])

        student = self.builder.student(trial)
        lane = Lane(
            f"teacher {teacher_label(trial)}" if planned.teaches else setting(trial),
            seed=trial.seed,
            student=student,
            method=method,
            segments=segments(method, student, trial.recipe),
            precision=trial.recipe.precision,
            compiled=trial.recipe.compile,
            stacked_as=str(trial.network) if trial.recipe.stack else None,
            device=self.builder.device,
            checkpoint=keep,
        )
        lane.rows += rows
        state = read_checkpoint(file)
        if state and state["origin"] == origin:
            lane.restore(state)
        else:
            if state:
                set_aside(file, "code, environment, images or teacher differ from those it was written with; the trial starts anew")
            self.store.begin(trial.id, trial.model_dump(mode="json"), environment=ran_on.model_dump())
        if state or planned.status is Status.STARTED:
            self.progress.resumed(LaneReport.of(lane, planned))
        return lane

    @property
    def _evaluation(self) -> dict[str, Loader]:
        """What students are tested on, by the key of the error in their curves."""
        held_out = self.builder.validation_data
        return {TEST: self.builder.test_data, **({"validation_error_pct": held_out} if held_out else {})}
