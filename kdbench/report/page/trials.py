"""Every trial of a comparison: a table to find one in, and all that is known of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kdbench.report.compare import Comparison
from kdbench.report.page.figures import spread
from kdbench.report.tables.table import NONE, Cell, Row, Table
from kdbench.results.frames import COLUMNS

_CURVES = {"test_error_pct": "test", "validation_error_pct": "held out", "train_error_pct": "training"}
"""What the curve of a trial shows, and what each line is called."""


def trials_table(comparison: Comparison) -> Table:
    """One row for each trial, done or not; columns in which all trials agree, or say nothing, are left out."""
    results, metric = comparison.results, comparison.metric
    rows = [
        {
            "Trial": Cell(trial["trial"]),
            "Status": Cell(trial["status"]),
            "Suite": Cell(trial["suite"]),
            "Data": Cell(trial["dataset"]),
            "Pair": Cell(_pair(trial)),
            "Method": Cell(trial["label"]),
            "Seed": Cell(str(trial["seed"]), values={"value": trial["seed"]}),
            metric.heading: _number(metric.of(trial[metric.column]), metric.decimals),
            "Training (s)": _number(trial["train_s"], 1),
            "Reason": Cell(trial["reason"] if isinstance(trial.get("reason"), str) else ""),
        }
        for trial in results.to_dict("records")
    ]
    idle = {name for name in ("Data", "Suite", "Reason") if len({row[name].text for row in rows}) < 2}
    columns = [name for name in rows[0] if name not in idle]
    cells = [Row(tuple(row[name] for name in columns), {"trial": row["Trial"].text}) for row in rows]
    return Table("trials", "All trials", tuple(columns), tuple(cells), (), naming=columns.index("Seed"))


def _pair(trial: Mapping[Any, Any]) -> str:
    return f"{trial['teacher']} → {trial['student']}" if isinstance(trial["teacher"], str) else str(trial["student"])


def _number(value: float, decimals: int) -> Cell:
    return Cell(NONE) if pd.isna(value) else Cell(f"{value:.{decimals}f}", values={"value": value})


def titles(comparison: Comparison) -> dict[str, str]:
    """By trial, what it is in words."""
    trials = comparison.results.to_dict("records")
    return {trial["trial"]: f"{trial['label']}, {_pair(trial)}, seed {trial['seed']}" for trial in trials}


def trial_facts(results: pd.DataFrame) -> dict[str, Any]:
    """`columns`, each with its meaning, and `rows` by trial: what the frame knows of each, None where it is missing.

    Columns that say nothing of any trial are left out.
    """
    columns = [str(name) for name in results if any(_plain(value) is not None for value in results[name])]
    rows = {trial["trial"]: [_plain(trial[name]) for name in columns] for trial in results.to_dict("records")}
    return {"columns": [[name, COLUMNS.get(name, "")] for name in columns], "rows": rows}


def _plain(value: Any) -> Any:
    """A value of the frame as JSON has it."""
    if isinstance(value, (tuple, list)):
        return "; ".join(map(str, value)) or None
    if pd.isna(value) or value == "":
        return None
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def trial_curves(curves: pd.DataFrame) -> dict[str, Any]:
    """By trial, errors against epoch of the main training, at so many epochs as the page holds."""
    if curves.empty:
        return {}
    main = curves[(curves["stage"] == "main") & curves["test_error_pct"].notna()]
    epochs = main["epoch"].to_numpy()
    kinds = {name: main[column].to_numpy(float).round(3) for column, name in _CURVES.items() if column in main}
    found = {}
    for trial, places in main.groupby("trial", sort=False).indices.items():
        thin = np.asarray(places)[spread(len(places))]
        if len(thin) > 1:
            lines = {name: errors[thin] for name, errors in kinds.items() if not np.isnan(errors[thin]).all()}
            found[str(trial)] = {
                "epoch": epochs[thin].tolist(),
                **{name: [None if math.isnan(error) else error for error in errors.tolist()] for name, errors in lines.items()},
            }
    return found
