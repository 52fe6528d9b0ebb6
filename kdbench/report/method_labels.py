"""What readers call a method: `KD`, `AT+KD`, `FT (k=2)`."""

from __future__ import annotations

import json

import pandas as pd

from kdbench.wording import assigned

LITERATURE_NAMES = {
    **{name: name.upper() for name in ("ab", "at", "cc", "crd", "dist", "dkd", "dml", "fsp", "ft")},
    **{name: name.upper() for name in ("kd", "nst", "ofd", "pkt", "rkd", "sp", "vid")},
    "fitnets": "FitNets",
    "fitnets_hint": "FitNets hint",
    "ft_repdistiller": "FT (RepDistiller)",
    "kd_standardized": "KD standardised",
    "reviewkd": "ReviewKD",
    "simkd": "SimKD",
}
"""What the literature calls the shipped methods; any other keeps its registered name."""


def method_labels(results: pd.DataFrame) -> pd.Series[str]:
    """What readers call the method of each row: `KD`, `AT+KD`, `FitNets`.

    Where one pair has a method in several settings, every label of that method ends with the parameters that differ: `FT (k=2)`.
    A method that has one setting for each pair keeps its plain name, and a note of the table says which.
    """
    labels = results["method"].map(plain_label)
    for _, rows in results.groupby("method", sort=False):
        if settings_in_a_pair(rows) > 1:
            labels.loc[rows.index] += " (" + differing_params(rows) + ")"
    return labels


def plain_label(method: str) -> str:
    """`AT+KD` for `at+kd`."""
    return "+".join(LITERATURE_NAMES.get(part, part) for part in method.split("+"))


def settings_in_a_pair(rows: pd.DataFrame) -> int:
    """How many settings of one method, at most, a pair has."""
    return int(rows.groupby(["dataset", "teacher", "student"], dropna=False)["method_params"].nunique().max())


def differing_params(rows: pd.DataFrame) -> pd.Series[str]:
    """For each row of one method the parameters in which the rows differ: `k=2, beta=500`."""
    settings = pd.DataFrame([_flat(text) for text in rows["method_params"]], rows.index)
    differing = settings.loc[:, settings.nunique(dropna=False) > 1]
    return differing.apply(lambda setting: ", ".join(setting.dropna()), axis=1)


def _flat(method_params: str) -> dict[str, str]:
    """`{"ft": {"k": 2.0}}` as `{"k": "k=2"}`; a composition's parameters are named `ft.k`. They stay in the method's order."""
    parts = json.loads(method_params)
    return {
        (full := name if len(parts) == 1 else f"{part}.{name}"): assigned(full, value)
        for part, params in parts.items()
        for name, value in params.items()
    }
