"""What a suite, a recipe and a data set hold, every default written out: as values for `--json`, as YAML to copy into a suite."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from kdbench.catalogue.images import Known, contents_as_json, contents_as_lines, normalisation_of, normalisation_text
from kdbench.catalogue.keys import REQUIRED, keys
from kdbench.catalogue.text import WIDTH, Value, as_yaml, as_yaml_line, head_comment
from kdbench.data import DATASETS, Contents
from kdbench.method.description import docstring
from kdbench.spec.recipe import Recipe
from kdbench.spec.validation import validated
from kdbench.suite.file import read_mapping
from kdbench.suite.recipes import recipe_file
from kdbench.suite.suite import Suite
from kdbench.suite.written_out import full, suite_tree
from kdbench.wording import counted

Key = tuple[tuple[str, ...], Any, str]
"""Where it stands, its value, and what it means."""

COMPUTED = "computed unless given"
"""Stands for the default of a key that has none that is the same everywhere."""


def suite_as_json(suite: Suite, contents: Known) -> Value:
    """`name`, `file`, `about`, `data` as in a plan, how many `teachers` and `trials`, and `suite`, its keys in full."""
    return {
        "name": suite.name,
        "file": str(suite.file),
        "about": head_comment(suite.file.read_text(encoding="utf-8")),
        "data": contents_as_json(contents),
        "teachers": len(suite.teachers),
        "trials": len(suite.trials),
        "suite": suite_tree(suite),
    }


def suite_as_text(suite: Suite, contents: Known) -> str:
    """A suite file that gives the same trials; comments say what the suite is for and what its images are."""
    head = [
        *_paragraphs(head_comment(suite.file.read_text(encoding="utf-8"))),
        f"{suite.file}: {counted(len(suite.teachers), 'teacher')} and {counted(len(suite.trials), 'student')}",
        *images_as_lines(contents),
    ]
    return "\n".join([*_commented(head), as_yaml(suite_tree(suite))])


def recipe_as_json(name: str) -> Value:
    """`name`, `file`, `about` and `keys`, each with `key` (such as `optimiser.lr`), `value` and `meaning`.

    Raises:
        KdbenchError: no recipe of that name ships.
    """
    file = recipe_file(name)
    found = [
        {"key": ".".join(path), "value": value, "meaning": meaning} for path, value, meaning in _recipe(name) if _is_leaf(value)
    ]
    return {"name": name, "file": str(file), "about": head_comment(file.read_text(encoding="utf-8")), "keys": found}


def recipe_as_text(name: str) -> str:
    """The recipe as a suite may have it, with what each key means above it.

    Raises:
        KdbenchError: no recipe of that name ships.
    """
    about = _paragraphs(head_comment(recipe_file(name).read_text(encoding="utf-8")))
    return "\n".join([*_commented(about), "recipe:", *_lines(_recipe(name))])


def _recipe(name: str) -> Iterator[Key]:
    file = recipe_file(name)
    return _keys(Recipe, full(validated(Recipe, read_mapping(file), source=file)))


def dataset_as_json(name: str, contents: Known) -> Value:
    """`name`, `about`, `data` as in a plan, and `keys`, each with `key`, `default`, `required` and `meaning`.

    `normalisation` has the `mean` and the `std` of each channel, of pixels scaled to 0..1; null where only a key or the images
    tell.

    Raises:
        KdbenchError: nothing of that name.
    """
    found = [
        {
            "key": ".".join(path),
            "default": None if value in (REQUIRED, COMPUTED) else value,
            "required": value == REQUIRED,
            "meaning": meaning,
        }
        for path, value, meaning in _dataset(name)
        if _is_leaf(value)
    ]
    normalisation = normalisation_of(DATASETS.get(name))
    return {
        "name": name,
        "about": docstring(DATASETS.get(name)),
        "data": contents_as_json(contents),
        "normalisation": normalisation and {"mean": list(normalisation[0]), "std": list(normalisation[1])},
        "keys": found,
    }


def dataset_as_text(name: str, contents: Known) -> str:
    """The data set as a suite may have it, with what each key means above it.

    Raises:
        KdbenchError: nothing of that name.
    """
    normalisation = normalisation_of(DATASETS.get(name))
    pixels = [normalisation_text(normalisation)] if normalisation else []
    head = [*_paragraphs(docstring(DATASETS.get(name))), *images_as_lines(contents), *pixels]
    return "\n".join([*_commented(head), "dataset:", f"  name: {name}", *_lines(_dataset(name))])


def _dataset(name: str) -> Iterator[Key]:
    """Those that must be given first."""
    params = DATASETS.get(name).Params
    values = {key: _default(field) for key, field in params.model_fields.items()}
    return _keys(params, dict(sorted(values.items(), key=lambda item: item[1] is not REQUIRED)))


def _default(field: FieldInfo) -> object:
    if field.is_required():
        return REQUIRED
    return COMPUTED if field.default_factory else field.default


def images_as_lines(contents: Known) -> list[str]:
    """How many there are, and the names of their classes, with how many each has where that differs."""
    if not isinstance(contents, Contents):
        return contents_as_lines(contents)
    if len({*contents.train}) == len({*contents.test}) == 1:
        return [*contents_as_lines(contents), f"classes: {', '.join(contents.classes)}"]
    counts = zip(contents.classes, contents.train, contents.test, strict=True)
    classes = ", ".join(f"{name} ({train:,} + {test:,})" for name, train, test in counts)
    return [*contents_as_lines(contents), f"classes (training + test images): {classes}"]


def _keys(model: type[BaseModel], values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key of a model, in the order of the values; those of a model inside of it follow its own."""
    declared = {key.name: key for key in keys(model)}
    for name, value in values.items():
        key, plain = declared[name], to_jsonable_python(value)
        yield (*path, name), plain, key.about
        if isinstance(plain, dict):
            fitting = (inner for inner in key.inner if plain.keys() <= inner.model_fields.keys())
            yield from (found for inner in islice(fitting, 1) for found in _keys(inner, plain, (*path, name)))


def _is_leaf(value: object) -> bool:
    return not isinstance(value, dict)


def _lines(keys: Iterator[Key]) -> Iterator[str]:
    """YAML, indented under a key of its own."""
    for path, value, meaning in keys:
        indent = "  " * len(path)
        yield from (f"{indent}{line}" for line in _commented([meaning]))
        if value == COMPUTED:
            yield f"{indent}# {path[-1]}:  ({value})"
        elif value == REQUIRED:
            yield f"{indent}{path[-1]}:  # {value}"
        else:
            yield f"{indent}{path[-1]}:{f' {as_yaml_line(value)}' if _is_leaf(value) else ''}"


def _commented(paragraphs: Iterable[str]) -> list[str]:
    """Lines of comment, none longer than `WIDTH` but for a long word, such as a path."""
    fill = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    return [f"# {line}".rstrip() for text in paragraphs for line in fill.wrap(text) or [""]]


def _paragraphs(text: str) -> list[str]:
    """Each in one line, with an empty one between two."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")).splitlines() if text else []
