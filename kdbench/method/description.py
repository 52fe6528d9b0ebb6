"""What a method says of itself: its docstring by paragraphs, its parameters, what it needs."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from kdbench.method.interface import METHODS, Method


def docstring(value: object) -> str:
    """Its own; `inspect.getdoc` would take that of the base class where there is none."""
    return inspect.cleandoc(value.__doc__ or "")


LABELS = ("Transfers", "Paper", "Code", "Deviations")
"""Begin the lines of the last paragraph of a method's docstring."""


def describe_method(name: str) -> dict[str, Any]:
    """What there is to know of a method.

    `name`, `formula`, `text`, `transfers` (what it takes from the teacher, in a few words), `family` (`logits`, `features`,
    `relations` or one of its own), `published` (the venue and the year of its paper), `paper`, `code`, `deviations`, `reads`,
    `needs`, `file`, and `params` with their defaults. What the docstring does not say is empty.

    Raises:
        KdbenchError: nothing of that name.
    """
    entry = METHODS.entry(name)
    formula, *paragraphs = docstring(entry.value).split("\n\n")
    labelled = _labelled("\n".join(paragraphs))
    transfers = re.fullmatch(r"(?P<transfers>.*?)(?: \((?P<family>[^()]+)\))?", labelled["Transfers"].rstrip("."))
    published = re.search(r'", ((?:[A-Z]\w+ )?\d{4})\b', labelled["Paper"])
    return {
        "name": name,
        "formula": formula,
        "text": [part for part in paragraphs if not part.startswith(tuple(f"{label}:" for label in LABELS))],
        **(transfers.groupdict("") if transfers else {}),
        "published": published[1] if published else "",
        "paper": labelled["Paper"],
        "code": labelled["Code"],
        "deviations": labelled["Deviations"],
        "reads": list(entry.value.reads),
        "needs": list(_needs(entry.value)),
        "file": entry.file,
        "params": {key: None if field.is_required() else field.default for key, field in entry.value.Params.model_fields.items()},
    }


def _labelled(text: str) -> dict[str, str]:
    """What follows each label, up to the next one; empty where a label is missing."""
    found = dict.fromkeys(LABELS, "")
    current = None
    for line in text.split("\n"):
        label = line.partition(":")[0]
        if label in LABELS:
            current, line = label, line.partition(":")[2].strip()
        if current:
            found[current] = f"{found[current]} {line}".strip()
    return found


def _needs(method: type[Method]) -> Iterator[str]:
    """What any pair must have for it, in words."""
    for count, what in ((method.min_classes, "classes"), (method.min_batch_size, "images in a batch")):
        if count > 1:
            yield f"at least {count} {what}"
    for view in method.views:
        yield f"the view {view} of each batch"
    for survey in method.teacher_surveys:
        yield f"a survey of the training set by the teacher ({survey})"
