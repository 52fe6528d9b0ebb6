"""Records as pandas frames: one row per trial, and one row per trial and epoch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from kdbench.errors import KdbenchError
from kdbench.paths import expanded, found
from kdbench.results.layout import record_files
from kdbench.results.method_labels import CE, method_labels
from kdbench.spec.record import Data, Environment, Record, why_unreadable
from kdbench.spec.trial import digest, teachers_in, why_foreign
from kdbench.wording import counted

log = logging.getLogger("kdbench")


def read_records(root: Path) -> pd.DataFrame:
    """Every record of a results directory as a row of `kdbench.load_results`, unique on `trial`.

    Raises:
        KdbenchError: no such directory, or no trials in it.
    """
    records: dict[str, Record] = {}
    for file in record_files(root):
        try:
            record = Record.model_validate_json(file.read_bytes())
        except ValidationError as problem:
            log.warning("%s is left out: %s.", file, why_unreadable(problem))
            continue
        except FileNotFoundError:  # it is trained again since just now
            continue
        if reason := why_foreign(record, file.parent.name):
            log.warning("%s is left out: %s.", file, reason)
            continue
        records[record.trial] = record
    if not records:
        raise KdbenchError(f"no records under '{root}'. Give the directory that `kdbench run --results` wrote to.")
    rows = [*map(row, records.values())]
    teachers = {digest(teacher) for record in records.values() for teacher in teachers_in(record.spec)}
    return frame({**row, "role": "teacher" if row["trial"] in teachers else row["role"]} for row in rows)


def load_curves(path: str | Path, trials: Iterable[str]) -> pd.DataFrame:
    """Every epoch of the given trials of a results directory, in order.

    The columns are `trial` and the keys of `CURVES`. A damaged file is named and left out.
    """
    if isinstance(trials, str):
        raise KdbenchError(f"trials: {trials!r} is no list. Write trials=[{trials!r}].")
    rows: list[dict[str, Any]] = []
    for trial in trials:
        file = expanded(path) / "trials" / trial / "curves.jsonl"
        if found(file):
            try:
                rows += [{"trial": trial, **json.loads(line)} for line in file.read_text(encoding="utf-8").splitlines()]
            except ValueError as problem:
                log.warning("%s is left out: it is damaged (%s). Put a whole copy back.", file, problem)
    return pd.DataFrame(rows)


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows with the columns of `load_results`; what a trial lacks is a missing value."""
    found = pd.DataFrame(list(rows))
    assert not (unknown := {*found.columns} - {*COLUMNS}), f"{unknown} have no meaning in COLUMNS"
    whole = typed(found.reindex(columns=[*COLUMNS]))
    return whole.assign(label=method_labels(whole))


def typed(results: pd.DataFrame) -> pd.DataFrame:
    """The frame with the types of `load_results` in those of its columns that may have missing values."""
    known = {name: kind for name, kind in _OPTIONAL.items() if name in results}
    return results.astype(known).assign(trial=results["trial"].fillna(""))


def row(record: Record) -> dict[str, Any]:
    """A record as a row of `load_results`."""
    return {
        **record.model_dump(exclude={"spec", "environment", "data", "tuning"}),
        **(_flat(record.data) if record.data else {}),
        "role": "tuning" if record.tuning else "student" if record.spec["methods"] else "teacher",
        "teacher_trial": digest(teachers[0]) if (teachers := teachers_in(record.spec)) else None,
        "method_params": params_as_json(record.spec),
        "dataset_params": json.dumps(record.spec["dataset"], sort_keys=True),
        "evaluate_every": record.spec["recipe"].get("evaluate_every", 1),  # a record of an earlier protocol has no such key
        "environment": environment_text(record.environment),
        "device": record.environment.device,
        "kdbench_version": record.environment.kdbench,
    }


def environment_text(ran_on: Environment) -> str:
    """What a trial ran on, in one line."""
    threads = f", {counted(ran_on.threads, 'thread')}" if ran_on.threads else ""
    return f"{ran_on.device}{threads}, torch {ran_on.torch}, kdbench {ran_on.kdbench}, Python {ran_on.python}"


def _flat(data: Data) -> dict[str, Any]:
    splits = {name: getattr(data, name) for name in ("train_images", "validation_images", "test_images")}
    return {
        "data": data.summary,
        "num_classes": len(data.classes),
        **{name: counts.images if counts else None for name, counts in splits.items()},
        "one_class_error_pct": data.test_images.one_class_error_pct,
        "passed_over_files": sum(data.passed_over_files.values()),
        "data_notes": "; ".join(data.notes),
    }


