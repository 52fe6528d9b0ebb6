"""Recipes that ship, and how a suite's own keys override theirs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kdbench.errors import KdbenchError, nearest
from kdbench.spec.mistakes import models_in
from kdbench.spec.optimiser import USUAL_NAMES
from kdbench.spec.recipe import Recipe
from kdbench.suite.file import Tree, read_mapping
from kdbench.suite.shipped import recipe_names, shipped


def recipe_file(name: str) -> Path:
    """Where a shipped recipe lies.

    Raises:
        KdbenchError: no recipe of that name ships.
    """
    names = recipe_names()
    if name not in names:
        raise KdbenchError(f"unknown recipe '{name}'.{nearest(name, names)} Choose one of {', '.join(names)}.")
    return shipped("suites") / "recipes" / f"{name}.yaml"


def recipe_tree(given: Mapping[str, Any]) -> Tree:
    """The keys of a suite's recipe, over those of its `base` where it has one.

    Raises:
        KdbenchError: no recipe of that name ships.
    """
    changes = dict(given)
    if "base" not in changes:
        return changes
    return merged(read_mapping(recipe_file(str(changes.pop("base")))), changes)


def merged(base: Tree, changes: Mapping[str, Any]) -> Tree:
    """`changes` over `base`, mapping by mapping; one with another `name` is another thing, and takes nothing over."""
    tree = dict(base)
    for key, value in changes.items():
        before = tree.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            name = before.get("name", USUAL_NAMES.get(key))
            if value.get("name", name) == name:
                value = merged(before, value)
        tree[key] = value
    return tree


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
