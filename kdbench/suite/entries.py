"""The methods of a suite and their parameters: the file's, a pair's over them, and over these a setting's of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import TypeAdapter, ValidationError

from kdbench.method.interface import METHODS
from kdbench.method.specs import resolve_methods
from kdbench.spec.recipe import Recipe
from kdbench.spec.trial import CrossEntropyWeight, MethodSpec
from kdbench.spec.validation import booleans_as_numbers, validated
from kdbench.suite.contradictions import contradiction
from kdbench.suite.file import PairSpec, Tree
from kdbench.suite.ground import Ground
from kdbench.suite.tuning import grid_settings
from kdbench.wording import counted

_CE: TypeAdapter[CrossEntropyWeight] = TypeAdapter(CrossEntropyWeight)

Parameters = tuple[tuple[MethodSpec, ...], CrossEntropyWeight | None]
"""The parts of a method with their parameters, and the weight of the cross-entropy where it is given."""


@dataclass(frozen=True)
class Entry:
    """One of a suite's methods: its parameters by part, the cross-entropy's weight where it is given, and where it stands."""

    name: str
    params: dict[str, Tree]
    ce: CrossEntropyWeight | None
    place: str

    @property
    def parts(self) -> list[str]:
        return self.name.split("+")

    @property
    def teacher_stages(self) -> bool:
        """Whether any part has a stage that learns from the teacher alone."""
        return any(METHODS.get(part).teacher_stages for part in self.parts)

    @property
    def tunable(self) -> bool:
        """Whether any part has a parameter."""
        return any(METHODS.get(part).Params.model_fields for part in self.parts)


class Entries:
    """Reads the methods of one file.

    Attributes:
        listed: the file's, then those that were asked for beside them.
        chosen: the methods that were asked for, in the order in which they were; all of the file's in its own unless any were.
    """

    def __init__(self, ground: Ground, wanted: Sequence[str]) -> None:
        self.ground = ground
        self.wanted = wanted
        self.listed = self._listed()
        self.chosen = [entry for name in wanted for entry in self.listed if entry.name == name] if wanted else self.listed

    def entry(self, name: str, given: Tree, place: str) -> Entry:
        """A method with the parameters that the file gives it at a place."""
        parts = name.split("+")
        if "" in parts:
            raise self.ground.error(place, f"'{name}' lacks a name beside a plus. Write one on each side, such as `ft+kd`.")
        for part in parts:
            self.ground.known(METHODS, part, place)
        if len(set(parts)) < len(parts):
            raise self.ground.error(place, f"'{name}' names a method twice. Name each once.")
        place = f"{place}.{name}" if given else place
        given = dict(given)
        ce = self._ce(given.pop("ce"), f"{place}.ce") if "ce" in given else None
        by_part = given if len(parts) > 1 else {name: given}
        for key in by_part:
            if key not in parts or not isinstance(by_part[key] or {}, dict):
                fix = f"Write each one's parameters under its name: `{parts[0]}: {{...}}`."
                raise self.ground.error(f"{place}.{key}", f"'{name}' combines methods. {fix}")
        params = {}
        for part in parts:
            kind, where = METHODS.get(part).Params, f"{place}.{part}" if len(parts) > 1 else place
            params[part] = self.ground.placed(kind, by_part.get(part) or {}, where, self.ground.folder.absolute())
            validated(kind, params[part], source=self.ground.file, path=where)
        return Entry(name, params, ce, place)

    def settings(self, entry: Entry, pair: PairSpec, where: str, recipe: Recipe) -> list[Parameters]:
        """A method for a pair with its own parameters, then with each of the grid's that are others."""
        own = self._parameters(entry, pair, where, recipe)
        tune = self.ground.spec.tune
        if not tune or entry.name not in tune.grid:
            return [own]
        place = f"tune.grid.{entry.name}"
        try:
            listed = grid_settings(tune.grid[entry.name])
        except ValueError as problem:
            raise self.ground.error(place, f"{problem}.") from None
        found = [self._parameters(entry, pair, where, recipe, self.entry(entry.name, given, "tune.grid")) for given in listed]
        for i, setting in enumerate(found):
            if setting in found[:i]:
                raise self.ground.error(place, f"setting {i + 1} is the same as setting {found.index(setting) + 1}. Remove it.")
        trains = partial(_trained, entry.name)
        return [own, *(setting for setting in found if trains(setting) != trains(own))]

    def _parameters(self, entry: Entry, pair: PairSpec, where: str, recipe: Recipe, setting: Entry | None = None) -> Parameters:
        """A method for a pair, where a setting is given with what that changes."""
        ce, place = (setting.ce, setting.place) if setting and setting.ce is not None else (entry.ce, entry.place)
        if problem := late(ce, recipe):
            raise self.ground.error(f"{place}.ce", problem)
        methods = self._methods(entry, pair, where, setting)
        if problem := contradiction(methods, ce):
            raise self.ground.error((setting or entry).place, problem)
        return methods, ce

    def _methods(self, entry: Entry, pair: PairSpec, where: str, setting: Entry | None = None) -> tuple[MethodSpec, ...]:
        """With the parameters of the entry, over them the pair's, over these the setting's."""
        params = {}
        for part in entry.parts:
            kind, place = METHODS.get(part).Params, f"{where}.methods.{part}"
            of_pair = self.ground.placed(kind, pair.methods.get(part, {}), place, self.ground.folder.absolute())
            params[part] = entry.params[part] | of_pair
            validated(kind, params[part], source=self.ground.file, path=place)
            if setting:
                params[part] |= setting.params[part]
                validated(kind, params[part], source=self.ground.file, path=setting.place)
        return resolve_methods(entry.name, params)

    def _listed(self) -> list[Entry]:
        """The file's methods, then those that were asked for beside them, with the parameters that the file gives their parts."""
        entries = []
        for i, given in enumerate(self.ground.spec.methods):
            ((name, params),) = given.items()
            entries.append(self.entry(name, params, f"methods[{i}]"))
        known = {entry.name: entry.params for entry in reversed(entries)}
        for name in (name for name in self.wanted if name not in known):
            parts = name.split("+")
            given = {part: known[part][part] for part in parts if part in known} if len(parts) > 1 else {}
            entries.append(self.entry(name, given, "--methods"))
        return entries

    def _ce(self, given: object, place: str) -> CrossEntropyWeight:
        try:
            weight = _CE.validate_python(given)
        except ValidationError:
            weight = {}
        if (
            any(True for _ in booleans_as_numbers(CrossEntropyWeight, given))
            or weight == {}
            or (isinstance(weight, dict) and 0 not in weight)
        ):
            raise self.ground.error(
                place, "give a weight of the cross-entropy, 0 or more; or weights by epoch from epoch 0 on: `{0: 1, 30: 0.5}`."
            )
        return weight


def _trained(name: str, setting: Parameters) -> Parameters:
    """A setting of a method, where the cross-entropy's weight in full is written out if it is known: that of `scratch` alone."""
    methods, ce = setting
    return methods, 1.0 if ce is None and name == "scratch" else ce


def late(ce: CrossEntropyWeight | None, recipe: Recipe) -> str:
    """What is wrong with a weight of the cross-entropy that changes by epoch; empty where all its epochs are reached."""
    last = max(ce) if isinstance(ce, dict) else 0
    return f"epoch {last} is never reached in {counted(recipe.epochs, 'epoch')}. Give less." if last >= recipe.epochs else ""


def unlike(parts: Sequence[str], recipe: Recipe) -> str:
    """What is wrong with methods that compare views with images that the recipe mixes, and half the fix; empty where none does."""
    for part in parts:
        for view in ("strong", "rotations"):
            if recipe.mixes and view in METHODS.get(part).views:
                return (
                    f"{part} compares images with their view '{view}', which is not mixed, and the recipe mixes the images. Set "
                    "`mixup: 0` and `cutmix: 0` in the recipe"
                )
    return ""