def params_as_json(spec: Mapping[str, Any]) -> str:
    """The column `method_params` of a trial's spec."""
    ce = {CE: spec["ce"]} if "ce" in spec else {}
    return json.dumps({part["name"]: part["params"] for part in spec["methods"]} | ce)  # in the order of the method's own `Params`


COUNTS = ("num_classes", "train_images", "validation_images", "test_images", "passed_over_files")
"""Columns of whole numbers, missing in records of earlier versions."""

_FLATTENED = {
    "label": "What tables call the method, such as `AT+KD`. Where the frame has several settings of a method for one pair, it ends "
    "with the parameters that differ, such as `FT (k=2)`.",
    "role": "`teacher` where another trial of the directory learnt from it, or where it was used as it is; `tuning` where it only "
    "chose among settings of a method, so that its test error is no result; else `student`. In the frame of a suite every row is a "
    "`student`.",
    "teacher_trial": "The teacher's own trial, the first one's where there are several; missing for methods that read no teacher.",
    "data": "How many images there are, in one line. Records of earlier versions lack it, and the other columns on the images too.",
    "num_classes": "Number of classes.",
    "train_images": "Number of images that were trained on.",
    "validation_images": "Number of training images that were held out to select with; missing where none were.",
    "test_images": "Number of images that were tested on.",
    "one_class_error_pct": "Test error in percent of always answering the class with the most test images.",
    "passed_over_files": "Number of files that were not read.",
    "data_notes": "What else a reader of the results must know of the images.",
    "method_params": "Parameters of the method, by part, as JSON; and `ce`, where the suite sets the weight of the cross-entropy.",
    "dataset_params": "The data set and its parameters, as JSON.",
    "evaluate_every": "Epochs from one test of the student to the next.",
    "environment": "What the trial ran on, in one line.",
    "device": "Name of the processor or of the GPU.",
    "kdbench_version": "Version of kdbench.",
}
"""What the columns are that a record holds in another form."""

COLUMNS: Mapping[str, str] = {
    **{
        name: field.description or ""
        for name, field in Record.model_fields.items()
        if name not in ("spec", "environment", "tuning")
    },
    **_FLATTENED,
    "trial": "Identity of the trial: a hash of its spec, and the name of its folder; empty where it is `untuned`.",
    "status": "`done` or `failed`; in the frame of a suite also `stale`, `started`, `missing` or `untuned`.",
}
"""The columns of the frame, in order, each with its meaning."""

CURVES: Mapping[str, str] = {
    "stage": "`main`, or the name of a stage before the main training.",
    "epoch": "The epoch, counted from 1 within its stage.",
    "lr": "Learning rate.",
    "train_loss": "Mean of the whole loss.",
    "terms": "Mean of each weighted term of the loss, by name.",
    "train_error_pct": "Error on the training images in percent, as they were augmented.",
    "test_error_pct": "Test error in percent, where the student was tested after this epoch.",
    "validation_error_pct": "Error on the held-out training images in percent, where there are any.",
    "loss_ratio": "Transfer terms divided by the cross-entropy.",
    "gradient_ratio": "Norm of the transfer terms' gradient at the student's parameters, divided by that of the cross-entropy.",
    "train_s": "Seconds that the epoch would take alone, with the data and the teacher's passes.",
    "data_s": "Of `train_s`, seconds for the data.",
    "teacher_s": "Of `train_s`, seconds for the teacher's passes.",
    "elapsed_s": "Seconds of `train_s` that passed, where a GPU trained several students beside each other. Estimates take these.",
    "startup_s": "Seconds for compiling and for recording CUDA graphs. They are not part of `train_s`.",
    "evaluation_s": "Seconds for testing; a share of them where several students are tested side by side.",
    "images": "Number of training images.",
}
"""The keys of a line of `curves.jsonl`, each with its meaning. A line lacks those that do not apply."""

_TYPES: dict[object, str] = {int | None: "Int64", float | None: "float64", str | None: "object"}
_OPTIONAL = {
    **{name: _TYPES[field.annotation] for name, field in Record.model_fields.items() if field.annotation in _TYPES},
    **dict.fromkeys((*COUNTS, "jobs_on_machine"), "Int64"),
    "one_class_error_pct": "float64",
}
"""Columns of what a trial may lack, and their types, which must not depend on the trials that happen to be there."""
