"""Recipes that ship, and how a suite's own keys override theirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError, nearest
from kdbench.spec.optimiser import USUAL_NAMES
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
