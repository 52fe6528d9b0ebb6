"""Settings of methods that a suite tries on held-out images, and the trials that try and report them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from kdbench.errors import nearest
from kdbench.spec.trial import DatasetSpec, MethodSpec, TrialSpec
from kdbench.suite.file import TuneSpec

if TYPE_CHECKING:
    from kdbench.suite.suite import Suite

Tree = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """A method for a pair, with parameters.

    Attributes:
        reported: its trials on all training images, one for each of the suite's seeds.
        tried: the same on fewer images, one for each tuning seed; none where there is nothing to choose.
    """

    reported: tuple[TrialSpec, ...]
    tried: tuple[TrialSpec, ...] = ()

    @property
    def methods(self) -> tuple[MethodSpec, ...]:
        """What all its trials share."""
        return self.reported[0].methods


@dataclass(frozen=True)
class Candidates:
    """The settings of one method for one pair of which one is reported.

    Attributes:
        pair: teacher and student, as tables call them.
        settings: that of the suite's own parameters first. Where it is alone there is nothing to choose.
        tunable: whether the method has any parameter.
    """

    pair: tuple[str, str]
    method: str
    settings: tuple[Setting, ...]
    tunable: bool

    @property
    def provisional(self) -> tuple[TrialSpec, ...]:
        """What is reported unless another setting is chosen: the trials with the suite's own parameters."""
        return self.settings[0].reported


@dataclass(frozen=True)
class Tuning:
    """How the parameters of a suite's methods are chosen.

    Attributes:
        spec: as the file says it.
        suite: the trials that try settings, as a suite on fewer images.
    """

    spec: TuneSpec
    suite: Suite


def mistake(spec: TuneSpec, *, seeds: Set[int], methods: Sequence[str], held_out: float) -> tuple[str, str] | None:
    """What keeps a suite from being tuned so: the key, and what is wrong with it.

    Args:
        spec: as the file says it.
        seeds: that are reported, those of the file among them even if others stand for them.
        methods: the names of those that the suite lists, each as often as it does.
        held_out: the fraction of the training images that the suite holds out in any case.
    """
    if held_out:
        return "dataset.validation", "`tune` holds images out by itself, and afterwards trains on all. Remove this key."
    if len(set(spec.seeds)) < len(spec.seeds):
        return "tune.seeds", "a seed is named twice. Name each once."
    if shared := sorted({*spec.seeds} & seeds):
        return (
            "tune.seeds",
            f"{shared[0]} is also a seed that is reported, and parameters must not be chosen with it. Give another.",
        )
    for name in spec.grid:
        if name not in methods:
            fix = nearest(name, methods) or f" Choose one of {', '.join(dict.fromkeys(methods))}."
            return f"tune.grid.{name}", f"'{name}' is not one of the suite's methods.{fix}"
        if methods.count(name) > 1:
            return f"tune.grid.{name}", f"the suite lists '{name}' more than once. List it once, and its other parameters here."
    return None


def over_budget(spec: TuneSpec, candidates: Candidates) -> str | None:
    """Why a method has more or fewer settings than the others, and what to do; None where it has as many, or may differ."""
    count = len(candidates.settings)
    if spec.unequal or count == spec.budget or (count == 1 and not candidates.tunable):
        return None
    has = "only its own parameters" if count == 1 else f"{count} settings, its own parameters among them"
    return (
        f"'{candidates.method}' has {has}, and the budget is {spec.budget} for every method ({' -> '.join(candidates.pair)}). List "
        f"{spec.budget - 1} beside its own, or write `unequal: true`, which the report then says."
    )


def tuned(suite: Suite, spec: TuneSpec) -> Suite:
    """The suite with the trials that try its settings, where a method has several."""
    source, params = suite.source
    fewer = params.model_copy(update={"validation": spec.validation})
    dataset = suite.trials[0].dataset
    dataset = DatasetSpec(name=dataset.name, params={**dataset.params, "validation": spec.validation})

    def with_trials(setting: Setting) -> Setting:
        return replace(
            setting, tried=tuple(on_fewer_images(setting.reported[0], dataset=dataset, seed=seed) for seed in spec.seeds)
        )

    candidates = tuple(
        replace(found, settings=tuple(map(with_trials, found.settings))) if len(found.settings) > 1 else found
        for found in suite.candidates
    )
    trying = replace(
        suite,
        trials=without_repetition(trial for found in candidates for setting in found.settings for trial in setting.tried),
        source=(source, fewer),
        keep_students=False,
        expected_error_pct={},
        candidates=(),
        tries_settings=True,
    )
    return replace(suite, candidates=candidates, tuning=Tuning(spec, trying))


def without_repetition(trials: Iterable[TrialSpec]) -> tuple[TrialSpec, ...]:
    """Each trial once: pairs share those of methods without a teacher."""
    return tuple({trial.id: trial for trial in trials}.values())


def on_fewer_images(trial: TrialSpec, *, dataset: DatasetSpec, seed: int) -> TrialSpec:
    """The same training on other images with another seed; its teachers were trained on these images, too, with their own seeds."""
    teachers = [on_fewer_images(teacher, dataset=dataset, seed=teacher.seed) for teacher in trial.teachers]
    given = {name: getattr(trial, name) for name in TrialSpec.model_fields}
    return TrialSpec(
        **{**given, "dataset": dataset, "seed": seed, "teacher": next(iter(teachers), None), "other_teachers": tuple(teachers[1:])}
    )


def grid_settings(given: Tree | Sequence[Tree]) -> list[Tree]:
    """The settings that an entry of the grid lists, each as a method's entry in a suite would have it.

    Raises:
        ValueError: a parameter has no list of values.
    """
    if not isinstance(given, Mapping):
        return list(given)
    axes = list(_axes(given))
    paths = [path for path, _ in axes]
    return [_tree(zip(paths, values, strict=True)) for values in product(*(values for _, values in axes))]


def _axes(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Each parameter with its values."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _axes(value, (*path, key))
        elif isinstance(value, list) and value:
            yield (*path, key), value
        else:
            name = ".".join((*path, key))
            raise ValueError(f"`{name}` has no list of values. Write `{key}: [...]`, or a list of settings")


def _tree(values: Iterable[tuple[tuple[str, ...], Any]]) -> Tree:
    """`{at: {beta: 500}}`, of the path `at`, `beta` and the value 500."""
    tree: Tree = {}
    for (*parts, name), value in values:
        inner = tree
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[name] = value
    return tree
