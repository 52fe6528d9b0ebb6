"""What the page says of each method: formula, parameters and paper."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from kdbench.report.formats.bibtex import known_method, parts
from kdbench.results.method_labels import plain_label
from kdbench.wording import assigned

_UNKNOWN = "Not described here, since the method is not registered. Give its file with --plugin."


def method_cards(results: pd.DataFrame, *, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """`label`, `formula`, `text` (paragraphs) and `facts` (name and text) of each method; less of one that is not registered."""
    return [
        _card(name, names.get(name, plain_label(name)), list(dict.fromkeys(_settings(results, name)))) for name in parts(results)
    ]


def _settings(results: pd.DataFrame, name: str) -> Iterator[str]:
    """The parameters of the method in each of its settings: `temperature=4, alpha=0.9`."""
    for text in results["method_params"].unique():
        params = json.loads(text).get(name)
        if params:
            yield ", ".join(assigned(key, value) for key, value in params.items())


def _card(name: str, label: str, settings: list[str]) -> dict[str, Any]:
    parameters = [("Parameters", "; or ".join(settings))] if settings else []
    described = known_method(name)
    if not described:
        return {"label": label, "formula": "", "text": [_UNKNOWN], "facts": parameters}
    facts = [
        ("Transfers", described["transfers"]),
        ("Paper", _with_links(described["paper"])),
        ("Code", described["code"]),
        ("Deviations", described["deviations"]),
        *parameters,
    ]
    return {
        "label": label,
        "formula": described["formula"],
        "text": described["text"],
        "facts": [(label, text) for label, text in facts if text],
    }


def _with_links(paper: str) -> str:
    """The paper with the address of what is on arXiv."""
    before, arxiv, number = paper.rstrip(".").partition("arXiv:")
    return f"{before}{arxiv}{number}, https://arxiv.org/abs/{number}" if arxiv and number.replace(".", "").isdigit() else paper
