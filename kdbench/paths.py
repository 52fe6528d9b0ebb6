"""Paths as users write them: `~` is the home folder, and a path in a suite begins in the suite's folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from kdbench.errors import KdbenchError

Tree = dict[str, Any]
Change = Callable[[Path], object]


def expanded(path: str | Path) -> Path:
    """With the home folder in the place of `~`."""
    return Path(os.path.expanduser(path))


def found(path: Path) -> bool:
    """Whether something lies there.

    Raises:
        OSError: nobody can tell, such as in a folder that may not be entered.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def from_folder(folder: Path, path: Path) -> Path:
    """Where a path lies that a file in `folder` names.

    Raises:
        KdbenchError: it lies in the working folder, from which paths do not begin.
    """
    path = expanded(path)
    placed = folder / path
    if not found(placed) and found(path):
        raise KdbenchError(
            f"there is no {placed}, and a path in a suite begins in the suite's folder. For {path} in the folder where kdbench was "
            f"started, write {os.path.relpath(path, folder)}."
        )
    return placed


def map_paths(params: type[BaseModel], tree: Tree, change: Change) -> Tree:
    """The values of some parameters with `change` made to those that are paths, by the fields' types, also inside of lists."""
    fields = params.model_fields
    return {name: _mapped(fields[name].annotation, value, change) if name in fields else value for name, value in tree.items()}


def has_path(kind: object) -> bool:
    """Whether a value of this type can be a path, or have one in it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return any(has_path(field.annotation) for field in kind.model_fields.values())
    return kind is Path or any(map(has_path, get_args(kind)))


def _mapped(kind: object, value: object, change: Change) -> object:
    kinds = list(_alternatives(kind))
    if isinstance(value, str | Path):
        as_text = str in kinds or any(get_origin(kind) is Literal and value in get_args(kind) for kind in kinds)
        return change(Path(value)) if Path in kinds and not as_text else value
    for kind in filter(has_path, kinds):
        inner = get_args(kind)
        if isinstance(value, list | tuple) and inner:
            of_each = inner if len(inner) == len(value) and inner[-1] is not ... else inner[:1] * len(value)
            return [_mapped(*pair, change) for pair in zip(of_each, value, strict=True)]
        if isinstance(value, dict):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                return map_paths(kind, value, change)
            return {key: _mapped(inner[-1], of_key, change) for key, of_key in value.items()}
    return value


def _alternatives(kind: object) -> Iterator[object]:
    """The types of a union, or the one type."""
    if get_origin(kind) is Annotated:
        yield from _alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for alternative in get_args(kind):
            yield from _alternatives(alternative)
    else:
        yield kind
