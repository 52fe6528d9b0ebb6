"""What a method says of itself: its docstring by paragraphs, its parameters, what it needs."""

import inspect
from collections.abc import Iterator
from typing import Any

from kdbench.method.interface import METHODS, Method


def docstring(value: object) -> str:
    """Its own; `inspect.getdoc` would take that of the base class where there is none."""
    return inspect.cleandoc(value.__doc__ or "")


def describe_method(name: str) -> dict[str, Any]:
    """A method's `name`, `formula`, `paper`, `code`, `deviations`, `text`, `reads`, `needs`, `file` and `params` with defaults.

    Raises:
        KdbenchError: nothing of that name.
    """
    entry = METHODS.entry(name)
    paragraphs = docstring(entry.value).split("\n\n")
    labelled = {}
    for line in "\n".join(paragraphs[1:]).split("\n"):
        for label in ("Paper", "Code", "Deviations"):
            if line.startswith(f"{label}:"):
                labelled[label.lower()] = ""
                current = label.lower()
                line = line.removeprefix(f"{label}:").strip()
        if labelled:
            labelled[current] = f"{labelled[current]} {line}".strip()
    return {
        "name": name,
        "formula": paragraphs[0],
        "text": [part for part in paragraphs[1:] if not part.startswith(("Paper:", "Code:", "Deviations:"))],
        "paper": labelled.get("paper", ""),
        "code": labelled.get("code", ""),
        "deviations": labelled.get("deviations", ""),
        "reads": list(entry.value.reads),
        "needs": list(_needs(entry.value)),
        "file": entry.file,
        "params": {key: None if field.is_required() else field.default for key, field in entry.value.Params.model_fields.items()},
    }


def _needs(method: type[Method]) -> Iterator[str]:
    """What any pair must have for it, in words."""
    for count, what in ((method.min_classes, "classes"), (method.min_batch_size, "images in a batch")):
        if count > 1:
            yield f"at least {count} {what}"
