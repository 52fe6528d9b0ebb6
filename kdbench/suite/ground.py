"""What every part of a suite's file is read with: where it lies, its data set, its recipe, and errors that name the place."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kdbench.data import DATASETS, Source, SourceParams, unsuited
from kdbench.errors import KdbenchError
from kdbench.models import MODELS
from kdbench.models.pretrained import identify
from kdbench.paths import from_folder, has_path, map_paths
from kdbench.registry import Registry
from kdbench.spec.mistakes import MISSING
from kdbench.spec.recipe import Recipe
from kdbench.spec.trial import DatasetSpec
from kdbench.spec.validation import validated
from kdbench.suite.file import NetworkSpec, SuiteFile, Tree
from kdbench.suite.misplaced import misplaced
from kdbench.suite.recipes import merged, recipe_tree
from kdbench.suite.shipped import is_shipped


class Ground:
    """One parsed file; every error that it raises begins with the place of the mistake.

    Attributes:
        file: where it lies.
        spec: what it says.
        folder: where its relative paths begin.
    """

    def __init__(self, file: Path, spec: SuiteFile) -> None:
        self.file = file
        self.spec = spec
        self.folder = Path() if is_shipped(file) else file.parent

    @cached_property
    def source(self) -> tuple[type[Source], SourceParams]:
        """The kind of data set and its parameters; nothing is loaded."""
        given = dict(self.spec.dataset)
        if "name" not in given:
            raise self.error("dataset.name", MISSING)
        name = given.pop("name")
        if "/" in name and name not in DATASETS.names():
            images = f"{{name: imagefolder, label: ..., root: {name}, size: ...}}"
            raise self.error("dataset", f"unknown data set '{name}'. If it is a folder of images, write `{images}`.")
        self.known(DATASETS, name, "dataset")
        source = DATASETS.get(name)
        placed = self.placed(source.Params, given, "dataset", self.folder)
        return source, validated(source.Params, placed, source=self.file, path="dataset")

    @cached_property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of what networks see; None where only the images tell."""
        source, params = self.source
        return source(params, cache=Path()).image_shape

    @cached_property
    def dataset(self) -> DatasetSpec:
        """The data set as part of a trial's identity: a path stands there as the file has it, wherever that lies."""
        _, params = self.source
        tree, fields = params.model_dump(mode="json"), type(params).model_fields
        written = map_paths(type(params), self.spec.dataset, str)
        paths = {name: value for name, value in written.items() if name in tree and has_path(fields[name].annotation)}
        return DatasetSpec(name=self.spec.dataset["name"], params=tree | paths)

    @cached_property
    def _recipe_tree(self) -> Tree:
        try:
            return recipe_tree(self.spec.recipe)
        except KdbenchError as problem:
            raise self.error("recipe", str(problem)) from None

    def recipe(self, changes: Tree, where: str) -> Recipe:
        """The suite's recipe with changes, or another one with them where these name a base."""
        of_suite = self._recipe_tree
        try:
            tree = recipe_tree(changes) if "base" in changes else merged(of_suite, changes)
        except KdbenchError as reason:
            raise self.error(where, str(reason)) from None
        if found := misplaced(tree, Recipe):
            raise self.error(f"{where}.{found[0]}", found[1])
        lacking = [key for key, field in Recipe.model_fields.items() if field.is_required() and key not in tree]
        if lacking and tree.keys() <= Recipe.model_fields.keys():
            fix = "Add it, or name a recipe to start from, such as `base: repdistiller`."
            raise self.error(f"{where}.{lacking[0]}", f"this key is missing. {fix}")
        recipe = validated(Recipe, tree, source=self.file, path=where)
        if problem := unsuited(recipe.augmentation, self.source[0]):
            raise self.error(f"{where}.augmentation", problem)
        return recipe

    def network(self, network: NetworkSpec, where: str) -> Tree:
        """The fields of a trial that say which network it is."""
        self.known(MODELS, network.model, where)
        weights = None
        if network.weights:
            try:
                weights = identify(network.weights, model=network.model, folder=self.folder)
            except KdbenchError as problem:
                raise self.error(f"{where}.weights", str(problem)) from None
        return {"student": network.model, "hooks": network.hooks, "weights": weights}

    def placed(self, params: type[BaseModel], given: Tree, where: str, folder: Path) -> Tree:
        """Parameters in which relative paths begin in the folder."""
        try:
            return map_paths(params, given, partial(from_folder, folder))
        except KdbenchError as problem:
            raise self.error(where, str(problem)) from None

    def known(self, registry: Registry[Any], name: str, where: str) -> None:
        """Refuse a name that is not registered."""
        try:
            registry.get(name)
        except KdbenchError as problem:
            raise self.error(where, str(problem)) from None

    def error(self, where: str, message: str) -> KdbenchError:
        """An error that begins with its place: a key of the file, or an option of the command line."""
        place = where if where.startswith("--") else f"{self.file}, {where}"
        return KdbenchError(f"{place}: {message}")
