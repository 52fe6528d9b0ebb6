"""Records as pandas frames: one row per trial, and one row per trial and epoch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from kdbench.errors import KdbenchError
from kdbench.record import Record

if TYPE_CHECKING:
    from kdbench.trial import TrialSpec

log = logging.getLogger("kdbench")


def load_results(path: str | Path) -> pd.DataFrame:
    """Every record of a results directory, one row per trial, unique on `trial`.

    The columns are the keys of `kdbench.record.Record` with their units in their names (errors in percent, times in seconds,
    rates in images per second), `method_params` (JSON, by part), `environment` (one line) and `device`. Students of `scratch` have
    no teacher.

    Args:
        path: a results directory.

    Raises:
        KdbenchError: no such directory, or no trials in it.
    """
    root = Path(path)
    files = sorted(root.glob("trials/*/record.json"))
    if not files:
        raise KdbenchError(f"no records under {root.resolve()}. Give the directory that `kdbench run --results` wrote to.")
    records = []
    for file in files:
        try:
            records.append(Record.model_validate_json(file.read_bytes()))
        except ValidationError as problem:
            log.warning("%s is left out: it is not a whole record (%d mistakes).", file, problem.error_count())
    return frame(records)


def load_curves(path: str | Path, trials: Iterable[str]) -> pd.DataFrame:
    """Every epoch of the given trials of a results directory, in order.

    Columns: `trial, stage, epoch` (from 1 within its stage), `lr, train_loss, train_error_pct, test_error_pct, loss_ratio`
    (transfer terms to cross-entropy), `gradient_ratio` (the same of gradient norms at the student's parameters),
    `train_s, data_s, teacher_s, evaluation_s`, and `terms` (a mapping of weighted loss terms).
    """
    rows: list[dict[str, Any]] = []
    for trial in trials:
        file = Path(path) / "trials" / trial / "curves.jsonl"
        if file.exists():
            rows += [{"trial": trial, **json.loads(line)} for line in file.read_text().splitlines()]
    return pd.DataFrame(rows)


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record; the columns of `load_results`."""
    return pd.DataFrame([_row(record) for record in records], columns=[*_COLUMNS])


def row_without_record(trial: TrialSpec, suite: str) -> dict[str, Any]:
    """What is known of a trial that is yet to be run; its status is `missing`."""
    return {
        "trial": trial.id,
        "suite": suite,
        "status": "missing",
        "protocol": trial.protocol,
        "dataset": trial.dataset.label,
        "recipe": trial.recipe.summary,
        "precision": trial.recipe.precision,
        "epochs": trial.recipe.epochs,
        "teacher": trial.teacher.student if trial.teacher else None,
        "student": trial.student,
        "method": trial.method,
        "seed": trial.seed,
        "method_params": _params_as_json([part.model_dump(mode="json") for part in trial.methods]),
    }


def _params_as_json(methods: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps({part["name"]: part["params"] for part in methods}, sort_keys=True)


def _row(record: Record) -> dict[str, Any]:
    row = record.model_dump(exclude={"spec", "environment"})
    ran_on = record.environment
    row["method_params"] = json.dumps({part["name"]: part["params"] for part in record.spec["methods"]}, sort_keys=True)
    row["environment"] = f"{ran_on.device}, torch {ran_on.torch}, kdbench {ran_on.kdbench}, Python {ran_on.python}"
    row["device"] = ran_on.device
    row["kdbench_version"] = ran_on.kdbench
    return row


_COLUMNS = (
    *(name for name in Record.model_fields if name not in ("spec", "environment")),
    "method_params",
    "environment",
    "device",
    "kdbench_version",
)
