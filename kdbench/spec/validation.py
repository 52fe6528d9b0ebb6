"""What pydantic finds wrong with a user's values, told with the place of the mistake in the words of YAML."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdbench.errors import KdbenchError
from kdbench.spec.mistakes import mistake, models_in, no_number

S = TypeVar("S", bound=BaseModel)


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
        loc, text = booleans[0], no_number(spec, booleans[0])
    else:
        try:
            return spec.model_validate(tree)
        except ValidationError as problem:
            first = min(problem.errors(), key=lambda error: not _of_a_key(error))
            loc, text = mistake(first, spec, tree)
    below = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    place = f"{path}{below}".removeprefix(".")
    raise KdbenchError(f"{', '.join(filter(None, (str(source), place)))}: {text}")


def _of_a_key(error: ErrorDetails) -> bool:
    """Whether a key is wrong, and not a value."""
    return error["type"] in ("extra_forbidden", "key_of_another") or error["loc"][-1:] == ("[key]",)


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
            if isinstance(given[key], bool) and get_origin(fields.get(key)) is tuple:
                continue  # what it lacks is a list, as pydantic says
            yield from ((key, *place) for place in booleans_as_numbers(fields.get(key, kind), given[key]))
    elif isinstance(given, list | tuple):
        yield from ((i, *place) for i, value in enumerate(given) for place in booleans_as_numbers(kind, value))


def _leaves(kind: Any) -> Iterator[type]:
    """The types that a type is made of; those of the values of a `Literal`."""
    if args := get_args(kind):
        yield from (leaf for arg in args for leaf in _leaves(arg))
    else:
        yield kind if isinstance(kind, type) else type(kind)
