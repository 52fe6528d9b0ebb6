"""What there is to choose from, one entry each."""

from __future__ import annotations

import ast

from kdbench.catalogue.text import Value, first_sentence, head_comment
from kdbench.data import DATASETS
from kdbench.method.description import describe_method, docstring
from kdbench.method.interface import METHODS
from kdbench.models import MODELS, blank_model
from kdbench.suite.recipes import recipe_file
from kdbench.suite.resolve import load_suite
from kdbench.suite.shipped import example_names, recipe_names, shipped, suite_names


def listing(what: str) -> list[Value]:
    """Entries of `methods`, `models`, `datasets`, `suites`, `recipes` or `examples`, each with `name` and `about`.

    A method has `transfers`, `family` and `published` too, as `describe_method` gives them. A model has `params` and `macs`, for
    3x32x32 images and 10 classes, null for the names that stand for a library's. A suite has the numbers
    of its `trials` and `teachers`.
    """
    return {
        "methods": _methods,
        "models": _models,
        "datasets": _datasets,
        "suites": _suites,
        "recipes": _recipes,
        "examples": _examples,
    }[what]()


def _methods() -> list[Value]:
    return [_method(describe_method(name)) for name in METHODS.names()]


def _method(described: Value) -> Value:
    keys = ("transfers", "family", "published")
    about = f"{described['transfers'] or described['formula']}{' (' + described['family'] + ')' if described['family'] else ''}"
    text = ", ".join(filter(None, (about, described["published"])))
    return {"name": described["name"], "about": text, **{key: described[key] for key in keys}}


def _models() -> list[Value]:
    from kdbench.models.measure import macs, parameters

    entries = []
    for name in MODELS.names():
        network = blank_model(name, num_classes=10, in_channels=3)
        count, work = parameters(network), macs(network, (3, 32, 32))
        about = f"{count:>10,} parameters, {work / 1e6:8.2f} M multiply-accumulates (3x32x32, 10 classes)"
        entries.append({"name": name, "about": about, "params": count, "macs": work})
    for library in ("timm", "torchvision"):
        about = f"any classifier of {library} by its own name there, such as {library}/resnet34: see `kdbench show model`"
        entries.append({"name": f"{library}/NAME", "about": about, "params": None, "macs": None})
    return sorted(entries, key=lambda entry: str(entry["name"]))


def _datasets() -> list[Value]:
    return [{"name": name, "about": docstring(DATASETS.get(name)).split("\n")[0]} for name in DATASETS.names()]


def _suites() -> list[Value]:
    entries = []
    for name in suite_names():
        suite = load_suite(name)
        entries.append({"name": name, "about": suite.title, "trials": len(suite.trials), "teachers": len(suite.teachers)})
    return entries


def _recipes() -> list[Value]:
    return [
        {"name": name, "about": first_sentence(head_comment(recipe_file(name).read_text(encoding="utf-8")))}
        for name in recipe_names()
    ]


def _examples() -> list[Value]:
    return [{"name": name, "about": _about((shipped("examples") / name).read_text(encoding="utf-8"))} for name in example_names()]


def _about(example: str) -> str:
    """Of a suite or of a file of Python."""
    return first_sentence(head_comment(example) or ast.get_docstring(ast.parse(example)) or "")
