"""Keys of a recipe that stand too high in a suite's file, and where they belong."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from kdbench.spec.mistakes import models_in
from kdbench.spec.recipe import Recipe

_PLACES = {
    **{
        key: (name,)
        for name, field in Recipe.model_fields.items()
        for kind in models_in(field.annotation)
        for key in kind.model_fields
    },
    **dict.fromkeys(Recipe.model_fields, ()),
}
"""Where each key of a recipe stands in it: `("optimiser",)` for `lr`."""


def misplaced(tree: Mapping[str, Any], spec: type[BaseModel], *, under: Sequence[str] = ()) -> tuple[str, str] | None:
    """A key of a recipe that stands higher than it should, and a sentence with its place; None where there is none.

    Args:
        tree: what a user gave for `spec`.
        spec: a recipe; or a suite, which has the recipe under some keys.
    """
    for key in tree:
        if key == "name":
            return key, f"unknown key. {'Write it as `title: ...`' if under else 'A recipe that ships is named by `base: NAME`'}."
        if key in spec.model_fields or key not in _PLACES:
            continue
        written = f"{key}: ..."
        for outer in reversed((*under, *_PLACES[key])):
            written = f"{outer}: {{{written}}}"
        return key, f"unknown key. Write it as `{written}`."
    return None
