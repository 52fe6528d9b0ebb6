"""What pydantic finds wrong with a user's values, told with the place of the mistake in the words of YAML."""

import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdbench.errors import KdbenchError, nearest

S = TypeVar("S", bound=BaseModel)

_MUST_BE = {
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "string_type": "text",
}


def validated(spec: type[S], tree: object, *, source: str | Path, path: str = "") -> S:
    """`tree` as a `spec`.

    Args:
        spec: what it must be.
        tree: what a user gave.
        source: where that was read, such as the name of a file.
        path: where in the source `tree` stands, such as `pairs[0].recipe`.

    Raises:
        KdbenchError: one mistake, an unknown key before others; `x.yaml, recipe.epoch: unknown key. Did you mean ...`.
    """
    if booleans := list(booleans_as_numbers(spec, tree)):
        loc, text = booleans[0], "must be a number, not true or false."
    else:
        try:
            return spec.model_validate(tree)
        except ValidationError as problem:
            first = min(problem.errors(), key=lambda error: error["type"] not in ("extra_forbidden", "key_of_another"))
            loc, text = tuple(_written(first["loc"], tree)), _as_text(first, spec)
    below = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    place = f"{path}{below}".removeprefix(".")
    raise KdbenchError(f"{', '.join(filter(None, (str(source), place)))}: {text}")


def booleans_as_numbers(kind: Any, given: object) -> Iterator[tuple[int | str, ...]]:
    """The place of each true or false that pydantic would take for 1 or 0. YAML reads `on` and `yes` as true.

    Args:
        kind: the type that `given` must have.
        given: what a user gave.
    """
    if isinstance(given, bool):
        leaves = set(_leaves(kind))
        if leaves & {int, float} and bool not in leaves:
            yield ()
    elif isinstance(given, dict):
        fields = {name: field.annotation for model in models_in(kind) for name, field in model.model_fields.items()}
        for key in (key for key in given if key in fields or not fields):
            yield from ((key, *place) for place in booleans_as_numbers(fields.get(key, kind), given[key]))
    elif isinstance(given, list | tuple):
        yield from ((i, *place) for i, value in enumerate(given) for place in booleans_as_numbers(kind, value))


def _leaves(kind: Any) -> Iterator[type]:
    """The types that a type is made of; those of the values of a `Literal`."""
    if args := get_args(kind):
        yield from (leaf for arg in args for leaf in _leaves(arg))
    else:
        yield kind if isinstance(kind, type) else type(kind)


def _written(loc: Iterable[int | str], tree: object) -> Iterator[int | str]:
    """A place in words of the file: what may be one value or a list of them has no number where it is one."""
    for key in loc:
        several = isinstance(tree, list | tuple) or (isinstance(tree, dict) and key in tree)
        if isinstance(key, int) and tree is not _UNKNOWN and not several:
            continue
        yield key
        tree = tree[key] if several else _UNKNOWN  # type: ignore[index]  # it is a list or a mapping


_UNKNOWN = object()
"""Stands for what the file does not have as it is read."""


def _as_text(error: ErrorDetails, spec: type[BaseModel]) -> str:
    kind, loc = error["type"], error["loc"]
    if kind == "extra_forbidden":
        name = str(loc[-1])
        return f"unknown key.{nearest(name, [key for key in _keys(spec, loc[:-1]) if key != name])}"
    if kind == "missing":
        return "this key is missing."
    if kind == "too_short":
        return "must not be empty."
    if kind == "key_of_another":
        return f"{error['msg']}."
    if kind == "value_error":
        return f"{error['ctx']['error']}."
    must = f"must be {_MUST_BE[kind]}" if kind in _MUST_BE else error["msg"].replace("Input should", "must")
    text = re.sub(r", (unable to|got a) .*", "", must)
    return f"{text} (got {'nothing' if error['input'] is None else reprlib.repr(error['input'])})."


def _keys(spec: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at `path` below `spec`, by any of the models that may stand there."""
    specs = [spec]
    for key in path:
        if isinstance(key, str):
            specs = [
                inner for found in specs if key in found.model_fields for inner in models_in(found.model_fields[key].annotation)
            ]
    return [key for found in specs for key in found.model_fields]


def models_in(kind: Any) -> tuple[type[BaseModel], ...]:
    """The models among the alternatives of a type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return (kind,)
    return tuple(found for arg in get_args(kind) for found in models_in(arg))
