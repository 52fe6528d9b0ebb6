"""The teachers of a run, trained before and kept by the store, and what methods learn from them before any student."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kdbench.errors import first_line
from kdbench.method.composition import Composition
from kdbench.method.specs import teacher_label
from kdbench.models import Network
from kdbench.models.weights import WEIGHTS, read_checkpoint, read_weights, write_checkpoint
from kdbench.results.store import Store
from kdbench.runner.group_trainer import GroupTrainer, Work
from kdbench.runner.progress import EpochReport, LaneReport, Progress
from kdbench.spec.recipe import Recipe
from kdbench.spec.record import Record
from kdbench.spec.trial import TrialSpec
from kdbench.suite.teacher_stages import TeacherStage, teacher_stages
from kdbench.training.arithmetic import memory_format
from kdbench.training.builder import Builder
from kdbench.training.device import environment
from kdbench.training.epoch_sums import Row
from kdbench.training.evaluation import Evaluation, evaluate, inference_images_per_s, repeats
from kdbench.training.fatal_errors import fatal_error
from kdbench.training.frozen_teacher import FrozenTeacher
from kdbench.training.stages import load_teacher_stages, train_teacher_stages
from kdbench.training.waiting import Waiting


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained teacher on the device.

    Attributes:
        spec: the trial that trained it, or adopted its weights.
        frozen: what students see.
        network: the same as it was trained.
        record: of its trial.
        evaluation: how it does on the test images, in the arithmetic of the students.
        images_per_s: of inference.
        notes: sentences for the log and the records of its students.
    """

    spec: TrialSpec
    frozen: FrozenTeacher
    network: Network
    record: Record
    evaluation: Evaluation
    images_per_s: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Teachers:
    """Finds teachers among the `records`, and puts them on the device of `builder`."""

    store: Store
    records: Mapping[str, Record]
    builder: Builder
    progress: Progress
    groups: GroupTrainer
    stop: Callable[[], bool]
    waiting: Waiting
    loaded: dict[tuple[str, str], Teacher | None] = field(default_factory=dict)
    """The teachers of the last cohort, by their trials and the arithmetic: the next seed has the same ones."""
    failed_stages: dict[str, dict[str, str]] = field(default_factory=dict)
    """By the trial of each teacher whose stages were trained: why some failed, by their ids."""

    def get(self, specs: Sequence[TrialSpec], recipe: Recipe) -> list[Teacher] | None:
        """The teachers in the arithmetic of `recipe`; None where one has failed, or where nothing can be learnt from it."""
        wanted = {(spec.id, recipe.arithmetic): spec for spec in specs}
        for key in self.loaded.keys() - wanted.keys():
            del self.loaded[key]
        for key, spec in wanted.items():
            if key not in self.loaded:
                self.loaded[key] = self._load(spec, recipe)
        found = [self.loaded[key] for key in wanted]
        return None if None in found else [teacher for teacher in found if teacher]

    def _load(self, spec: TrialSpec, recipe: Recipe) -> Teacher | None:
        record, label = self.records.get(spec.id), teacher_label(spec)
        weights = teacher_weights(self.store, record)
        if record is None or weights is None:
            if record is None:
                self.progress.say(f"the teacher {label} was not trained: its students are left for another run.")
            else:
                self.progress.say(f"the teacher {label} has failed: its students are left for another run.")
            return None
        try:
            with self.waiting.for_device([f"teacher {label}"]):
                teacher = self._evaluated(spec, recipe, record, weights)
        except Exception as problem:  # isolation: a network may raise in the students' arithmetic only
            if fault := fatal_error(problem):
                raise fault from None
            self.progress.say(
                f"nothing can be learnt from the teacher {label}: {first_line(problem)}. Once that is mended, remove its "
                f"folder, trials/{spec.id}, and the same command makes it anew."
            )
            return None
        if (error := f"{teacher.evaluation.error_pct:.2f} %") != f"{record.test_error_pct:.2f} %":
            self.progress.say(f"teacher {label}, in the arithmetic of its students: test error {error}")
        for note in teacher.notes:
            self.progress.say(f"note: {note}.")
        return teacher

    def _evaluated(self, spec: TrialSpec, recipe: Recipe, record: Record, weights: dict[str, torch.Tensor]) -> Teacher:
        """The teacher, and what its students' records say of it.

        Raises:
            NotFinite: its weights or its logits are not finite.
            RuntimeError: its answers are no function of the images.
        """
        test, precision = self.builder.test_data, recipe.precision
        layout = memory_format(self.builder.device, precision=precision)
        network = self.builder.restored(spec, weights).to(memory_format=layout)
        frozen = FrozenTeacher(network, image_shape=self.builder.dataset.image_shape, recipe=recipe, device=self.builder.device)
        evaluation = evaluate(frozen.logits, test, precision=precision, detailed=True, waiting=self.waiting)
        shown = test.first(spec.recipe.batch_size)
        rate = inference_images_per_s(lambda images: network(images).logits, shown, precision=precision)
        repeat = partial(repeats, lambda images: frozen(images).tensors(), shown, precision=precision)
        if not frozen.unchanged or not repeat(seeds=(0, 0)):
            raise RuntimeError(
                "its answers depend on what it was shown before, since in evaluation mode it changes its buffers or draws from a "
                "generator of its own; draw from torch's global stream, and change nothing where self.training is False"
            )
        note = (
            f"the teacher {teacher_label(spec)}: it draws at random in evaluation, so that students learn from noise; where that "
            "is not meant, look for dropout without `training=self.training`"
        )
        return Teacher(spec, frozen, network, record, evaluation, rate, notes=() if repeat(seeds=(0, 1)) else (note,))

    def train_stages(self, teacher: Teacher, stages: Iterable[TeacherStage]) -> bool:
        """Train together, once in a run, those of the stages that learn from this teacher; False when stopped."""
        if teacher.spec.id in self.failed_stages:
            return True
        needed = {stage.id: stage for stage in stages if stage.teacher.id == teacher.spec.id}
        failures: dict[str, str] = {}
        origin = environment(self.builder.device).model_dump()

        def resume(stage: TeacherStage) -> Mapping[str, Any] | None:
            state = read_checkpoint(self._checkpoint(stage, teacher))
            return state if state and state["origin"] == origin else None

        def train(group: Sequence[TeacherStage], graphs: bool) -> bool:
            trained = train_teacher_stages(
                group,
                spec=teacher.spec,
                teacher=teacher.frozen,
                builder=self.builder,
                resume=resume,
                checkpoint=lambda stage, state: write_checkpoint(self._checkpoint(stage, teacher), {**state, "origin": origin}),
                stop=self.stop,
                resumed=lambda stage, lane: self.progress.resumed(LaneReport.of(lane, stage)),
                epoch_done=lambda now, active: self.progress.epoch(EpochReport.of(now, active)),
                graphs=graphs,
                waiting=self.waiting,
            )
            failures.update(trained.failures)
            for stage in group:
                if stage.id in trained.learnt:
                    write_checkpoint(self._file(stage, teacher), trained.learnt[stage.id])
                if stage.id in trained.learnt or stage.id in trained.failures:
                    self._checkpoint(stage, teacher).unlink(missing_ok=True)
            return not trained.stopped

        work = Work[TeacherStage](
            train=train,
            ended=lambda stage: stage.id in failures or self._file(stage, teacher).exists(),
            name=lambda stage: stage.label,
            noun="stages",
        )
        missing = [stage for stage in needed.values() if read_checkpoint(self._file(stage, teacher)) is None]
        finished = self.groups.train(missing, work)
        teacher.frozen.assert_unchanged()
        self.failed_stages[teacher.spec.id] = failures
        return finished

    def refuse_failed_stages(self, trial: TrialSpec) -> None:
        """Raise RuntimeError where a stage that the trial needs has failed."""
        for stage in teacher_stages(trial):
            if reason := self.failed_stages.get(stage.teacher.id, {}).get(stage.id):
                raise RuntimeError(f"stage {stage.name} failed: {reason}")

    def load_stages(self, teacher: Teacher, trial: TrialSpec, method: Composition) -> list[Row]:
        """Load into a student's method what it learnt from the teacher alone; returns the curves of that.

        Raises:
            RuntimeError: what was learnt does not fit the method.
        """
        learnt = []
        for stage in teacher_stages(trial):
            found = read_checkpoint(self._file(stage, teacher))
            assert found, f"{stage.label} was trained before its students"
            learnt.append((stage, found))
        return load_teacher_stages(method, learnt)

    def _file(self, stage: TeacherStage, teacher: Teacher) -> Path:
        return self.store.stage_file(teacher.spec.id, stage.key(teacher_sha256=teacher.frozen.sha256))

    def _checkpoint(self, stage: TeacherStage, teacher: Teacher) -> Path:
        return self.store.stage_checkpoint(teacher.spec.id, stage.key(teacher_sha256=teacher.frozen.sha256))


def usable(store: Store, record: Record | None) -> bool:
    """Whether a teacher is trained, and its weights are there, bit for bit; nothing is changed."""
    return teacher_weights(store, record, look_only=True) is not None


def teacher_weights(store: Store, record: Record | None, *, look_only: bool = False) -> dict[str, torch.Tensor] | None:
    """Those that a trial left which is done, where they are still the same; a broken file is set aside but for `look_only`."""
    if record is None or record.status != "done":
        return None
    return read_weights(store.folder(record.trial) / WEIGHTS, sha256=record.weights_sha256 or "", look_only=look_only)
