"""What keys a suite, a recipe, a data set or a method has: as their models declare them, for pages and for `kdbench show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from kdbench.spec.mistakes import models_in

REQUIRED = "required"
"""Stands for the default of a key that must be given."""

_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
_SEVERAL = {bool: "true or false", int: "whole numbers", float: "numbers", str: "texts", Path: "paths"}
_BOUNDS = {Ge: ("from {}", "ge"), Gt: ("above {}", "gt"), Le: ("at most {}", "le"), Lt: ("below {}", "lt")}


@dataclass(frozen=True)
class Key:
    """A key that may be given.

    Attributes:
        name: of the key.
        kind: what it may be, in words, such as `whole number, above 0`.
        default: as YAML; `required` where it must be given, empty where nothing stands for it.
        about: what it means.
        inner: the models of the mapping that it may hold, one of which a `name` in it chooses; none where it holds no mapping.
    """

    name: str
    kind: str
    default: str
    about: str
    inner: tuple[type[BaseModel], ...]


def keys(model: type[BaseModel]) -> list[Key]:
    """The keys of a model, in its order."""
    return [
        Key(name, _kind(field), _default(field), " ".join((field.description or "").split()), models_in(field.annotation))
        for name, field in model.model_fields.items()
    ]


def _kind(field: FieldInfo) -> str:
    bounds = [_bound(limit) for limit in field.metadata if type(limit) in _BOUNDS]
    return ", ".join([_words(field.annotation), *bounds])


def _bound(limit: Any) -> str:
    words, attribute = _BOUNDS[type(limit)]
    return words.format(getattr(limit, attribute))


def _words(kind: Any) -> str:
    """A type in words that a writer of YAML knows."""
    origin, inner = get_origin(kind), [arg for arg in get_args(kind) if arg not in (type(None), ...)]
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return _either([_as_yaml(value) for value in inner])
    if origin in (tuple, list, set) and inner:
        each = inner[0] if len(set(inner)) == 1 else object
        return f"list of {f'{len(inner)} ' if len(inner) > 1 else ''}{_several(each)}"
    if origin is dict or models_in(kind):
        return "mapping"
    return _either([_words(arg) for arg in inner]) if inner else _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _several(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _several(get_args(kind)[0])
    return _SEVERAL.get(kind, "mappings" if get_origin(kind) is dict or models_in(kind) else "values")


def _either(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    if field.default_factory or field.default is None or isinstance(field.default, BaseModel) or field.default in ("", (), {}, []):
        return ""
    return _as_yaml(to_jsonable_python(field.default, fallback=str))


def _as_yaml(value: Any) -> str:
    """A JSON value as it would be written in YAML, in one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
