"""Records as pandas frames: one row per trial, and one row per trial and epoch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from kdbench.errors import KdbenchError
from kdbench.paths import expanded, found
from kdbench.results.store import record_files
from kdbench.spec.record import Data, Record
from kdbench.wording import counted

if TYPE_CHECKING:
    from kdbench.runner.plan import Plan
    from kdbench.spec.trial import TrialSpec

log = logging.getLogger("kdbench")


def load_results(path: str | Path, *, suite: str | Path | None = None, plugins: Sequence[str | Path] = ()) -> pd.DataFrame:
    """Every record of a results directory, one row per trial, unique on `trial`; or the students of one suite.

    Units stand in the names of the columns: `_pct` is percent, `_s` seconds, `_per_s` a rate and `_mib` MiB. The page "Results
    folder" of the documentation describes every column. Students of `scratch` have no teacher.

    The column `suite` names the suite that trained a trial first. Another suite that shares the trial has no second row: give
    `suite` for the frame of one, and do not filter on the column.

    Args:
        path: a results directory.
        suite: a shipped suite's name, or a path to a YAML file. The frame is then that which `run_suite` returns: each student of
            the suite, whatever suite trained it, done or not, and no teachers. Nothing is trained, locked or written.
        plugins: with `suite`, files or folders of them with the methods, models or data sets of your own that it names.

    Raises:
        KdbenchError: no such directory, no trials in it where no suite is given, or a mistake in the suite.
    """
    root = expanded(path)
    if suite is not None:
        return _of_suite(root, suite, plugins)
    if plugins:
        raise KdbenchError("plugins have no effect on all records of a directory. Give them with suite=..., or leave them out.")
    records: dict[str, Record] = {}
    for file in record_files(root):
        try:
            record = Record.model_validate_json(file.read_bytes())
        except ValidationError as problem:
            log.warning("%s is left out: it is not a whole record (%s).", file, counted(problem.error_count(), "mistake"))
            continue
        if record.trial in records:
            log.warning("%s is left out: it is a second record of %s.", file, record.trial)
        records.setdefault(record.trial, record)
    if not records:
        raise KdbenchError(f"no records under {root}. Give the directory that `kdbench run --results` wrote to.")
    return frame(map(row, records.values()))


def _of_suite(root: Path, suite: str | Path, plugins: Sequence[str | Path]) -> pd.DataFrame:
    from kdbench.results.store import Store
    from kdbench.runner.plan import make_plan  # imports torch, which reading records needs not
    from kdbench.spec.record import PROTOCOL
    from kdbench.suite.plugins import load_plugins
    from kdbench.suite.resolve import load_suite

    if not root.is_dir():
        raise KdbenchError(f"there is no directory {root}. Give the one that `kdbench run --results` wrote to.")
    load_plugins(plugins)
    return plan_frame(make_plan(load_suite(suite), Store(root, protocol=PROTOCOL, read_only=True)))


def plan_frame(plan: Plan) -> pd.DataFrame:
    """The students of a suite, those that are not done among them."""
    return frame(
        {**row(planned.record), "setting": planned.spec.setting}
        if planned.record
        else row_without_record(planned.spec, suite=plan.suite.name, status=planned.status)
        for planned in plan.students
    )


def load_curves(path: str | Path, trials: Iterable[str]) -> pd.DataFrame:
    """Every epoch of the given trials of a results directory, in order.

    Columns: `trial, stage, epoch` (from 1 within its stage), `lr, train_loss, train_error_pct, test_error_pct, loss_ratio`
    (transfer terms to cross-entropy), `gradient_ratio` (the same of gradient norms at the student's parameters),
    `train_s, data_s, teacher_s, evaluation_s` (its share where students are examined side by side), and `terms` (a mapping of
    weighted loss terms).
    """
    if isinstance(trials, str):
        raise KdbenchError(f"trials: {trials!r} is no list. Write trials=[{trials!r}].")
    rows: list[dict[str, Any]] = []
    for trial in trials:
        file = expanded(path) / "trials" / trial / "curves.jsonl"
        if found(file):
            rows += [{"trial": trial, **json.loads(line)} for line in file.read_text().splitlines()]
    return pd.DataFrame(rows)


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows with the columns of `load_results`; what a trial lacks is a missing value."""
    return pd.DataFrame(list(rows), columns=[*COLUMNS]).astype(_OPTIONAL)


def row(record: Record) -> dict[str, Any]:
    """A record as a row of `load_results`."""
    ran_on = record.environment
    threads = f", {counted(ran_on.threads, 'thread')}" if ran_on.threads else ""
    return {
        **record.model_dump(exclude={"spec", "environment", "data"}),
        **(_flat(record.data) if record.data else {}),
        "method_params": _params_as_json(record.spec["methods"]),
        "dataset_params": json.dumps(record.spec["dataset"], sort_keys=True),
        "evaluate_every": record.spec["recipe"].get("evaluate_every", 1),  # a record of an earlier protocol has no such key
        "environment": f"{ran_on.device}{threads}, torch {ran_on.torch}, kdbench {ran_on.kdbench}, Python {ran_on.python}",
        "device": ran_on.device,
        "kdbench_version": ran_on.kdbench,
    }


def _flat(data: Data) -> dict[str, Any]:
    splits = {name: getattr(data, name) for name in ("train_images", "validation_images", "test_images")}
    return {
        "data": data.summary,
        "num_classes": len(data.classes),
        **{name: counts.images if counts else None for name, counts in splits.items()},
        "passed_over_files": sum(data.passed_over_files.values()),
        "data_notes": "; ".join(data.notes),
    }


def row_without_record(trial: TrialSpec, *, suite: str, status: str) -> dict[str, Any]:
    """What is known of a trial that has no record yet."""
    return {
        "trial": trial.id,
        "suite": suite,
        "status": str(status),
        "protocol": trial.protocol,
        "dataset": trial.dataset.label,
        "recipe": trial.recipe.summary,
        "precision": trial.recipe.arithmetic,
        "epochs": trial.recipe.epochs,
        "teacher": trial.teacher.label if trial.teacher else None,
        "student": trial.label,
        "method": trial.method,
        "setting": trial.setting,
        "stages": trial.stages,
        "seed": trial.seed,
        "method_params": _params_as_json([part.model_dump(mode="json") for part in trial.methods]),
        "dataset_params": json.dumps(trial.dataset.model_dump(mode="json"), sort_keys=True),
        "evaluate_every": trial.recipe.evaluate_every,
    }


def _params_as_json(methods: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps({part["name"]: part["params"] for part in methods})  # in the order of the method's own `Params`


_COUNTS = ("num_classes", "train_images", "validation_images", "test_images", "passed_over_files")
_FLATTENED = {
    "data": "How many images there are, in one line. Records of earlier versions lack it, and the other columns on the images too.",
    "num_classes": "Number of classes.",
    "train_images": "Number of images that were trained on.",
    "validation_images": "Number of training images that were held out to select with; missing where none were.",
    "test_images": "Number of images that were tested on.",
    "passed_over_files": "Number of files that were not read.",
    "data_notes": "What else a reader of the results must know of the images.",
    "method_params": "Parameters of the method, by part, as JSON.",
    "dataset_params": "The data set and its parameters, as JSON.",
    "evaluate_every": "Epochs from one test of the student to the next.",
    "environment": "What the trial ran on, in one line.",
    "device": "Name of the processor or of the GPU.",
    "kdbench_version": "Version of kdbench.",
}
"""What the columns are that a record holds in another form."""

COLUMNS: Mapping[str, str] = {
    **{name: field.description or "" for name, field in Record.model_fields.items() if name not in ("spec", "environment")},
    **_FLATTENED,
    "status": "`done` or `failed`; in the frame of a suite also `stale`, `started` or `missing`.",
}
"""The columns of the frame, in order, each with its meaning."""

_TYPES: dict[object, str] = {int | None: "Int64", float | None: "float64", str | None: "object"}
_OPTIONAL = {
    **{name: _TYPES[field.annotation] for name, field in Record.model_fields.items() if field.annotation in _TYPES},
    **dict.fromkeys(_COUNTS, "Int64"),
}
"""Columns of what a trial may lack, and their types, which must not depend on the trials that happen to be there."""
