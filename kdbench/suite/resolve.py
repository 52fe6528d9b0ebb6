"""Suites: YAML in, trials out. Data, not code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from kdbench.data import DATASETS, Source, SourceParams, unsuited
from kdbench.errors import KdbenchError, nearest
from kdbench.method.interface import METHODS
from kdbench.method.specs import resolve_methods, teacher_label
from kdbench.models import MODELS
from kdbench.models.pretrained import identify
from kdbench.paths import expanded, from_folder, has_path, map_paths
from kdbench.registry import Registry
from kdbench.spec.recipe import Recipe
from kdbench.spec.report_options import ReportOptions
from kdbench.spec.trial import CrossEntropyWeight, DatasetSpec, MethodSpec, NetworkInput, TrialSpec
from kdbench.spec.validation import booleans_as_numbers, validated
from kdbench.suite.contradictions import contradiction
from kdbench.suite.file import NetworkSpec, PairSpec, SuiteFile, TaughtSpec, Tree, TuneSpec, read_mapping
from kdbench.suite.plugins import load_path
from kdbench.suite.recipes import merged, recipe_tree
from kdbench.suite.shipped import find_suite, is_shipped
from kdbench.suite.taught import unfit_for_several, unfit_for_teacher
from kdbench.suite.tuning import Candidates, Setting, Tuning, grid_settings, mistake, over_budget, tuned, without_repetition
from kdbench.wording import counted


@dataclass(frozen=True)
class Suite:
    """A resolved suite.

    Attributes:
        name: the file's stem.
        file: where it lies, absolute.
        content: a hash of its text.
        title: heads the report.
        pairs: (teacher, student) as tables call them, in the file's order.
        methods: their names in the order in which they were asked for, the file's unless any were.
        trials: the students' trials, in the order pair, method, seed, without repetition.
        source: the data set, not yet loaded.
        candidates: for each pair and method the settings that its trials are chosen from. Until a plan has chosen, `trials` are
            those of the suite's own parameters, and a plan's `used` is all that count.
        tuning: how they are chosen; None where they are not.
        tries_settings: whether its trials choose among settings, and are no results.
        keep_students: whether the students' weights are kept.
        expected_error_pct: by the id of a teacher's trial, the test error that it ought to have, where the file says so.
        expected_spread: how much the difference of two methods changes from seed to seed, in points, where the file says so.
        report: how its report looks.
        selection: the methods and seeds that stand for the file's, in words; empty where it is all of the file.
    """

    name: str
    file: Path
    content: str
    title: str
    pairs: tuple[tuple[str, str], ...]
    methods: tuple[str, ...]
    trials: tuple[TrialSpec, ...]
    source: tuple[type[Source], SourceParams]
    keep_students: bool
    expected_error_pct: Mapping[str, float]
    expected_spread: float | None
    report: ReportOptions
    selection: str = ""
    candidates: tuple[Candidates, ...] = ()
    tuning: Tuning | None = None
    tries_settings: bool = False

    @property
    def teachers(self) -> tuple[TrialSpec, ...]:
        """The trials of the teachers that the students need, and of those teachers' own, each after its own; without repetition."""
        found: dict[str, TrialSpec] = {}

        def add(trial: TrialSpec) -> None:
            for teacher in trial.teachers:
                add(teacher)
                found.setdefault(teacher.id, teacher)

        for trial in self.trials:
            add(trial)
        return tuple(found.values())


def load_suite(name: str | Path, *, methods: Sequence[str] = (), seeds: Sequence[int] = ()) -> Suite:
    """Read a suite by its shipped name or its path, load its plugins, and write out its trials.

    Args:
        name: `quick`, or a path to a YAML file.
        methods: where given, only these of the suite's methods, in this order; one that it lacks is added with its defaults.
        seeds: where given, these instead of the suite's.

    Raises:
        KdbenchError: no such suite, or a mistake in it or in a plugin; the message names the file and the place in it.
    """
    file = find_suite(str(name))
    spec = validated(SuiteFile, read_mapping(file), source=file)
    for i, plugin in enumerate(spec.plugins):
        try:
            load_path(file.parent / expanded(plugin))
        except KdbenchError as problem:
            raise KdbenchError(f"{file}, plugins[{i}]: {problem}") from None
    return _Resolver(file, spec, wanted=tuple(dict.fromkeys(methods)), seeds=tuple(seeds)).suite()


