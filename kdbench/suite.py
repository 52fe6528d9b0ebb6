"""Suites: YAML in, trials out. Data, not code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from kdbench.data import DATASETS, Source
from kdbench.errors import KdbenchError, nearest
from kdbench.method import METHODS
from kdbench.models import MODELS
from kdbench.plugins import shipped
from kdbench.recipe import Recipe, Spec
from kdbench.trial import DatasetSpec, TrialSpec, resolve_methods

S = TypeVar("S", bound=BaseModel)
Tree = dict[str, Any]
Seeds = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


class PairSpec(Spec):
    """A teacher and a student, and what is particular to them.

    `recipe` overrides fields of the suite's for the student; `methods` overrides parameters of a method by its name; `without`
    leaves methods of the suite out.
    """

    teacher: str
    student: str
    recipe: Tree = {}
    methods: dict[str, Tree] = {}
    without: tuple[str, ...] = ()


class TeacherSpec(Spec):
    """How the suite's teachers are trained: their seed, and fields of the recipe that differ from the students'."""

    seed: NonNegativeInt = 0
    recipe: Tree = {}


class SuiteFile(Spec):
    """What a suite's YAML may hold."""

    title: str
    dataset: str | Tree
    recipe: str | Tree
    teacher: TeacherSpec = TeacherSpec()
    seeds: Seeds
    methods: tuple[str | dict[str, Tree], ...] = Field(min_length=1)
    pairs: tuple[PairSpec, ...] = Field(min_length=1)
    keep_students: bool = False


@dataclass(frozen=True)
class Suite:
    """A resolved suite.

    Attributes:
        name: the file's stem.
        title: heads the report.
        pairs: (teacher, student) names in the file's order.
        methods: their names in the file's order.
        trials: the students' trials, in the order pair, method, seed, without repetition.
        source: the data set, not yet loaded.
        keep_students: whether the students' weights are kept.
    """

    name: str
    title: str
    pairs: tuple[tuple[str, str], ...]
    methods: tuple[str, ...]
    trials: tuple[TrialSpec, ...]
    source: tuple[type[Source], Any]
    keep_students: bool

    @property
    def teachers(self) -> tuple[TrialSpec, ...]:
        """The trials of the teachers that the students need, without repetition."""
        return tuple({t.teacher.id: t.teacher for t in self.trials if t.teacher}.values())


def suite_names() -> list[str]:
    """Names of the shipped suites, such as `quick` and `ablations/ft-k`."""
    folder = shipped("suites")
    files = (file.relative_to(folder) for file in folder.rglob("*.yaml"))
    return sorted(file.with_suffix("").as_posix() for file in files if file.parts[0] != "recipes")


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(file.stem for file in (shipped("suites") / "recipes").glob("*.yaml"))


def load_suite(name: str | Path, *, methods: Sequence[str] = (), seeds: Sequence[int] = ()) -> Suite:
    """Read a suite by its shipped name or its path, and write out its trials.

    Args:
        name: `quick`, or a path to a YAML file.
        methods: where given, only these of the suite's methods; one that the suite lacks is added with its defaults.
        seeds: where given, these instead of the suite's.

    Raises:
        KdbenchError: no such suite, or a mistake in it; the message names the file and the place in it.
    """
    file = _find(str(name))
    spec = _validate(SuiteFile, _read(file), file, "")
    return _Resolver(file.stem, file, spec, methods=tuple(methods), seeds=tuple(seeds)).suite()


