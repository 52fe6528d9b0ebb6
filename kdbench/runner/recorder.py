"""Turns what came of a trial into its record, whether it ended well or not."""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import nn

from kdbench.data import Samples
from kdbench.errors import first_line
from kdbench.method.specs import setting, teacher_label, teachers_label
from kdbench.models.measure import macs, parameters
from kdbench.models.weights import state_hash
from kdbench.results.outcomes import Outcomes
from kdbench.results.store import Store
from kdbench.runner.plan import Planned
from kdbench.runner.progress import Progress
from kdbench.runner.students import keep
from kdbench.runner.teachers import Teacher
from kdbench.spec.record import Data, Environment, ImageCounts, Record
from kdbench.spec.trial import TrialSpec
from kdbench.suite.code_hash import core_code
from kdbench.suite.suite import Suite
from kdbench.training.arithmetic import used_arithmetic
from kdbench.training.balance import imbalance_note
from kdbench.training.builder import Builder
from kdbench.training.device import environment, exact
from kdbench.training.epoch_sums import Row
from kdbench.training.evaluation import buffers_kept, evaluate, inference_images_per_s
from kdbench.training.fatal_errors import fatal_error
from kdbench.training.lane import Lane
from kdbench.training.predictions import Predictions
from kdbench.training.waiting import Waiting

T = TypeVar("T")

FIRST_OF_SEVERAL = "of several teachers, the teacher's error, its size and the agreement with it are those of the first, {}"
"""A note for the record of a student that learnt from several teachers."""


