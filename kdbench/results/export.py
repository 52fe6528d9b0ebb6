"""Results in one file, Parquet or CSV, with a schema that is versioned, and reading them back as the same frame."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import zlib
from ast import literal_eval
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin
from zipfile import BadZipFile

import pandas as pd
from pandas.api.types import is_numeric_dtype
from pydantic import TypeAdapter

from kdbench.errors import KdbenchError, first_line
from kdbench.files import write_bytes
from kdbench.results.frames import COLUMNS, COUNTS, frame, typed
from kdbench.results.outcomes import Outcomes, misfit
from kdbench.spec.record import Record

log = logging.getLogger("kdbench")

VERSION = 1
"""Of the schema. It is raised when a column changes its meaning or its type; new columns do not raise it."""

VERSION_COLUMN = "export_version"
"""The first column of a CSV file, and the key of the version in the metadata of a Parquet file."""

CURVES_COLUMN, OUTCOMES_COLUMN = "curves", "outcomes"
"""Columns that follow those of the frame, where they are exported."""

FURTHER: Mapping[str, tuple[str, str]] = {
    OUTCOMES_COLUMN: ("base64", "The file `outcomes.npz` of the trial; `--no-outcomes` leaves the column out."),
    CURVES_COLUMN: ("JSON", "A list with the lines of `curves.jsonl`, where `--curves` asks for it."),
}
"""These columns, each with its type and meaning."""

SUFFIXES = (".parquet", ".csv")
"""Of the files that can be written and read."""

KINDS: Mapping[str, str] = {
    "text": "Text. In CSV an empty text is a missing value, too.",
    "integer": "A whole number of 64 bits.",
    "number": "A floating-point number of 64 bits; CSV has all digits that tell it apart.",
    "JSON": "Text that holds a JSON value.",
    "base64": "Text that stands for the bytes of a file.",
}
"""The types of columns, each with its meaning. What a trial lacks is null in Parquet, and an empty cell in CSV."""


def _kind(annotation: Any) -> str:
    """Of a field of a record."""
    given = [kind for kind in get_args(annotation) if kind is not type(None)]
    only = given[0] if len(given) == 1 and type(None) in get_args(annotation) else annotation
    known = {str: "text", int: "integer", float: "number"}
    literal = all(isinstance(word, str) for word in get_args(only)) and not isinstance(get_origin(only), type)
    return known.get(only) or ("text" if get_args(only) and literal else "JSON")


_FIELDS: dict[str, Any] = {
    name: field.annotation for name, field in Record.model_fields.items() if name not in ("spec", "environment", "data", "tuning")
}

_FOLLOWING = {**dict.fromkeys((*COUNTS, "evaluate_every"), "integer"), "one_class_error_pct": "number"}
"""The types of columns that no record has; all others of these are text."""

SCHEMA: Mapping[str, str] = {name: _kind(_FIELDS[name]) if name in _FIELDS else _FOLLOWING.get(name, "text") for name in COLUMNS}
"""The columns of a file, in order, each with the name of its type."""


def is_export(path: Path) -> bool:
    """Whether a path names such a file, whether or not it is there."""
    return path.suffix in SUFFIXES


@dataclass(frozen=True)
class Exported:
    """What a file holds: `results` as `kdbench.load_results` gives them; curves and outcomes are empty where it has none."""

    results: pd.DataFrame
    curves: pd.DataFrame
    outcomes: dict[str, Outcomes]


def write_export(
    results: pd.DataFrame, file: Path, *, curves: pd.DataFrame | None = None, outcomes: Mapping[str, Outcomes] | None = None
) -> None:
    """Write a frame of `kdbench.load_results` into one file.

    Args:
        results: the frame.
        file: `.parquet` or `.csv`.
        curves: of `load_curves`, which go into a column; None leaves it out.
        outcomes: of `kdbench.load_outcomes`, which go into a column; None leaves it out.

    Raises:
        KdbenchError: another suffix, a file that is there and is no export, or no pyarrow.
        OSError: it cannot be written.
    """
    if not is_export(file):
        raise KdbenchError(f"{file} has an unknown type. Give a name that ends with {' or '.join(SUFFIXES)}.")
    if file.exists():
        _refuse_others(file)
    schema = dict(SCHEMA)
    rows: list[dict[str, Any]] = [
        {name: _stored(value, name) for name, value in zip(COLUMNS, values, strict=True)}
        for values in results[[*COLUMNS]].astype(object).itertuples(index=False, name=None)
    ]
    if outcomes is not None:
        schema[OUTCOMES_COLUMN] = FURTHER[OUTCOMES_COLUMN][0]
        rows = [{**row, OUTCOMES_COLUMN: _packed(outcomes.get(row["trial"]))} for row in rows]
    if curves is not None:
        schema[CURVES_COLUMN] = FURTHER[CURVES_COLUMN][0]
        epochs = _epochs(curves)
        rows = [{**row, CURVES_COLUMN: json.dumps(epochs.get(row["trial"], []))} for row in rows]
    write_bytes(file, _as_csv(rows, schema) if file.suffix == ".csv" else _as_parquet(rows, schema))


def _packed(outcomes: Outcomes | None) -> str | None:
    return b64encode(outcomes.packed()).decode() if outcomes else None


def read_export(file: Path) -> Exported:
    """What `write_export` wrote.

    Raises:
        KdbenchError: it is no export, of a newer kdbench, or cannot be read; or no pyarrow.
    """
    rows = list(_read(file))
    try:
        curves = [{"trial": row["trial"], **epoch} for row in rows for epoch in json.loads(row.get(CURVES_COLUMN) or "[]")]
        outcomes = {row["trial"]: _unpacked(row) for row in rows if row.get(OUTCOMES_COLUMN)}
        results = frame({name: _value(row.get(name), name) for name in COLUMNS} for row in rows)
    except (KeyError, ValueError, BadZipFile, EOFError, zlib.error) as problem:
        raise _unreadable(file, problem) from None
    errors = dict(zip(results["trial"], results["test_error_pct"], strict=True))
    for trial, found in [*outcomes.items()]:
        if reason := misfit(found, errors[trial]):
            log.warning("%s: `%s` of trial %s is left out: %s.", file, OUTCOMES_COLUMN, trial, reason)
            del outcomes[trial]
    return Exported(results, pd.DataFrame(curves), outcomes)


def as_loaded(results: pd.DataFrame) -> pd.DataFrame:
    """A frame that pandas read from a CSV file, as `kdbench.load_results` gives it: in the file lists are text, and a text may look
    like a number.

    Raises:
        KdbenchError: a text stands for no list.
    """
    columns: dict[str, Any] = {}
    for name in SCHEMA.keys() & {*results.columns}:
        column = results[name].astype(object)
        if SCHEMA[name] == "JSON":
            columns[name] = column.map(partial(_listed, name=name))
        elif SCHEMA[name] == "text" and is_numeric_dtype(results[name]):
            columns[name] = column.map(str, na_action="ignore")
    return typed(results.assign(**columns))


def _listed(value: Any, name: str) -> Any:
    """A list that pandas wrote as Python has it, or `kdbench export` as JSON has it, which for texts is the same."""
    if not isinstance(value, str):
        return value
    try:
        return tuple(TypeAdapter(_FIELDS[name]).validate_python(literal_eval(value)))
    except (ValueError, SyntaxError):  # pydantic's is a ValueError
        text = f"column {name}: '{value}' is no list of texts such as ('one', 'two')"
        raise KdbenchError(f"{text}. Read the file as it was written, or leave the column out.") from None


def _unpacked(row: Mapping[str, Any]) -> Outcomes:
    return Outcomes.unpacked(b64decode(row[OUTCOMES_COLUMN]), data_fingerprint=row["data_fingerprint"])


def _stored(value: Any, name: str) -> object:
    """A value of the frame as the file has it; None where it is missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if SCHEMA[name] == "JSON":
        return TypeAdapter(_FIELDS[name]).dump_json(value).decode()
    return {"integer": int, "number": float, "text": str}[SCHEMA[name]](value)


