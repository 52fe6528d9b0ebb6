"""Published numbers: read from CSV files, checked line by line, turned into test errors. Nothing here is typed into a table."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from kdbench.errors import KdbenchError, nearest
from kdbench.method.interface import METHODS
from kdbench.models import MODELS
from kdbench.paths import expanded
from kdbench.report.tables.published import plain
from kdbench.spec.validation import validated
from kdbench.suite.shipped import shipped

REQUIRED = ("dataset", "teacher", "student", "method", "value", "quantity", "selection", "source")
OPTIONAL = ("epochs", "note")

TEACHER = "teacher"
"""Stands for a method in the rows of a teacher's own number."""

_METHOD = re.compile(r"(?P<name>[^\s()]+)(?: \((?P<params>.+)\))?")
_QUANTITY = re.compile(r"top-1 (accuracy|error) %(?:, std (\d+(?:\.\d+)?))?")


class Number(NamedTuple):
    """One published number, as a test error.

    Attributes:
        dataset: such as `cifar100`; capitals, dashes and what stands in parentheses do not count.
        teacher: our name of the network.
        student: our name of the network.
        method: our name of the method, `teacher` for the teacher's own number.
        params: those of the method's parameters that the number is for, by part, as JSON; `{}` where it is for any.
        error_pct: test error in percent.
        std: its standard deviation over runs, in percentage points, None where the source gives none.
        selection: which epoch the number is of, in words; `last epoch` is ours.
        source: where it stands; what precedes a parenthesis heads the column.
        epochs: of the training, None where they are not known.
        note: how the number differs from what our method of this name would give; empty where it does not.
    """

    dataset: str
    teacher: str
    student: str
    method: str
    params: str
    error_pct: float
    std: float | None
    selection: str
    source: str
    epochs: int | None
    note: str


def shipped_numbers() -> Path:
    """The file of published numbers that lies beside the shipped suites."""
    return shipped("suites") / "published.csv"


def read_published(files: Sequence[Path]) -> pd.DataFrame:
    """The numbers of CSV files, one row for each, with the fields of `Number` and `file`, the file that it comes from.

    A file has the columns `REQUIRED` and may have those in `OPTIONAL`. `quantity` is `top-1 accuracy %` or `top-1 error %`, and may
    end with `, std 0.24`. `method` may end with parameters, as in `dkd (standardized=true)` or `crd+ttm (ttm.weighted=true)`: such
    a number stands beside trials that have them, and the plain method's does not.

    Raises:
        KdbenchError: a file cannot be read, or a line of it is wrong; the message names the file and the line.
    """
    found: dict[tuple[str, ...], tuple[str, Number]] = {}
    for file in map(expanded, files):
        kinds: dict[str, str] = {}
        for line, given in _lines(file):
            place = f"{file}, line {line}"
            number, kind = _number(given, place)
            if kinds.setdefault(number.source, kind) != kind:
                raise KdbenchError(
                    f"{place}: '{number.source}' gives {kinds[number.source]} above and {kind} here. "
                    "Write all its numbers as one of them."
                )
            key = (plain(number.dataset), number.teacher, number.student, number.method, number.params, number.source)
            if key in found:
                raise KdbenchError(f"{place}: this number is already in {found[key][0]}. Remove one of them.")
            found[key] = place, number
    rows = [{**number._asdict(), "file": place.rpartition(", line ")[0]} for place, number in found.values()]
    return pd.DataFrame(rows, columns=[*Number._fields, "file"])


def _lines(file: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a file, each with the number of its last line."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, restval="")
            columns = reader.fieldnames or ()
            if missing := [name for name in REQUIRED if name not in columns]:
                wanted = ",".join(REQUIRED)
                raise KdbenchError(f"{file}, line 1: no column {', '.join(missing)}. The first line names {wanted}.")
            if unknown := [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]:
                hint = nearest(unknown[0], OPTIONAL)
                raise KdbenchError(f"{file}, line 1: unknown column '{unknown[0]}'.{hint} Remove it, or call it `note`.")
            rows = []
            for row in reader:
                if None in row:
                    raise KdbenchError(f"{file}, line {reader.line_num}: more values than columns. Quote a value that has commas.")
                rows.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
            return rows
    except OSError as problem:
        raise KdbenchError(f"{file} cannot be read ({problem.strerror}). Give a CSV file of published numbers.") from None
    except (UnicodeDecodeError, csv.Error) as problem:
        raise KdbenchError(f"{file} is no CSV ({problem}). Give a text file with commas, in UTF-8.") from None


def _number(given: dict[str, str], place: str) -> tuple[Number, str]:
    """A row as a number, and whether it was an accuracy or an error."""
    in_percent = "Write it in percent, such as 74.92."
    if empty := [name for name in REQUIRED if not given[name]]:
        raise KdbenchError(f"{place}: {empty[0]} is empty. Fill it in, or remove the line.")
    try:
        for network in (given["teacher"], given["student"]):
            MODELS.require(network)
        method, params = _method(given["method"])
    except KdbenchError as problem:
        raise KdbenchError(f"{place}: {problem}") from None
    quantity = _QUANTITY.fullmatch(given["quantity"])
    if not quantity:
        raise KdbenchError(f"{place}: quantity '{given['quantity']}' is unknown. Write `top-1 accuracy %` or `top-1 error %`.")
    try:
        value = float(given["value"])
    except ValueError:
        raise KdbenchError(f"{place}: value '{given['value']}' is not a number. {in_percent}") from None
    if not 0 <= value <= 100:
        raise KdbenchError(f"{place}: value {given['value']} is not a percentage. {in_percent}")
    kind, std = quantity.groups()
    if kind == "accuracy" and value <= 1:
        raise KdbenchError(f"{place}: value {given['value']} is an accuracy of {value:g} %. It looks like a fraction. {in_percent}")
    epochs = given.get("epochs", "")
    if epochs and not epochs.isdecimal():
        raise KdbenchError(f"{place}: epochs '{epochs}' is not a whole number. Leave it empty where it is not known.")
    number = Number(
        **{name: given[name] for name in ("dataset", "teacher", "student", "selection", "source")},
        method=method,
        params=params,
        error_pct=round(100 - value, 6) if kind == "accuracy" else value,
        std=float(std) if std else None,
        epochs=int(epochs) if epochs else None,
        note=given.get("note", ""),
    )
    return number, kind


def _method(given: str) -> tuple[str, str]:
    """The name of a method, and the parameters in parentheses after it by part, as JSON.

    Raises:
        KdbenchError: no such method or parameter, or a value that it cannot have.
    """
    found = _METHOD.fullmatch(given)
    name, pairs = (found["name"], found["params"]) if found else (given, None)
    parts = name.split("+") if name != TEACHER else []
    for part in parts:
        METHODS.require(part)
    params: dict[str, dict[str, object]] = {}
    for pair in pairs.split(", ") if pairs else ():
        key, _, value = pair.partition("=")
        part, _, param = key.rpartition(".") if len(parts) > 1 else (name, "", key)
        if part not in parts or not value:
            raise KdbenchError(f"'{pair}' is no parameter of {name}. Write `METHOD (NAME=VALUE)`, or `PART.NAME=VALUE` of a sum.")
        kind = METHODS.get(part).Params
        tree = validated(kind, {param: yaml.safe_load(value)}, source=part).model_dump(mode="json")
        params.setdefault(part, {})[param] = tree.get(param)
    return name, json.dumps(params, sort_keys=True)
