"""Suites: YAML in, trials out. Data, not code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from kdbench.errors import KdbenchError, nearest
from kdbench.method.interface import METHODS
from kdbench.method.specs import teacher_label
from kdbench.paths import expanded
from kdbench.spec.trial import TrialSpec
from kdbench.spec.validation import validated
from kdbench.suite.entries import Entries, unlike
from kdbench.suite.file import PairSpec, SuiteFile, Tree, TuneSpec, read_mapping
from kdbench.suite.ground import Ground
from kdbench.suite.misplaced import misplaced
from kdbench.suite.plugins import load_path
from kdbench.suite.shipped import find_suite
from kdbench.suite.suite import Suite
from kdbench.suite.taught import unfit_for_several
from kdbench.suite.teachers import Teachers, taught_by
from kdbench.suite.tuning import Candidates, Setting, mistake, over_budget, tuned, without_repetition


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
    tree = read_mapping(file)
    if found := misplaced(tree, SuiteFile, under=("recipe",)):
        key, problem = found
        raise KdbenchError(f"{file}, {key}: {problem}")
    spec = validated(SuiteFile, tree, source=file)
    for i, plugin in enumerate(spec.plugins):
        try:
            load_path(file.parent / expanded(plugin))
        except KdbenchError as problem:
            raise KdbenchError(f"{file}, plugins[{i}]: {problem}") from None
    return _Resolver(file, spec, wanted=tuple(dict.fromkeys(methods)), seeds=tuple(seeds)).suite()


class _Resolver:
    """Turns one parsed file into trials."""

    def __init__(self, file: Path, spec: SuiteFile, *, wanted: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self.spec = spec
        self.wanted = wanted
        named = (("methods", wanted), ("seeds", seeds))
        self.selection = "; ".join(f"{what} {', '.join(map(str, which))}" for what, which in named if which)
        self.ground = Ground(file, spec)
        self.entries = Entries(self.ground, wanted)
        self.seeds = self._seeds(seeds)
        self.tune = self._tune()
        self.teachers = Teachers(self.ground, self.entries)

    def suite(self) -> Suite:
        self.ground.recipe({}, "recipe")
        candidates: list[Candidates] = []
        staged = any(entry.teacher_stages for entry in self.entries.listed)
        for i, pair in enumerate(self.spec.pairs):
            if pair in self.spec.pairs[:i]:
                raise self.ground.error(f"pairs[{i}]", "the suite has this pair already. Remove one of the two.")
            teachers, found = self._pair(pair, f"pairs[{i}]")
            staged = staged or any(teacher.stages for teacher in teachers)
            candidates += found
        if "stages" in self.spec.model_fields_set and not staged:
            raise self.ground.error(
                "stages",
                "no method of the suite has a stage that learns from the teacher alone, so the key has no effect. Remove it.",
            )
        if not candidates:
            raise self.ground.error(
                "pairs", f"`without` leaves {' and '.join(self.wanted)} out of every pair. Choose other methods."
            )
        suite = Suite(
            name=self.ground.file.stem,
            file=self.ground.file.resolve(),
            content=hashlib.sha256(self.ground.file.read_bytes()).hexdigest()[:16],
            title=self.spec.title,
            pairs=tuple(dict.fromkeys(found.pair for found in candidates)),
            methods=tuple(dict.fromkeys(entry.name for entry in self.entries.chosen)),
            trials=without_repetition(trial for found in candidates for trial in found.provisional),
            source=self.ground.source,
            keep_students=self.spec.keep_students,
            expected_error_pct=self.teachers.expected,
            expected_spread=self.spec.expected_spread,
            report=self.spec.report,
            selection=self.selection,
            candidates=tuple(candidates),
        )
        return tuned(suite, self.tune) if self.tune else suite

    def _pair(self, pair: PairSpec, where: str) -> tuple[list[TrialSpec], list[Candidates]]:
        """The teachers' trials, and the settings of each method."""
        names = {entry.name for entry in self.entries.listed}
        parts = {part for entry in self.entries.listed for part in entry.parts}
        for key in pair.methods:
            if key not in parts:
                raise self.ground.error(f"{where}.methods.{key}", _no_method(key, parts))
        for j, key in enumerate(pair.without):
            if key not in names:
                raise self.ground.error(f"{where}.without[{j}]", _no_method(key, names))
        if names <= set(pair.without):
            raise self.ground.error(f"{where}.without", "no method is left for this pair. Remove the pair.")
        recipe = self.ground.recipe(pair.recipe, f"{where}.recipe")
        teachers = self.teachers.read(pair.teacher, f"{where}.teacher")
        student = self.ground.network(pair.student, f"{where}.student")
        return teachers, list(
            self._candidates(pair, where, teachers, {"dataset": self.ground.dataset, "recipe": recipe, **student})
        )

    def _candidates(self, pair: PairSpec, where: str, teachers: Sequence[TrialSpec], shared: Tree) -> Iterator[Candidates]:
        """The settings of each method for a pair, whose students have the fields `shared` of their trials."""
        places: dict[str, str] = {}
        for entry in self.entries.chosen:
            if entry.name in pair.without:
                continue
            if problem := unlike(entry.parts, shared["recipe"]):
                raise self.ground.error(
                    entry.place, f"{problem}, or leave the method out of {where} with `without: [{entry.name}]`."
                )
            if problem := unfit_for_several(entry.parts, teachers):
                fix = f"Leave the method out of this pair with `without: [{entry.name}]`, or give the pair one teacher."
                raise self.ground.error(f"{where}.teacher", f"{problem}. {fix}")
            own, *others = self.entries.settings(entry, pair, where, shared["recipe"])
            if place := places.get(str(own)):
                raise self.ground.error(entry.place, f"for {where} this is the same as {place}. Remove one of the two.")
            places[str(own)] = entry.place
            taught = taught_by(teachers) if any(METHODS.get(part).reads for part in entry.parts) else {}
            stages = self.spec.stages if entry.teacher_stages else None
            given = {**shared, **taught, "stages": stages}
            settings = [
                Setting(tuple(TrialSpec(**given, methods=methods, ce=ce, seed=seed) for seed in self.seeds))
                for methods, ce in (own, *others)
            ]
            names = " and ".join(map(teacher_label, teachers)), settings[0].reported[0].label
            found = Candidates(names, entry.name, tuple(settings), entry.tunable)
            if self.tune and (unequal := over_budget(self.tune, found)):
                raise self.ground.error("tune.grid", unequal)
            yield found

    def _seeds(self, wanted: tuple[int, ...]) -> tuple[int, ...]:
        seeds, place = (wanted, "--seeds") if wanted else (self.spec.seeds, "seeds")
        if min(seeds) < 0:
            raise self.ground.error(place, f"{min(seeds)} cannot be a seed. Give whole numbers from 0 up.")
        if len(set(seeds)) < len(seeds):
            raise self.ground.error(place, "a seed is named twice. Name each once.")
        return seeds

    def _tune(self) -> TuneSpec | None:
        tune, names = self.spec.tune, [entry.name for entry in self.entries.listed]
        if tune and (
            found := mistake(tune, seeds={*self.seeds, *self.spec.seeds}, methods=names, held_out=self.ground.source[1].validation)
        ):
            raise self.ground.error(*found)
        return tune


def _no_method(name: str, known: Set[str]) -> str:
    fix = nearest(name, known) or f" Choose one of {', '.join(sorted(known))}."
    return f"'{name}' is not one of the suite's methods.{fix}"
