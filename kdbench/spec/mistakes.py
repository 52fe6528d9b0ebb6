"""What is wrong with a user's value, as a sentence that says what was given, what is wanted and how to mend it."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from kdbench.errors import listed, nearest

_WANTED = {
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("dict_type", "model_type"), "a mapping of keys to values"),
    **dict.fromkeys(("string_type", "path_type"), "text"),
    "tuple_type": "a list",
}
"""By the type of an error of pydantic, what the value must be."""

MOST_KEYS = 12
"""So many keys are named where one is unknown and none is like it."""

MISSING = "this key is missing. Add it."

Place = tuple[int | str, ...]

_ALTERNATIVE = re.compile(r"(dict|tuple)\[.+\]")
"""In a place of pydantic's, which of several types a value was tried as; the file has no such key."""


def shown(given: object) -> str:
    """A value as YAML has it, a long one shortened."""
    if given is None:
        return "nothing"
    return str(given).lower() if isinstance(given, bool | date) else reprlib.repr(given)


def mistake(error: ErrorDetails, spec: type[BaseModel], tree: object) -> tuple[Place, str]:
    """The place of an error of pydantic in `tree`, which is no `spec`, and the sentence."""
    kind, given = error["type"], error["input"]
    loc = tuple(key for key in error["loc"] if not _ALTERNATIVE.fullmatch(str(key)))
    if kind == "invalid_key" or loc[-1:] == ("[key]",):
        above = tuple(_written(loc[:-1] if kind == "invalid_key" else loc[:-2], tree))
        return above, f"a key must be text (got {shown(given)}). Put it in quotes, or remove it."
    place = tuple(_written(loc, tree))
    if kind == "extra_forbidden":
        known = [key for key in _keys(spec, loc[:-1]) if key != loc[-1]]
        fix = f" Choose one of {listed(known, most=MOST_KEYS)}." if known else " Remove it."
        return place, f"unknown key.{nearest(str(loc[-1]), known) or fix}"
    if kind == "missing":
        return place, MISSING if isinstance(loc[-1], str) else f"the list is too short (got {shown(given)}). Add a value."
    if kind == "too_long":
        return place, f"the list is too long (got {shown(given)}). Give {error['ctx']['max_length']} values."
    if kind == "too_short":
        return place, "must not be empty. Give at least one."
    if kind == "key_of_another":
        return place, f"{error['msg']}."
    if kind == "value_error":
        return place, f"{error['ctx']['error']}."
    if wanted := _WANTED.get(kind):
        return place, f"must be {wanted} (got {shown(given)}). {_fix(wanted, given, spec, loc)}."
    must = re.sub(r", (unable to|got a) .*", "", error["msg"].replace("Input should", "must"))
    return place, f"{must} (got {shown(given)})."


def no_number(spec: Any, loc: Place) -> str:
    """The sentence where a number is given as true or false."""
    return f"must be a number, not true or false. {_as_number(True, _fields(spec, loc))}."


def models_in(kind: Any) -> tuple[type[BaseModel], ...]:
    """The models among the alternatives of a type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return (kind,)
    return tuple(found for arg in get_args(kind) for found in models_in(arg))


def _fix(wanted: str, given: object, spec: type[BaseModel], loc: Place) -> str:
    """How to write what is wanted, as a sentence without its point."""
    fields = _fields(spec, loc)
    match wanted:
        case "a number" | "a whole number":
            fix = _as_number(given, fields)
        case "a list":
            fix = _as_list(given)
        case "text":
            fix = _as_text(given)
        case "a mapping of keys to values":
            fix = _as_mapping(given, _models(spec, loc))
        case _:
            fix = "Write one of the two"
    out = given is None and isinstance(loc[-1], str) and any(not field.is_required() for field in fields)
    return f"{fix}; or leave the key out" if out else fix


def _as_number(given: object, fields: Sequence[FieldInfo]) -> str:
    if isinstance(given, str) and re.fullmatch(r"-?\d+", given):
        return f"Write it without quotes: {given}"
    if isinstance(given, float):
        return "Write it without a fraction"
    usual = next((field.default for field in fields if type(field.default) in (int, float) and field.default), None)
    if usual is not None:
        return f"Write one, such as {usual:g}"
    return "Write one number, without brackets" if isinstance(given, dict | list) else "Write it in digits"


def _as_list(given: object) -> str:
    if given is None or isinstance(given, dict):
        return "Put a hyphen before each of its items"
    return f"Write it in square brackets: [{given}]"


def _as_mapping(given: object, models: Sequence[type[BaseModel]]) -> str:
    keys = list(dict.fromkeys(key for model in models for key in model.model_fields))
    if isinstance(given, str) and "name" in keys:
        return f"Write {{name: {given}}}"
    if len(models) == 1 and (needed := [key for key, field in models[0].model_fields.items() if field.is_required()]):
        return f"Write `{{{', '.join(f'{key}: ...' for key in needed)}}}`"
    return f"Its keys are {listed(keys, most=MOST_KEYS)}" if keys else "Write `{key: value}`"


def _as_text(given: object) -> str:
    if given is None:
        return "Write it after the colon"
    return "Write one text" if isinstance(given, dict | list) else f"Put it in quotes: '{shown(given)}'"


def _written(loc: Iterable[int | str], tree: object) -> Iterator[int | str]:
    """A place in words of the file: what may be one value or a list of them has no number where it is one."""
    for key in loc:
        there = key in tree if isinstance(tree, dict) else isinstance(tree, list | tuple) and key in range(len(tree))
        if isinstance(key, int) and tree is not _UNKNOWN and not there:
            continue
        yield key
        tree = tree[key] if there else _UNKNOWN  # type: ignore[index]  # it is a list or a mapping


_UNKNOWN = object()
"""Stands for what the file does not have as it is read."""


def _keys(spec: type[BaseModel], path: Place) -> list[str]:
    """The keys that may stand at `path` below `spec`, by any of the models that may stand there."""
    return list(dict.fromkeys(key for found in _models(spec, path) for key in found.model_fields))


def _models(spec: type[BaseModel], path: Place) -> tuple[type[BaseModel], ...]:
    """The models that may stand at `path` below `spec`."""
    return (spec,) if not path else tuple(model for field in _fields(spec, path) for model in models_in(field.annotation))


def _fields(spec: type[BaseModel], path: Place) -> list[FieldInfo]:
    """The fields at `path` below `spec`, of any of the models that may stand there."""
    fields: list[FieldInfo] = []
    specs: tuple[type[BaseModel], ...] = (spec,)
    for key in path:
        if isinstance(key, str):
            fields = [found.model_fields[key] for found in specs if key in found.model_fields]
            specs = tuple(model for field in fields for model in models_in(field.annotation))
    return fields