def _value(stored: Any, name: str) -> object:
    """A value of a file as the frame has it."""
    if stored is None or (stored == "" and SCHEMA[name] != "text"):
        return None
    if SCHEMA[name] == "JSON":
        return TypeAdapter(_FIELDS[name]).validate_json(stored)
    if SCHEMA[name] == "integer" and isinstance(stored, str) and not stored.lstrip("-").isdigit():
        return int(float(stored))  # another program saved the CSV file, and made numbers with a point of a column with empty cells
    return {"integer": int, "number": float, "text": str}[SCHEMA[name]](stored)


def _epochs(curves: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Of each trial, in order; a key that an epoch lacks is left out."""
    epochs: dict[str, list[dict[str, Any]]] = {}
    for row in curves.to_dict("records"):
        known = {key: value for key, value in row.items() if key != "trial" and not (isinstance(value, float) and pd.isna(value))}
        epochs.setdefault(str(row["trial"]), []).append({str(key): value for key, value in known.items()})
    return epochs


def _as_csv(rows: list[dict[str, Any]], schema: Mapping[str, str]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [VERSION_COLUMN, *schema], lineterminator="\n")
    writer.writeheader()
    writer.writerows({VERSION_COLUMN: VERSION, **row} for row in rows)
    return text.getvalue().encode()


def _as_parquet(rows: list[dict[str, Any]], schema: Mapping[str, str]) -> bytes:
    arrow = _arrow()
    types = {"integer": arrow.int64(), "number": arrow.float64()}
    columns = [(name, types.get(kind, arrow.string())) for name, kind in schema.items()]
    fields = arrow.schema(columns, metadata={VERSION_COLUMN: str(VERSION)})
    data = io.BytesIO()
    arrow.parquet.write_table(arrow.Table.from_pylist(rows, schema=fields), data)
    return data.getvalue()


def _read(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, once its version is known."""
    try:
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as text:
                csv.field_size_limit(2**31 - 1)  # of curves
                rows = [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(text)]
            version = rows[0].get(VERSION_COLUMN) if rows else None
        else:
            table = _arrow().parquet.read_table(file)
            rows, version = table.to_pylist(), (table.schema.metadata or {}).get(VERSION_COLUMN.encode())
        number = int(version) if version else 0
    except (ValueError, csv.Error, AttributeError) as problem:  # ArrowInvalid is a ValueError
        raise _unreadable(file, problem) from None
    if not number:
        raise KdbenchError(f"{file} was not written by `kdbench export`. Give a file that was, or a results folder.")
    if number > VERSION:
        raise KdbenchError(f"{file} has version {number} of the schema, and this kdbench reads up to {VERSION}. Update kdbench.")
    yield from rows


def _unreadable(file: Path, problem: Exception) -> KdbenchError:
    return KdbenchError(f"{file} cannot be read ({first_line(problem)}). Export it again with `kdbench export`.")


def _refuse_others(file: Path) -> None:
    try:
        next(_read(file), None)
    except KdbenchError:
        raise KdbenchError(f"{file} exists already, and `kdbench export` did not write it. Choose another name.") from None


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise KdbenchError(
            "Parquet files need pyarrow. Install it with `pip install 'kdbench[parquet]'`, or give a name that ends with .csv."
        ) from None
    return pyarrow
