"""The teachers of a suite as trials of their own: each trains a teacher, or adopts its weights."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.method.specs import resolve_methods, teacher_label
from kdbench.spec.recipe import Recipe
from kdbench.spec.trial import NetworkInput, TrialSpec
from kdbench.suite.contradictions import contradiction
from kdbench.suite.entries import Entries, late, unlike
from kdbench.suite.file import TaughtSpec, Tree
from kdbench.suite.ground import Ground
from kdbench.suite.taught import unfit_for_several, unfit_for_teacher


class Teachers:
    """Reads the teachers of one file.

    Attributes:
        expected: by the id of a teacher's trial, the test error that it ought to have, where the file says so.
    """

    def __init__(self, ground: Ground, entries: Entries) -> None:
        self.ground = ground
        self.entries = entries
        self.expected: dict[str, float] = {}

    def read(self, given: Sequence[TaughtSpec], where: str) -> list[TrialSpec]:
        """The trials of teachers that are learnt from at once."""
        found: dict[str, TrialSpec] = {}
        for i, teacher in enumerate(given):
            place = f"{where}[{i}]" if len(given) > 1 else where
            trial = self._teacher(teacher, place)
            if found.setdefault(trial.id, trial) is not trial:
                raise self.ground.error(place, f"the teacher {teacher_label(trial)} is named twice. Name each once.")
        return list(found.values())

    def _teacher(self, given: TaughtSpec, where: str) -> TrialSpec:
        """The trial that trains a teacher, or adopts its weights."""
        own = self.read(given.teacher, f"{where}.teacher")
        ((name, params),) = (given.method or {"scratch": {}}).items()
        entry = self.entries.entry(name, params, f"{where}.method")
        if problem := unfit_for_teacher(given, entry.parts):
            raise self.ground.error(where, problem)
        if problem := unfit_for_several(entry.parts, own):
            raise self.ground.error(f"{where}.method", f"{problem}. Give it one of them.")
        recipe = self._recipe()
        if problem := late(entry.ce, recipe):
            raise self.ground.error(f"{entry.place}.ce", problem)
        if problem := unlike(entry.parts, recipe):
            raise self.ground.error(f"{where}.method", f"{problem}, or give another `method`.")
        methods = () if given.weights else resolve_methods(entry.name, entry.params)
        if problem := contradiction(methods, entry.ce):
            raise self.ground.error(entry.place, problem)
        own_input = NetworkInput(normalise=given.normalise, size=given.size) if given.normalise or given.size else None
        if own_input and self.ground.image_shape and (misfit := own_input.misfit(self.ground.image_shape)):
            key, problem = misfit
            raise self.ground.error(f"{where}.{key}", problem)
        trial = TrialSpec(
            dataset=self.ground.dataset,
            recipe=recipe,
            **self.ground.network(given, where),
            input=own_input,
            methods=methods,
            ce=entry.ce,
            stages=self.ground.spec.stages if entry.teacher_stages else None,
            seed=self.ground.spec.teacher.seed,
            **taught_by(own),
        )
        self._expect(trial, given.expected_error_pct, where)
        return trial

    def _recipe(self) -> Recipe:
        """Teachers train alone, and a suite has the same ones whether or not its students are stacked."""
        given = self.ground.spec.teacher.recipe
        if given.get("stack"):
            raise self.ground.error("teacher.recipe.stack", "it concerns students, and a teacher trains alone. Remove it.")
        return self.ground.recipe({**given, "stack": False}, "teacher.recipe")

    def _expect(self, teacher: TrialSpec, error_pct: float | None, where: str) -> None:
        if error_pct is not None and self.expected.setdefault(teacher.id, error_pct) != error_pct:
            message = f"another pair expects {self.expected[teacher.id]:g} % of this teacher. Give one value."
            raise self.ground.error(f"{where}.expected_error_pct", message)


def taught_by(teachers: Sequence[TrialSpec]) -> Tree:
    """The fields of a trial that say who its teachers are."""
    return {"teacher": teachers[0], "other_teachers": tuple(teachers[1:])} if teachers else {}
