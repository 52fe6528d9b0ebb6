"""Which trials may stand in one table: a refusal to mix what is not comparable."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.wording import counted

_ALONE = "Report one suite alone with `kdbench report SUITE`, or filter the frame."
_DEVICES = f"{_ALONE} If one suite ran on several kinds of devices, `--rerun all` trains it anew on one."
_RECIPE = "Choose one with `recipes` (--recipe), or report one suite alone with `kdbench report SUITE`."

_MUST_AGREE: tuple[tuple[str, list[str], tuple[str, str] | None], ...] = (
    ("protocol", [], ("protocol versions", "Run the older trials again, or report each version alone.")),
    ("precision", [], None),
    ("recipe", ["dataset", "student"], ("recipes", _RECIPE)),
    ("epochs", ["dataset", "student"], ("numbers of epochs", _RECIPE)),
    ("teacher_weights_sha256", ["dataset", "teacher", "student", "seed"], ("different teachers of one name", _ALONE)),
    ("dataset_params", ["dataset"], ("settings of the data", "Run each with its own `label`.")),
    ("data_fingerprint", ["dataset"], ("versions of the data", "Run the older trials again on the present data.")),
    ("method_code", ["method", "student"], ("versions of the method's code", "Run the older trials again.")),
    ("stages", ["method", "dataset", "student"], ("settings of `stages`", _ALONE)),
)
"""Column; the columns within whose groups it must be one; what several of it are called, and the fix, which `_precisions` tells of
precisions."""

_IDENTITY = ["dataset", "recipe", "teacher", "student", "method", "method_params", "seed"]


def check_comparable(results: pd.DataFrame) -> None:
    """Refuse finished trials that may not stand in one table.

    Raises:
        KdbenchError: they mix protocols, precisions, recipes or data, or the code of one method, or one trial stands there twice.
    """
    done = results[results["status"] == "done"]
    for column, within, told in _MUST_AGREE:
        for where, rows in _groups(done, within):
            if rows[column].nunique() > 1:
                rows, noun, fix = (rows, *told) if told else _precisions(rows)
                examples = "; ".join(
                    f"{value} ({counted(len(group), 'trial')}, such as {group['trial'].iloc[0]})"
                    for value, group in rows.groupby(column)
                )
                of = f" of {where}" if where else ""
                raise KdbenchError(f"one table cannot mix {noun}{of}: {examples}. {fix}")
    for _, rows in done.groupby(_IDENTITY, dropna=False):
        if len(rows) > 1:
            first, second = rows["trial"].iloc[:2]
            raise KdbenchError(
                f"trials {first} and {second} have the same pair, method, parameters and seed, and a table has one cell for them. "
                "Leave one of them out."
            )


def _precisions(rows: pd.DataFrame) -> tuple[pd.DataFrame, str, str]:
    """Trials of several `precision`, with the recipe in it where that tells which; what they differ in; and the fix.

    One recipe may round differently on different devices, and another one asks for it.
    """
    parts = [set(value.split(", ")) for value in rows["precision"].unique()]
    differing = set.union(*parts) - set.intersection(*parts)
    noun = f"{' and '.join(sorted(differing))} trainings with others" if differing <= {"compiled", "stacked"} else "precisions"
    if (rows.groupby("recipe")["precision"].nunique() > 1).any():
        return rows, noun, _DEVICES
    return rows.assign(precision=rows["precision"] + ", recipe " + rows["recipe"]), noun, _RECIPE


def _groups(frame: pd.DataFrame, columns: list[str]) -> Iterator[tuple[Hashable, pd.DataFrame]]:
    """The groups by `columns` with the value of the first one; the whole frame under the empty name where there are none."""
    if not columns:
        yield "", frame
        return
    for values, rows in frame.groupby(columns, sort=False):
        yield values[0] if isinstance(values, tuple) else values, rows
