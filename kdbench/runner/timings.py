"""What the trainings of a results directory took, finished or not. Builds no model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.method.specs import student_stage_epochs
from kdbench.results.layout import CURVES, RECORD
from kdbench.results.store import Store
from kdbench.spec.trial import TrialSpec
from kdbench.suite.teacher_stages import TeacherStage, teacher_stages


@dataclass(frozen=True)
class StageTiming:
    """A stage of a teacher that was measured: seconds for all of it.

    Attributes:
        own_s: its own steps.
        shared_s: the batches and the teacher's forward passes, which all stages of the teacher share.
    """

    stage: TeacherStage
    own_s: float
    shared_s: float


@dataclass(frozen=True)
class Timing:
    """A training that was measured, whole or in part: seconds per epoch, of stages that train the student and of the main training.

    They are those that passed: on a GPU, students beside each other take less than one after the other.

    Stages that learn from the teacher alone, which several students share, stand apart.

    Attributes:
        spec: what was trained.
        device: where.
        own_s: the student's own steps.
        data_s: the batches, which a cohort shares.
        teacher_s: the teacher's forward passes, which a cohort shares; 0 where the method reads none.
        evaluation_s: the student on the test images, once; 0 where it was not tested after the last of these epochs.
        epochs: how many of these epochs are over.
        stages: what the student's methods learnt from the teacher alone took.
        beside_others: whether other jobs of the run trained on the machine at the same time, as far as that is known.
    """

    spec: TrialSpec
    device: str
    own_s: float
    data_s: float
    teacher_s: float
    evaluation_s: float
    epochs: int
    stages: tuple[StageTiming, ...] = ()
    beside_others: bool = False


def read_timings(store: Store) -> dict[str, Timing]:
    """By trial, what each training of the results directory took, those that were interrupted or have failed among them."""
    found = ((file.parent.name, _timing(file)) for file in store.root.glob("trials/*/curves.jsonl"))
    return {trial: timing for trial, timing in found if timing}


def epochs_behind(store: Store, trial: TrialSpec) -> int:
    """How many epochs of a training its checkpoint has, stages that train the student included; 0 where it has none."""
    file = store.folder(trial.id) / CURVES
    try:
        return _over(trial, file, _rows(file, whole=False)[-1]) if store.has_checkpoint(trial.id) else 0
    except (OSError, LookupError, ValueError):  # broken, which is no reason not to train
        return 0


ByDevice = Mapping[str, Mapping[str, Timing]]
"""Timings by the name of the device and by trial."""


def timings_by_device(store: Store) -> ByDevice:
    """The same, by the name of the device."""
    found: dict[str, dict[str, Timing]] = {}
    for trial, timing in read_timings(store).items():
        found.setdefault(timing.device, {})[trial] = timing
    return found


def _timing(curves: Path) -> Timing | None:
    record = _json(curves.with_name(RECORD))
    spec, environment = (record.get(name) or _json(curves.with_name(f"{name}.json")) for name in ("spec", "environment"))
    try:
        trial = TrialSpec.model_validate(spec)
        if not trial.methods:
            return None  # a teacher that is used as it is
        before = {stage.name: stage for stage in teacher_stages(trial)}
        rows = _rows(curves, whole=bool(before))
        own = [row for row in rows if row["stage"] not in before]
        over = _over(trial, curves, own[-1])
        took, epochs = (_total(own) if before else record, over) if record.get("status") == "done" else (own[-1], 1)
        stages = []
        for name, stage in before.items():
            of_stage = [row for row in rows if row["stage"] == name]
            whole, part = _total(of_stage), _elapsed(of_stage)
            stages.append(StageTiming(stage, own_s=part * _own(whole), shared_s=part * (whole["data_s"] + whole["teacher_s"])))
        part = _elapsed(own[-1:]) / epochs
        return Timing(
            spec=trial,
            device=environment["device"],
            own_s=part * _own(took),
            data_s=part * took["data_s"],
            teacher_s=part * took["teacher_s"],
            evaluation_s=own[-1].get("evaluation_s", 0.0),
            epochs=over,
            stages=tuple(stages),
            beside_others=record.get("jobs_on_machine", 1) > 1,
        )
    except (KdbenchError, LookupError, ValueError):  # broken, of a version that had other keys, or of a method that is not here
        return None


def _over(trial: TrialSpec, curves: Path, last: Mapping[str, Any]) -> int:
    """How many epochs of a training are over after its `last` one, without those of stages that learn from the teacher alone.

    Of stages that train the student no more count than are planned: a method may have some that no parameter tells.
    """
    planned = student_stage_epochs(trial)
    if last["stage"] == "main":
        return planned + int(last["epoch"])
    of_teacher = {stage.name for stage in teacher_stages(trial)}
    return min(planned, sum(row["stage"] not in of_teacher for row in _rows(curves, whole=True)))


def _total(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    found = list(rows)
    return {key: sum(row[key] for row in found) for key in ("train_s", "data_s", "teacher_s")}


def _elapsed(rows: Sequence[Mapping[str, Any]]) -> float:
    """How much of the seconds that trainings take one after the other passed: less, where a GPU trained several at once."""
    alone_s = sum(row["train_s"] for row in rows)
    return sum(row.get("elapsed_s", row["train_s"]) for row in rows) / alone_s if alone_s else 1.0


def _own(took: Mapping[str, Any]) -> float:
    return float(took["train_s"] - took["data_s"] - took["teacher_s"])


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _rows(file: Path, *, whole: bool) -> list[dict[str, Any]]:
    """The epochs; the last one alone unless `whole` is asked for: a file has hundreds, and a directory hundreds of files."""
    with file.open("rb") as handle:
        handle.seek(0 if whole else max(0, file.stat().st_size - 16384))
        lines = handle.read().splitlines()
    return [dict(json.loads(line)) for line in (lines if whole else lines[-1:])]
