"""A suite with every default written out, as a tree that gives the same trials."""

from collections.abc import Sequence

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from kdbench.method.interface import METHODS
from kdbench.spec.recipe import Recipe
from kdbench.suite.file import SuiteFile, TaughtSpec, Tree, read_mapping
from kdbench.suite.recipes import merged, recipe_tree
from kdbench.suite.suite import Suite


def suite_tree(suite: Suite) -> Tree:
    """The suite's file with the recipe, the data set's keys and the methods' parameters in full. Paths stand as in the file."""
    spec = SuiteFile.model_validate(read_mapping(suite.file))
    name, given = spec.dataset["name"], {key: value for key, value in spec.dataset.items() if key != "name"}
    methods = [_method(*item) for entry in spec.methods for item in entry.items()]
    tree = full(spec) | {
        "dataset": {"name": name, **merged(full(suite.source[1]), given)},
        "recipe": full(Recipe.model_validate(recipe_tree(spec.recipe))),
        "methods": methods,
        "pairs": [{**full(pair), "teacher": _teachers(pair.teacher)} for pair in spec.pairs],
    }
    if not any(trial.stages for trial in (*suite.teachers, *suite.trials)):
        del tree["stages"]  # it would have no effect, and is refused then
    return tree


def _method(name: str, given: Tree) -> str | Tree:
    parts = name.split("+")
    ce = {"ce": given["ce"]} if "ce" in given else {}
    given = {key: value for key, value in given.items() if key != "ce"}
    by_part = given if len(parts) > 1 else {name: given}
    params = {part: full(METHODS.get(part).Params.model_validate(by_part.get(part) or {})) for part in parts}
    if not any(params.values()) and not ce:
        return name
    return {name: {**ce, **(params if len(parts) > 1 else params[name])}}


def _teachers(given: Sequence[TaughtSpec]) -> Tree | list[Tree]:
    """Teachers as a file has them: one alone is no list, and has no keys that few teachers have unless they are given."""
    written = []
    for teacher in given:
        tree = {name: value for name, value in full(teacher).items() if value or name not in _FEW}
        written.append({**tree, "teacher": _teachers(teacher.teacher)} if teacher.teacher else tree)
    return written[0] if len(written) == 1 else written


_FEW = ("method", "teacher", "normalise", "size")


def full(model: BaseModel) -> Tree:
    """Every field, also those that are no part of a trial's identity, as JSON would have it."""
    return {name: _plain(value) for name, value in model}


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return full(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value)
