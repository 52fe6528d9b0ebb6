"""What readers call a method: `KD`, `AT+KD`, `FT (k=2)`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd

from kdbench.wording import assigned

_ABBREVIATIONS = (
    *("ab", "afd", "at", "byot", "cc", "crd", "crld", "ctkd", "dgkd", "dist", "dkd", "dml", "ffl", "fsp", "ft", "ickd", "irg"),
    *("itrd", "kd", "mgd", "mlkd", "nkd", "norm", "nst", "ofd", "pefd", "pkt", "rkd", "rld", "rsd", "sdd", "skd", "sp", "srrl"),
    *("sskd", "ttm", "vid", "wsld"),
)
LITERATURE_NAMES = {
    **{name: name.upper() for name in _ABBREVIATIONS},
    "catkd": "CAT-KD",
    "deit": "DeiT",
    "eakd": "EA-KD",
    "fitnets": "FitNets",
    "fitnets_hint": "FitNets hint",
    "ft_repdistiller": "FT (RepDistiller)",
    "kd_standardized": "KD standardised",
    "kdpp": "KD++",
    "label_smoothing": "label smoothing",
    "mlkd_noaug": "MLKD (no augmentation)",
    "normkd": "NormKD",
    "ofa": "OFA-KD",
    "pskd": "PS-KD",
    "reviewkd": "ReviewKD",
    "semckd": "SemCKD",
    "simkd": "SimKD",
    "tfkd_reg": "Tf-KD (reg)",
    "wkd_f": "WKD-F",
    "wkd_l": "WKD-L",
}
"""What the literature calls the shipped methods; any other keeps its registered name."""

CE = "ce"
"""The key of the cross-entropy's weight among a method's parameters."""

NO_NAMES: Mapping[str, str] = MappingProxyType({})

_PAIR = ["dataset", "teacher", "student"]


def labelled(results: pd.DataFrame, names: Mapping[str, str] = NO_NAMES) -> pd.DataFrame:
    """The frame with three more columns on the method of each row.

    `label` is what the report calls it, `usual_label` the same without `names`, and `called` the label without parameters.
    """
    usual, plain = method_labels(results), results["method"].map(plain_label)
    called = results["method"].map(lambda method: names.get(method, plain_label(method, names)))
    label = [names.get(whole, short + whole.removeprefix(base)) for whole, short, base in zip(usual, called, plain, strict=True)]
    return results.assign(label=pd.Series(label, results.index, dtype=object), usual_label=usual, called=called)


def method_labels(results: pd.DataFrame) -> pd.Series[str]:
    """What readers call the method of each row: `KD`, `AT+KD`, `FitNets`.

    Where one pair has a method in several settings, every label of that method ends with the parameters that differ in some pair:
    `FT (k=2)`; a setting that has none of these parameters keeps the bare name. Parameters that differ from pair to pair alone are
    in no label, and a note of the table tells them.
    """
    labels = results["method"].map(plain_label)
    for _, rows in results.groupby("method", sort=False):
        if settings_in_a_pair(rows) > 1:
            differing = differing_params(rows, within=_PAIR)
            labels.loc[rows.index] += (" (" + differing + ")").where(differing != "", "")
    return labels


def plain_label(method: str, names: Mapping[str, str] = NO_NAMES) -> str:
    """`AT+KD` for `at+kd`; a part that has one of the `names` has that."""
    return "+".join(names.get(part, LITERATURE_NAMES.get(part, part)) for part in method.split("+"))


def settings_in_a_pair(rows: pd.DataFrame) -> int:
    """How many settings of one method, at most, a pair has."""
    return int(rows.groupby(_PAIR, dropna=False)["method_params"].nunique().max())


def differing_params(rows: pd.DataFrame, *, within: Sequence[str] = ()) -> pd.Series[str]:
    """For each row of one method the parameters in which rows differ: `k=2, beta=500`; or rows that agree in columns `within`."""
    settings = pd.DataFrame([_flat(text) for text in rows["method_params"]], rows.index)
    if within:
        values = settings.groupby([rows[name] for name in within], dropna=False).nunique(dropna=False).max()
    else:
        values = settings.nunique(dropna=False)
    differing = settings.loc[:, values > 1]
    return differing.apply(lambda setting: ", ".join(setting.dropna()), axis=1)


def _flat(method_params: str) -> dict[str, str]:
    """`{"ft": {"k": 2.0}}` as `{"k": "k=2"}`; a composition's parameters are named `ft.k`. They stay in the method's order."""
    parts = json.loads(method_params)
    ce = {CE: assigned(CE, _by_epoch(parts.pop(CE)))} if CE in parts else {}
    return ce | {
        (full := name if len(parts) == 1 else f"{part}.{name}"): assigned(full, value)
        for part, params in parts.items()
        for name, value in params.items()
    }


def _by_epoch(weight: Any) -> object:
    """A weight by epoch with numbers for keys, which are text in JSON."""
    return {int(epoch): value for epoch, value in weight.items()} if isinstance(weight, dict) else weight