_CE: TypeAdapter[CrossEntropyWeight] = TypeAdapter(CrossEntropyWeight)

_Parameters = tuple[tuple[MethodSpec, ...], CrossEntropyWeight | None]
"""The parts of a method with their parameters, and the weight of the cross-entropy where it is given."""


@dataclass(frozen=True)
class _Entry:
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


class _Resolver:
    """Turns one parsed file into trials; every error it raises begins with the place of the mistake."""

    def __init__(self, file: Path, spec: SuiteFile, *, wanted: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self.file = file
        self.folder = Path() if is_shipped(file) else file.parent
        self.spec = spec
        self.wanted = wanted
        named = (("methods", wanted), ("seeds", seeds))
        self.selection = "; ".join(f"{what} {', '.join(map(str, which))}" for what, which in named if which)
        self.listed = self._listed()
        self.seeds = self._seeds(seeds)
        self.tune = self._tune()
        self.recipe_tree = self._recipe_tree()
        self.expected: dict[str, float] = {}

    def suite(self) -> Suite:
        source, params = self._dataset
        dataset = DatasetSpec(name=self.spec.dataset["name"], params=self._identity(params))
        self._recipe({}, "recipe")
        candidates: list[Candidates] = []
        staged = any(entry.teacher_stages for entry in self.listed)
        for i, pair in enumerate(self.spec.pairs):
            if pair in self.spec.pairs[:i]:
                raise self._error(f"pairs[{i}]", "the suite has this pair already. Remove one of the two.")
            teachers, found = self._pair(pair, f"pairs[{i}]", dataset)
            staged = staged or any(teacher.stages for teacher in teachers)
            candidates += found
        if "stages" in self.spec.model_fields_set and not staged:
            raise self._error(
                "stages",
                "no method of the suite has a stage that learns from the teacher alone, so the key has no effect. Remove it.",
            )
        if not candidates:
            raise self._error("pairs", f"`without` leaves {' and '.join(self.wanted)} out of every pair. Choose other methods.")
        suite = Suite(
            name=self.file.stem,
            file=self.file.resolve(),
            content=hashlib.sha256(self.file.read_bytes()).hexdigest()[:16],
            title=self.spec.title,
            pairs=tuple(dict.fromkeys(found.pair for found in candidates)),
            methods=tuple(dict.fromkeys(entry.name for entry in self.chosen)),
            trials=without_repetition(trial for found in candidates for trial in found.provisional),
            source=(source, params),
            keep_students=self.spec.keep_students,
            expected_error_pct=self.expected,
            expected_spread=self.spec.expected_spread,
            report=self.spec.report,
            selection=self.selection,
            candidates=tuple(candidates),
        )
        return tuned(suite, self.tune) if self.tune else suite

    @property
    def chosen(self) -> list[_Entry]:
        """The methods that were asked for, in the order in which they were; all of the file's in its own unless any were."""
        if not self.wanted:
            return self.listed
        return [entry for name in self.wanted for entry in self.listed if entry.name == name]

    def _pair(self, pair: PairSpec, where: str, dataset: DatasetSpec) -> tuple[list[TrialSpec], list[Candidates]]:
        """The teachers' trials, and the settings of each method."""
        names = {entry.name for entry in self.listed}
        parts = {part for entry in self.listed for part in entry.parts}
        for key in pair.methods:
            if key not in parts:
                raise self._error(f"{where}.methods.{key}", _no_method(key, parts))
        for j, key in enumerate(pair.without):
            if key not in names:
                raise self._error(f"{where}.without[{j}]", _no_method(key, names))
        if names <= set(pair.without):
            raise self._error(f"{where}.without", "no method is left for this pair. Remove the pair.")
        recipe = self._recipe(pair.recipe, f"{where}.recipe")
        teachers = self._teachers(pair.teacher, f"{where}.teacher", dataset)
        student = self._network(pair.student, f"{where}.student")
        return teachers, list(self._candidates(pair, where, teachers, {"dataset": dataset, "recipe": recipe, **student}))

    def _teachers(self, given: Sequence[TaughtSpec], where: str, dataset: DatasetSpec) -> list[TrialSpec]:
        """The trials of teachers that are learnt from at once."""
        found: dict[str, TrialSpec] = {}
        for i, teacher in enumerate(given):
            place = f"{where}[{i}]" if len(given) > 1 else where
            trial = self._teacher(teacher, place, dataset)
            if found.setdefault(trial.id, trial) is not trial:
                raise self._error(place, f"the teacher {teacher_label(trial)} is named twice. Name each once.")
        return list(found.values())

    def _teacher(self, given: TaughtSpec, where: str, dataset: DatasetSpec) -> TrialSpec:
        """The trial that trains a teacher, or adopts its weights."""
        own = self._teachers(given.teacher, f"{where}.teacher", dataset)
        ((name, params),) = (given.method or {"scratch": {}}).items()
        entry = self._entry(name, params, f"{where}.method")
        if problem := unfit_for_teacher(given, entry.parts):
            raise self._error(where, problem)
        if problem := unfit_for_several(entry.parts, own):
            raise self._error(f"{where}.method", f"{problem}. Give it one of them.")
        recipe = self._recipe(self.spec.teacher.recipe, "teacher.recipe")
        if problem := _late(entry.ce, recipe):
            raise self._error(f"{entry.place}.ce", problem)
        if problem := _unlike(entry.parts, recipe):
            raise self._error(f"{where}.method", f"{problem}, or give another `method`.")
        methods = () if given.weights else resolve_methods(entry.name, entry.params)
        if problem := contradiction(methods, entry.ce):
            raise self._error(entry.place, problem)
        own_input = NetworkInput(normalise=given.normalise, size=given.size) if given.normalise or given.size else None
        if own_input and self._image_shape and (misfit := own_input.misfit(self._image_shape)):
            key, problem = misfit
            raise self._error(f"{where}.{key}", problem)
        trial = TrialSpec(
            dataset=dataset,
            recipe=recipe,
            **self._network(given, where),
            input=own_input,
            methods=methods,
            ce=entry.ce,
            stages=self.spec.stages if entry.teacher_stages else None,
            seed=self.spec.teacher.seed,
            **_taught_by(own),
        )
        self._expect(trial, given.expected_error_pct, where)
        return trial

    def _candidates(self, pair: PairSpec, where: str, teachers: Sequence[TrialSpec], shared: Tree) -> Iterator[Candidates]:
        """The settings of each method for a pair, whose students have the fields `shared` of their trials."""
        places: dict[str, str] = {}
        for entry in self.chosen:
            if entry.name in pair.without:
                continue
            if problem := _unlike(entry.parts, shared["recipe"]):
                raise self._error(entry.place, f"{problem}, or leave the method out of {where} with `without: [{entry.name}]`.")
            if problem := unfit_for_several(entry.parts, teachers):
                fix = f"Leave the method out of this pair with `without: [{entry.name}]`, or give the pair one teacher."
                raise self._error(f"{where}.teacher", f"{problem}. {fix}")
            own, *others = self._settings(entry, pair, where, shared["recipe"])
            if place := places.get(str(own)):
                raise self._error(entry.place, f"for {where} this is the same as {place}. Remove one of the two.")
            places[str(own)] = entry.place
            taught = _taught_by(teachers) if any(METHODS.get(part).reads for part in entry.parts) else {}
            stages = self.spec.stages if entry.teacher_stages else None
            given = {**shared, **taught, "stages": stages}
            settings = [
                Setting(tuple(TrialSpec(**given, methods=methods, ce=ce, seed=seed) for seed in self.seeds))
                for methods, ce in (own, *others)
            ]
            names = " and ".join(map(teacher_label, teachers)), settings[0].reported[0].label
            found = Candidates(names, entry.name, tuple(settings), entry.tunable)
            if self.tune and (unequal := over_budget(self.tune, found)):
                raise self._error("tune.grid", unequal)
            yield found

    def _settings(self, entry: _Entry, pair: PairSpec, where: str, recipe: Recipe) -> list[_Parameters]:
        """A method for a pair with its own parameters, then with each of the grid's that are others."""
        own = self._parameters(entry, pair, where, recipe)
        if not self.tune or entry.name not in self.tune.grid:
            return [own]
        place = f"tune.grid.{entry.name}"
        try:
            listed = grid_settings(self.tune.grid[entry.name])
        except ValueError as problem:
            raise self._error(place, f"{problem}.") from None
        found = [self._parameters(entry, pair, where, recipe, self._entry(entry.name, given, "tune.grid")) for given in listed]
        for i, setting in enumerate(found):
            if setting in found[:i]:
                raise self._error(place, f"setting {i + 1} is the same as setting {found.index(setting) + 1}. Remove it.")
        trains = partial(_trained, entry.name)
        return [own, *(setting for setting in found if trains(setting) != trains(own))]

    def _parameters(self, entry: _Entry, pair: PairSpec, where: str, recipe: Recipe, setting: _Entry | None = None) -> _Parameters:
        """A method for a pair, where a setting is given with what that changes."""
        ce, place = (setting.ce, setting.place) if setting and setting.ce is not None else (entry.ce, entry.place)
        if problem := _late(ce, recipe):
            raise self._error(f"{place}.ce", problem)
        methods = self._methods(entry, pair, where, setting)
        if problem := contradiction(methods, ce):
            raise self._error((setting or entry).place, problem)
        return methods, ce

    def _network(self, network: NetworkSpec, where: str) -> Tree:
        """The fields of a trial that say which network it is."""
        self._known(MODELS, network.model, where)
        weights = None
        if network.weights:
            try:
                weights = identify(network.weights, model=network.model, folder=self.folder)
            except KdbenchError as problem:
                raise self._error(f"{where}.weights", str(problem)) from None
        return {"student": network.model, "hooks": network.hooks, "weights": weights}

    def _expect(self, teacher: TrialSpec, error_pct: float | None, where: str) -> None:
        if error_pct is not None and self.expected.setdefault(teacher.id, error_pct) != error_pct:
            message = f"another pair expects {self.expected[teacher.id]:g} % of this teacher. Give one value."
            raise self._error(f"{where}.expected_error_pct", message)

    def _listed(self) -> list[_Entry]:
        """The file's methods, then those that were asked for beside them, with the parameters that the file gives their parts."""
        entries = []
        for i, given in enumerate(self.spec.methods):
            ((name, params),) = given.items()
            entries.append(self._entry(name, params, f"methods[{i}]"))
        known = {entry.name: entry.params for entry in reversed(entries)}
        for name in (name for name in self.wanted if name not in known):
            parts = name.split("+")
            given = {part: known[part][part] for part in parts if part in known} if len(parts) > 1 else {}
            entries.append(self._entry(name, given, "--methods"))
        return entries

    def _entry(self, name: str, given: Tree, place: str) -> _Entry:
        parts = name.split("+")
        for part in parts:
            self._known(METHODS, part, place)
        if len(set(parts)) < len(parts):
            raise self._error(place, f"'{name}' names a method twice. Name each once.")
        place = f"{place}.{name}" if given else place
        given = dict(given)
        ce = self._ce(given.pop("ce"), f"{place}.ce") if "ce" in given else None
        by_part = given if len(parts) > 1 else {name: given}
        for key in by_part:
            if key not in parts or not isinstance(by_part[key] or {}, dict):
                fix = f"Write each one's parameters under its name: `{parts[0]}: {{...}}`."
                raise self._error(f"{place}.{key}", f"'{name}' combines methods. {fix}")
        params = {}
        for part in parts:
            kind, where = METHODS.get(part).Params, f"{place}.{part}" if len(parts) > 1 else place
            params[part] = self._placed(kind, by_part.get(part) or {}, where, self.folder.absolute())
            validated(kind, params[part], source=self.file, path=where)
        return _Entry(name, params, ce, place)

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
            raise self._error(
                place, "give a weight of the cross-entropy, 0 or more; or weights by epoch from epoch 0 on: `{0: 1, 30: 0.5}`."
            )
        return weight

    def _methods(self, entry: _Entry, pair: PairSpec, where: str, setting: _Entry | None = None) -> tuple[MethodSpec, ...]:
        """With the parameters of the entry, over them the pair's, over these the setting's."""
        params = {}
        for part in entry.parts:
            kind, place = METHODS.get(part).Params, f"{where}.methods.{part}"
            params[part] = entry.params[part] | self._placed(kind, pair.methods.get(part, {}), place, self.folder.absolute())
            validated(kind, params[part], source=self.file, path=place)
            if setting:
                params[part] |= setting.params[part]
                validated(kind, params[part], source=self.file, path=setting.place)
        return resolve_methods(entry.name, params)

    def _seeds(self, wanted: tuple[int, ...]) -> tuple[int, ...]:
        seeds, place = (wanted, "--seeds") if wanted else (self.spec.seeds, "seeds")
        if min(seeds) < 0:
            raise self._error(place, f"{min(seeds)} cannot be a seed. Give whole numbers from 0 up.")
        if len(set(seeds)) < len(seeds):
            raise self._error(place, "a seed is named twice. Name each once.")
        return seeds

    def _tune(self) -> TuneSpec | None:
        tune, names = self.spec.tune, [entry.name for entry in self.listed]
        if tune and (
            found := mistake(tune, seeds={*self.seeds, *self.spec.seeds}, methods=names, held_out=self._dataset[1].validation)
        ):
            raise self._error(*found)
        return tune

    @cached_property
    def _dataset(self) -> tuple[type[Source], SourceParams]:
        given = dict(self.spec.dataset)
        if "name" not in given:
            raise self._error("dataset.name", "this key is missing.")
        name = given.pop("name")
        self._known(DATASETS, name, "dataset")
        source = DATASETS.get(name)
        placed = self._placed(source.Params, given, "dataset", self.folder)
        return source, validated(source.Params, placed, source=self.file, path="dataset")

    @cached_property
    def _image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of what networks see; None where only the images tell."""
        source, params = self._dataset
        return source(params, cache=Path()).image_shape

    def _identity(self, params: SourceParams) -> Tree:
        """The data set's parameters as part of a trial's identity: a path stands there as the file has it, wherever that lies."""
        tree, fields = params.model_dump(mode="json"), type(params).model_fields
        written = map_paths(type(params), self.spec.dataset, str)
        return tree | {name: value for name, value in written.items() if name in tree and has_path(fields[name].annotation)}

    def _placed(self, params: type[BaseModel], given: Tree, where: str, folder: Path) -> Tree:
        """Parameters in which relative paths begin in the folder."""
        try:
            return map_paths(params, given, partial(from_folder, folder))
        except KdbenchError as problem:
            raise self._error(where, str(problem)) from None

    def _recipe_tree(self) -> Tree:
        try:
            return recipe_tree(self.spec.recipe)
        except KdbenchError as problem:
            raise self._error("recipe", str(problem)) from None

    def _recipe(self, changes: Tree, where: str) -> Recipe:
        try:
            tree = recipe_tree(changes) if "base" in changes else merged(self.recipe_tree, changes)
        except KdbenchError as reason:
            raise self._error(where, str(reason)) from None
        recipe = validated(Recipe, tree, source=self.file, path=where)
        if problem := unsuited(recipe.augmentation, self._dataset[0]):
            raise self._error(f"{where}.augmentation", problem)
        return recipe

    def _known(self, registry: Registry[Any], name: str, where: str) -> None:
        try:
            registry.get(name)
        except KdbenchError as problem:
            raise self._error(where, str(problem)) from None

    def _error(self, where: str, message: str) -> KdbenchError:
        place = where if where.startswith("--") else f"{self.file}, {where}"
        return KdbenchError(f"{place}: {message}")


def _trained(name: str, setting: _Parameters) -> _Parameters:
    """A setting of a method, where the cross-entropy's weight in full is written out if it is known: that of `scratch` alone."""
    methods, ce = setting
    return methods, 1.0 if ce is None and name == "scratch" else ce


def _late(ce: CrossEntropyWeight | None, recipe: Recipe) -> str:
    """What is wrong with a weight of the cross-entropy that changes by epoch; empty where all its epochs are reached."""
    late = max(ce) if isinstance(ce, dict) else 0
    return f"epoch {late} is never reached in {counted(recipe.epochs, 'epoch')}. Give less." if late >= recipe.epochs else ""


def _unlike(parts: Sequence[str], recipe: Recipe) -> str:
    """What is wrong with methods that compare views with images that the recipe mixes, and half the fix; empty where none does."""
    for part in parts:
        for view in ("strong", "rotations"):
            if recipe.mixes and view in METHODS.get(part).views:
                return (
                    f"{part} compares images with their view '{view}', which is not mixed, and the recipe mixes the images. Set "
                    "`mixup: 0` and `cutmix: 0` in the recipe"
                )
    return ""


def _taught_by(teachers: Sequence[TrialSpec]) -> Tree:
    """The fields of a trial that say who its teachers are."""
    return {"teacher": teachers[0], "other_teachers": tuple(teachers[1:])} if teachers else {}


def _no_method(name: str, known: Set[str]) -> str:
    fix = nearest(name, known) or f" Choose one of {', '.join(sorted(known))}."
    return f"'{name}' is not one of the suite's methods.{fix}"
