"""What to cite, as BibTeX: the papers of methods, as their docstrings name them, and kdbench."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from kdbench.method.description import describe_method
from kdbench.method.interface import METHODS
from kdbench.suite.plugins import load_shipped

TITLE = "kdbench: a benchmark harness that compares knowledge-transfer methods, teacher to student, on PyTorch"

_PAPER = re.compile(
    r'(?P<authors>[^"]+), "(?P<title>[^"]+)", (?:(?P<venue>[A-Z]\w+) )?(?P<year>\d{4})(?:, arXiv:(?P<arxiv>[\w./-]+\w))?\.?'
)


def parts(results: pd.DataFrame) -> list[str]:
    """The registered names of the methods of a frame, `at` and `kd` for `at+kd`, in its order."""
    return list(dict.fromkeys(part for method in results["method"].unique() for part in method.split("+")))


def to_bibtex(results: pd.DataFrame) -> str:
    """An entry for kdbench, of the versions that made the results, and for the paper of each method.

    Entries hold what the docstrings of methods hold, and so the surnames of authors only. A method that is not registered, or whose
    docstring names no paper in the usual form, has a comment in place of an entry. Methods that the docstring names there are cited
    too: `fitnets` for `fitnets_hint`.
    """
    ours = {"author": "{The kdbench authors}", "title": f"{{{TITLE}}}"}
    if "kdbench_version" in results:
        ours["version"] = ", ".join(results["kdbench_version"].dropna().unique())
    return "\n".join(
        [
            "% Authors are named by surname only. Complete them from the paper.",
            "",
            _entry("software", "kdbench", ours),
            *map(_cited, dict.fromkeys(named for name in parts(results) for named in (name, *_named_for(name)))),
        ]
    )


def cited(method: str) -> list[str]:
    """The keys of the papers of a method, `at` and `kd` for `at+kd`; those of the methods that it is named for, if it has none."""
    named = dict.fromkeys(named for part in method.split("+") for named in (part, *_named_for(part)))
    return [name for name in named if _PAPER.fullmatch(_paper(name))]


def known_method(name: str) -> dict[str, Any] | None:
    """What there is to know of a method that ships or is registered; None of any other."""
    load_shipped()
    return describe_method(name) if name in METHODS else None


def _paper(method: str) -> str:
    """What the docstring of a method says of its paper."""
    described = known_method(method)
    return described["paper"] if described else ""


def _named_for(method: str) -> list[str]:
    """The methods that the docstring of one without a paper of its own names in the paper's place: `fitnets` of `fitnets_hint`."""
    paper = _paper(method)
    return [] if _PAPER.fullmatch(paper) else [name for name in re.findall(r"`(\w+)`", paper) if name in METHODS]


def _cited(method: str) -> str:
    paper = _paper(method)
    found = _PAPER.fullmatch(paper)
    if not found:
        return f"% {method}: {' '.join(paper.split()) or 'its docstring names no paper'}\n"
    authors = re.split(r", | and ", found["authors"].replace(" et al.", " and others"))
    fields = {"author": " and ".join(authors), "title": f"{{{found['title']}}}", "year": found["year"]}
    if found["venue"]:
        fields["booktitle"] = found["venue"]
    if found["arxiv"]:
        fields |= {"eprint": found["arxiv"], "archiveprefix": "arXiv"}
    return _entry("inproceedings" if found["venue"] else "misc", method, fields)


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{_escaped(text)}}}," for name, text in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}", ""])


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_])", r"\\\1", text)