class _Resolver:
    """Turns one parsed file into trials; every error it raises names the place in the file."""

    def __init__(self, name: str, file: Path, spec: SuiteFile, *, methods: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self.name = name
        self.file = file
        self.spec = spec
        self.entries = self._select(methods)
        self.seeds = seeds or spec.seeds
        if len(set(self.seeds)) < len(self.seeds):
            raise KdbenchError(f"{file}, seeds: a seed is named twice. Name each once.")

    def suite(self) -> Suite:
        source, params = self._dataset()
        dataset = DatasetSpec(name=_name(self.spec.dataset), params=params.model_dump(mode="json"))
        trials: dict[str, TrialSpec] = {}
        for i, pair in enumerate(self.spec.pairs):
            for trial in self._pair(pair, f"pairs[{i}]", dataset):
                trials[trial.id] = trial
        return Suite(
            name=self.name,
            title=self.spec.title,
            pairs=tuple(dict.fromkeys((pair.teacher, pair.student) for pair in self.spec.pairs)),
            methods=tuple(dict.fromkeys(name for name, _, _ in self.entries)),
            trials=tuple(trials.values()),
            source=(source, params),
            keep_students=self.spec.keep_students,
        )

    def _pair(self, pair: PairSpec, where: str, dataset: DatasetSpec) -> Iterator[TrialSpec]:
        for role in ("teacher", "student"):
            self._known(MODELS, getattr(pair, role), f"{where}.{role}")
        names = {part for name, _, _ in self.entries for part in name.split("+")}
        for key in pair.methods:
            if key not in names:
                raise self._error(f"{where}.methods.{key}", f"'{key}' is not among the suite's methods.{nearest(key, names)}")
        for j, key in enumerate(pair.without):
            if key not in (listed := [name for name, _, _ in self.entries]):
                raise self._error(f"{where}.without[{j}]", f"'{key}' is not among the suite's methods.{nearest(key, listed)}")
        recipe = self._recipe(pair.recipe, f"{where}.recipe")
        teacher = TrialSpec(
            dataset=dataset,
            recipe=self._recipe(self.spec.teacher.recipe, "teacher.recipe"),
            student=pair.teacher,
            methods=resolve_methods("scratch", {}),
            seed=self.spec.teacher.seed,
        )
        for name, params, place in self.entries:
            if name in pair.without:
                continue
            parts = name.split("+")
            merged = {part: {**params.get(part, {}), **pair.methods.get(part, {})} for part in parts}
            methods = self._parts(name, merged, place)
            reads = any(METHODS.get(part).reads for part in parts)
            for seed in self.seeds:
                yield TrialSpec(
                    dataset=dataset,
                    recipe=recipe,
                    student=pair.student,
                    methods=methods,
                    seed=seed,
                    teacher=teacher if reads else None,
                )

    def _select(self, wanted: tuple[str, ...]) -> list[tuple[str, dict[str, Tree], str]]:
        """(name, parameters by part, place in the file) of each method."""
        entries: list[tuple[str, dict[str, Tree], str]] = []
        given: dict[str, Tree]
        for i, entry in enumerate(self.spec.methods):
            where = f"methods[{i}]"
            if isinstance(entry, str):
                name, given = entry, {}
            elif len(entry) == 1:
                name, given = next(iter(entry.items()))
            else:
                raise self._error(where, "give a name, or one name with its parameters: `- ft: {k: 2}`.")
            parts = name.split("+")
            for part in parts:
                self._known(METHODS, part, where)
            params = given if len(parts) > 1 else {name: given}
            for key, value in params.items():
                if key not in parts or not isinstance(value, dict):
                    raise self._error(
                        f"{where}.{key}", f"parameters of '{name}' stand under the name of their part: `{parts[0]}: {{...}}`."
                    )
            entries.append((name, params, where))
        for name in wanted:
            for part in name.split("+"):
                self._known(METHODS, part, "--methods")
        added: list[tuple[str, dict[str, Tree], str]] = [
            (name, {}, "--methods") for name in wanted if name not in {name for name, _, _ in entries}
        ]
        return [entry for entry in entries if not wanted or entry[0] in wanted] + added

    def _parts(self, name: str, params: dict[str, Tree], where: str) -> Any:
        for part, given in params.items():
            _validate(METHODS.get(part).Params, given, self.file, f"{where}.{part}")
        return resolve_methods(name, params)

    def _dataset(self) -> tuple[type[Source], Any]:
        given = self.spec.dataset
        self._known(DATASETS, _name(given), "dataset" if isinstance(given, str) else "dataset.name")
        source = DATASETS.get(_name(given))
        tree = {key: value for key, value in given.items() if key != "name"} if isinstance(given, dict) else {}
        return source, _validate(source.Params, tree, self.file, "dataset")

    def _recipe(self, changes: Tree, where: str) -> Recipe:
        given = self.spec.recipe
        base = given if isinstance(given, str) else given.get("base")
        tree: Tree = {}
        if base is not None:
            names = recipe_names()
            if base not in names:
                raise self._error("recipe", f"unknown recipe '{base}'.{nearest(str(base), names)} Known: {', '.join(names)}.")
            tree = _read(shipped("suites") / "recipes" / f"{base}.yaml")
        if isinstance(given, dict):
            tree = _merge(tree, {key: value for key, value in given.items() if key != "base"})
        return _validate(Recipe, _merge(tree, changes), self.file, where if changes else "recipe")

    def _known(self, registry: Any, name: str, where: str) -> None:
        if name not in registry:
            try:
                registry.get(name)
            except KdbenchError as problem:
                raise self._error(where, str(problem)) from None
        registry.get(name)

    def _error(self, where: str, message: str) -> KdbenchError:
        place = where if where.startswith("--") else f"{self.file}, {where}"
        return KdbenchError(f"{place}: {message}")


def _name(dataset: str | Tree) -> str:
    return dataset if isinstance(dataset, str) else str(dataset.get("name", ""))


def _merge(base: Tree, changes: Mapping[str, Any]) -> Tree:
    """`changes` over `base`, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise KdbenchError(f"no suite file at {path}. See `kdbench list suites` for those that ship with kdbench.")
    if name in suite_names():
        return shipped("suites") / f"{name}.yaml"
    raise KdbenchError(
        f"unknown suite '{name}'.{nearest(name, suite_names())} Give a path to a YAML file, or see `kdbench list suites`."
    )


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"the key '{key}' stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _read(file: Path) -> Tree:
    try:
        tree = yaml.load(file.read_text(), _Loader)
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise KdbenchError(f"{file}, line {line}: {problem.problem}. Mend the YAML.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise KdbenchError(f"{file} cannot be read as YAML: {problem}") from None
    if not isinstance(tree, dict):
        raise KdbenchError(f"{file} holds no mapping of keys to values. See the shipped suites for examples.")
    return tree


def _validate(spec: type[S], tree: object, file: Path, where: str) -> S:
    try:
        return spec.model_validate(tree)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = where + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in first["loc"])
        if first["type"] == "extra_forbidden":
            message = f"unknown key.{nearest(str(first['loc'][-1]), _keys(spec, first['loc'][:-1]))}"
        else:
            message = f"{first['msg']} (got {first['input']!r})." if first["type"] != "missing" else "this key is missing."
        raise KdbenchError(f"{file}, {place.lstrip('.')}: {message}") from None


def _keys(spec: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at `path` below `spec`."""
    for key in path:
        if not isinstance(key, str):
            continue
        inner = spec.model_fields[key].annotation
        inner = next((arg for arg in getattr(inner, "__args__", ()) if isinstance(arg, type) and issubclass(arg, BaseModel)), inner)
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        spec = inner
    return list(spec.model_fields)