@dataclass(frozen=True, eq=False)
class Recorder:
    """Writes the records of a suite's trials into `store`, and tells `progress`.

    Attributes:
        records: by trial, the teachers' that the plan found, and each that is written.
        written: the trials that this run has recorded.
    """

    suite: Suite
    store: Store
    builder: Builder
    progress: Progress
    records: dict[str, Record]
    written: set[str] = field(default_factory=set)

    @cached_property
    def data(self) -> Data:
        """What the trials see of their data set."""
        dataset, contents = self.builder.dataset, self.builder.dataset.contents
        train, validation = self.builder.splits

        def count(split: Samples) -> ImageCounts:
            return ImageCounts.of(torch.bincount(split.labels, minlength=dataset.num_classes).tolist())

        return Data(
            classes=tuple(map(str, dataset.classes)),  # a data set of one's own may number them, and count with numpy
            image_shape=dataset.image_shape,
            resize=dataset.resize,
            mean=tuple(map(float, dataset.mean)),
            std=tuple(map(float, dataset.std)),
            train_images=count(train),
            validation_images=count(validation) if validation else None,
            test_images=count(dataset.test),
            passed_over_files=contents.passed_over,
            notes=contents.notes,
        )

    def describe_data(self) -> None:
        """Say, before anything trains, how many images were read and what a reader of the results must know of them."""
        self.progress.say(f"{self.suite.trials[0].dataset.label}: {self.data.summary}")
        for note in self.data.notes:
            self.progress.say(f"note: {note}.")

    def ended(self, planned: Planned, lane: Lane, teachers: Sequence[Teacher], waiting: Waiting) -> None:
        """A lane has come to its end, or has failed."""
        with waiting.for_device([lane.name]):
            outcome = self._outcome(planned, lane, waiting)
        self._write(planned, teachers, rows=lane.rows, **outcome)

    @contextmanager
    def isolated(self, planned: Planned, teachers: Sequence[Teacher] = ()) -> Iterator[None]:
        """An exception in the block, such as a method's own mistake, is this trial's result and no other's."""
        try:
            yield
        except Exception as problem:  # isolation: networks and methods are others' code, and may raise anything
            if fault := fatal_error(problem):
                raise fault from None
            self._write(planned, teachers, rows=(), **_raised(problem))

    def failed(self, planned: Planned, reason: str, *, log: str, ran_on: Environment) -> None:
        """A trial that no worker could train, what the last one said and what that ran on."""
        self._write(planned, (), rows=(), ran_on=ran_on, **_failed(reason, log=log))

    def record_pretrained(self, planned: Planned, waiting: Waiting) -> None:
        """Measure and keep a teacher that is used as it is: its trial is done, and nothing was trained."""
        spec = planned.spec
        precision = spec.recipe.precision
        with exact(self.builder.device, precision=precision, image_shape=self.builder.dataset.image_shape):
            network = self.builder.student(spec).eval()
            with buffers_kept(network), waiting.for_device([f"teacher {spec.label}"]):
                found = evaluate(
                    lambda images: network(images).logits,
                    self.builder.test_data,
                    precision=precision,
                    detailed=True,
                    waiting=waiting,
                )
            work, uncounted = self._work(spec)
            keep(planned.folder, network, None, data=self.data)
            self.store.write_spec(spec.id, spec.model_dump(mode="json"))
            self._write(
                planned,
                (),
                rows=(),
                status="done",
                test_error_pct=found.error_pct,
                predictions=found.predictions,
                student_params=parameters(network),
                student_macs=work,
                weights_sha256=state_hash(network.state_dict()),
                notes=(notes := (*self.builder.weight_notes(spec), *uncounted)),
            )
        for note in notes:
            self.progress.say(f"note: {note}.")

    def _outcome(self, planned: Planned, lane: Lane, waiting: Waiting) -> dict[str, Any]:
        """What the record says of a lane that has ended."""
        if lane.failure:
            if self.suite.keep_students and lane.student:
                with waiting.on_host():  # to look at: nobody takes it for a student or a teacher
                    keep(planned.folder, lane.student, lane.method, data=self.data)
            return _failed(lane.failure_with_advice, log=lane.traceback)
        try:
            return self._results(planned, lane, waiting)
        except Exception as problem:  # isolation: a method may raise in its predictions only
            if fault := fatal_error(problem):
                raise fault from None
            return _raised(problem)

    def _results(self, planned: Planned, lane: Lane, waiting: Waiting) -> dict[str, Any]:
        trial = planned.spec
        assert lane.student is not None
        main = [row for row in lane.rows if row["stage"] == "main"]
        tested = [row for row in main if "test_error_pct" in row]
        best = min(tested, key=lambda row: row["test_error_pct"])
        deployed, shown = lane.predictor(), self.builder.test_data.first(trial.recipe.batch_size)
        with buffers_kept(deployed):
            rate, unmeasured = _measured(
                "the speed of inference is not measured",
                lambda: inference_images_per_s(deployed, shown, precision=lane.precision),
            )
        # Without need no method is copied to count: it may hold what a copy without numbers cannot follow.
        work, uncounted = self._work(trial, deployed if lane.method.deployed() else None)
        if planned.keeps_weights:
            with waiting.on_host():
                keep(planned.folder, lane.student, lane.method, data=self.data)
        unbalanced = imbalance_note(trial, lane.method, lane.rows)
        results: dict[str, Any] = {
            "status": "done",
            "test_error_pct": main[-1]["test_error_pct"],
            "predictions": lane.predictions,
            "best_test_error_pct": best["test_error_pct"],
            "best_epoch": best["epoch"],
            "train_error_pct": main[-1]["train_error_pct"],
            "train_loss": main[-1]["train_loss"],
            "student_params": deployed.size,
            "student_macs": work,
            "extra_params": lane.extra_params,
            "stage_epochs": sum(segment.epochs for segment in lane.segments[:-1]),
            "start_weights_sha256": state_hash(start.state) if (start := self.builder.start(trial)) else None,
            "weights_sha256": state_hash(lane.student.state_dict()),
            "notes": (
                *(*self.builder.weight_notes(trial), *lane.method.notes, *self.builder.map_notes(trial), *trial.recipe.notes),
                *((unbalanced,) if unbalanced else ()),
                *(*uncounted, *unmeasured),
            ),
            "train_s": sum(row["train_s"] for row in lane.rows),
            "data_s": sum(row["data_s"] for row in lane.rows),
            "teacher_s": sum(row["teacher_s"] for row in lane.rows),
            "startup_s": sum(row["startup_s"] for row in lane.rows),
            "train_images_per_s": statistics.median(row["images"] / row["train_s"] for row in main),
            "inference_images_per_s": rate,
            "peak_mem_mib": lane.peak_mem_mib,
        }
        if self.builder.validation_data:
            selected = min(tested, key=lambda row: row["validation_error_pct"])
            results |= {
                "validation_error_pct": main[-1]["validation_error_pct"],
                "selected_test_error_pct": selected["test_error_pct"],
                "selected_epoch": selected["epoch"],
            }
        return results

    def _of_teacher(self, teacher: Teacher) -> dict[str, float | None]:
        """What a student's record says of the test of its teacher, beside the error."""
        assert teacher.evaluation.predictions
        found = teacher.evaluation.predictions.metrics(self.builder.dataset.num_classes)
        return {name.replace("test_", "teacher_"): value for name, value in found.items() if name.startswith("test_")}

    def _work(self, trial: TrialSpec, deployed: nn.Module | None = None) -> tuple[int | None, tuple[str, ...]]:
        """The multiply-accumulate operations of what a trial deploys, where that is more than its student."""

        def count() -> int:
            return macs(deployed, self.builder.dataset.image_shape) if deployed else self.builder.macs(*trial.network)

        return _measured("multiply-accumulates are not counted", count)

    def _write(
        self,
        planned: Planned,
        teachers: Sequence[Teacher],
        *,
        rows: Sequence[Row],
        predictions: Predictions | None = None,
        log: str = "",
        ran_on: Environment | None = None,
        **results: Any,
    ) -> None:
        trial, outcomes = planned.spec, None
        if predictions:
            classes, fingerprint = self.builder.dataset.num_classes, self.builder.dataset.fingerprint
            results |= predictions.metrics(classes)
            outcomes = Outcomes.of(predictions.labels, predictions.predicted, num_classes=classes, data_fingerprint=fingerprint)
        if teachers and trial.teacher:
            teacher, *others = teachers
            first = (f"{trial.method}: {FIRST_OF_SEVERAL.format(teacher_label(teacher.spec))}",) if others else ()
            results |= {
                "teacher_error_pct": teacher.evaluation.error_pct,
                **self._of_teacher(teacher),
                "teacher_params": teacher.record.student_params,
                "teacher_macs": teacher.record.student_macs,
                "teacher_weights_sha256": teacher.record.weights_sha256,
                "other_teachers_weights_sha256": tuple(other.record.weights_sha256 for other in others),
                "teacher_norms_folded": teacher.frozen.norms_folded,
                "teacher_inference_images_per_s": teacher.images_per_s,
                "notes": (*results.get("notes", ()), *first, *(note for each in teachers for note in each.notes)),
            }
        record = Record(
            protocol=trial.protocol,
            trial=trial.id,
            suite=self.suite.name,
            tuning=self.suite.tries_settings and not planned.teaches and not self.store.replaces_result(trial.id),
            spec=trial.model_dump(mode="json"),
            dataset=trial.dataset.label,
            recipe=trial.recipe.summary,
            precision=trial.recipe.arithmetic if ran_on else used_arithmetic(trial.recipe, self.builder.device),
            epochs=trial.epochs,
            teacher=teachers_label(trial),
            student=trial.label,
            method=trial.method,
            setting=setting(trial),
            stages=trial.stages,
            seed=trial.seed,
            method_code=planned.code,
            core_code=core_code(),
            data_fingerprint=self.builder.dataset.fingerprint,
            data=self.data,
            environment=ran_on or environment(self.builder.device),
            planned=self.store.planned(trial.id),
            planned_again=self.store.planned_again(trial.id),
            first_finished=self.store.first_finished(trial.id),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            **results,
        )
        self.store.write_record(record, rows, outcomes, log=log)
        self.records[trial.id] = record
        self.written.add(trial.id)
        self.progress.recorded(record)


def _measured(without: str, measure: Callable[[], T]) -> tuple[T | None, tuple[str, ...]]:
    """What is measured, or a note, which begins with `without`, on why it is not: a training is not lost for that."""
    try:
        return measure(), ()
    except Exception as problem:  # isolation: others' code is run as it never was, and may raise anything
        if fault := fatal_error(problem):
            raise fault from None
        return None, (f"{without}: {type(problem).__name__}: {first_line(problem)}",)


def _failed(reason: str, *, log: str) -> dict[str, Any]:
    return {"status": "failed", "reason": reason, "log": log}


def _raised(problem: Exception) -> dict[str, Any]:
    return _failed(f"{type(problem).__name__}: {problem}", log="".join(traceback.format_exception(problem)))
