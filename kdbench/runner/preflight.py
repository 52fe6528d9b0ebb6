"""What keeps a suite from running, all of it at once, before images are read and before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from kdbench.data import Dataset, blank
from kdbench.errors import KdbenchError, refuse
from kdbench.method.interface import METHODS
from kdbench.method.pair import PairError
from kdbench.method.specs import pair_label, teachers_label
from kdbench.models.bare import read_before
from kdbench.models.measure import refuse_one_image
from kdbench.runner.plan import Plan, Planned
from kdbench.runner.slow import told_if_slow
from kdbench.spec.trial import TrialSpec
from kdbench.training.arithmetic import without_effect
from kdbench.training.builder import Builder
from kdbench.training.device import at_hand
from kdbench.training.fatal_errors import fatal_errors_explained
from kdbench.training.miscomputed import why_miscomputed
from kdbench.training.stackable import passed, why_not_stacked

COMPILES = "each network is compiled before its first epoch, which can take minutes, and nothing is shown meanwhile"
"""What to expect of a recipe with `compile: true`."""


def preflight(
    plan: Plan,
    todo: Iterable[Planned],
    *,
    cache: Path,
    device: torch.device,
    download: bool,
    say: Callable[[str], object],
) -> tuple[Dataset | None, list[str]]:
    """See that the device, the data set, every network, its weights and every pair can be.

    A data set that cannot tell its images without being loaded is loaded.

    Args:
        plan: of the suite.
        todo: the students that are to be trained.
        cache: where data sets keep what is slow to compute.
        device: that they are to be trained on.
        download: whether published weights may be fetched; they are not looked at otherwise.
        say: tells people what takes long.

    Returns:
        The data set, where it had to be loaded; and notes, without full stops, on files that a run would download, on networks of
        which methods read maps before an activation, on how methods handle pairs, and on the wait for the compiler.

    Raises:
        KdbenchError: the message gives every problem with its fix.
    """
    specs = plan.trained_specs(todo)
    kind, params = plan.suite.source
    found, notes = without_effect((spec.recipe for spec in specs), device), list[str]()
    source = kind(params, cache=cache)
    try:
        with fatal_errors_explained():
            source.check()
            contents = source.contents()
            dataset = blank(contents) if contents else source.load()
    except KdbenchError as problem:  # without the images' size and classes no network can be looked at
        found.append(problem)
    else:
        problems, notes = misfits(Builder(dataset, params, torch.device("cpu")), specs, download=download)
        found += problems
        on_device = Builder(dataset, params, at_hand(device))
        found += unstackable(on_device, specs, say=say) + miscomputed(on_device, specs)
    refuse(plan.suite.name, found)
    if specs and (first := source.to_download):
        notes = [first, *notes]
    if any(spec.recipe.compile for spec in specs):
        notes = [*notes, COMPILES]
    return None if contents else dataset, notes


def misfits(builder: Builder, trials: Iterable[TrialSpec], *, download: bool) -> tuple[list[KdbenchError], list[str]]:
    """What of some trials cannot be, and notes on the rest: every network is built, its weights looked at, every method built for
    every pair.

    Teachers are blank. A mistake in the code of a network or a method is none: it fails its trials when they are trained.

    Args:
        builder: of the suite's data set, which may be without its images.
        trials: of students and of teachers.
        download: whether published weights may be fetched; they are not looked at otherwise.
    """
    trials = list(trials)
    networks = sorted({spec.network for trial in trials for spec in (*trial.teachers, trial)}, key=str)
    broken = {network: problem for network in networks if (problem := _refusal(partial(builder.shapes, *network)))}
    sound = [trial for trial in trials if not any(spec.network in broken for spec in (*trial.teachers, trial))]
    started = {str((t.network, t.weights, t.methods == ())): t for t in sound if t.weights and (t.weights.file or download)}
    weights = [problem for trial in started.values() if (problem := _refusal(partial(builder.start, trial)))]
    single = {t.network for t in sound if t.methods and 1 in builder.batch_sizes(t.recipe)}
    starved = [problem for network in sorted(single) if (problem := _refusal(partial(_refuse_one_image, builder, *network)))]
    impossible, notes = _try_pairs(builder, sound)
    return [*broken.values(), *weights, *starved, *impossible], [*_map_notes(builder, sound), *notes]


def _map_notes(builder: Builder, trials: Iterable[TrialSpec]) -> list[str]:
    """One for each network of which a method of some trials reads maps before an activation, and means to read them after it."""
    reads: dict[str, tuple[TrialSpec, set[str]]] = {}
    for trial in trials:
        for spec in (*trial.teachers, trial):
            reads.setdefault(spec.label, (spec, set()))[1].update(*(METHODS.get(part.name).reads for part in trial.methods))
    notes = []

    def look(spec: TrialSpec, points: set[str]) -> None:
        if found := builder.read_before_activation(spec, points):
            notes.append(f"{spec.label}, {read_before(found)}")

    for spec, points in reads.values():
        _refusal(partial(look, spec, points))
    return notes


def unstackable(builder: Builder, trials: Iterable[TrialSpec], *, say: Callable[[str], object]) -> list[KdbenchError]:
    """Which students of some trials are to be stacked and cannot be; it is tried out on the builder's device."""

    def refusal(trial: TrialSpec) -> KdbenchError | None:
        with told_if_slow(say, f"trying out whether {trial.label} can be stacked; this can take a minute."):
            return _refusal(partial(_refuse_to_stack, builder, trial))

    stacked = [trial for trial in trials if trial.methods and trial.recipe.stack]
    kinds = {str((trial.network, trial.recipe.arithmetic, sorted(passed(builder, trial)))): trial for trial in stacked}
    return [problem for trial in kinds.values() if (problem := refusal(trial))]


def miscomputed(builder: Builder, trials: Iterable[TrialSpec]) -> list[KdbenchError]:
    """Which networks that are to be trained would get wrong gradients on the builder's device."""
    kinds = {(trial.network, trial.recipe.precision, trial.recipe.stack): trial for trial in trials if trial.methods}
    found = [(trial, problem) for trial in kinds.values() if (problem := _refusal(partial(_refuse_miscomputed, builder, trial)))]
    return [problem for trial, problem in found if not _refusal(partial(builder.shapes, *trial.network))]  # others are told already


def _refuse_miscomputed(builder: Builder, trial: TrialSpec) -> None:
    if why := why_miscomputed(builder, trial):
        size = "x".join(map(str, builder.dataset.image_shape[1:]))
        raise KdbenchError(f"{trial.label} cannot be trained on this CPU with images of {size}: {why}.")


def _refuse_to_stack(builder: Builder, trial: TrialSpec) -> None:
    if reason := why_not_stacked(builder, trial):
        raise KdbenchError(
            f"{trial.student} cannot be stacked: {reason}. Write `stack: false` in the recipe, or in that of its pair."
        )


def _refuse_one_image(builder: Builder, name: str, *rest: Any) -> None:
    refuse_one_image(builder.blank(name, *rest), name=name, image_shape=builder.dataset.image_shape)


def _try_pairs(builder: Builder, trials: Collection[TrialSpec]) -> tuple[list[KdbenchError], list[str]]:
    """At most one error each for students and for teachers, which names every pair and method that cannot be, with the reason; and
    the notes of the others."""
    notes: dict[str, None] = {}
    refused: dict[bool, dict[str, list[str]]] = {True: {}, False: {}}
    teachers = {teacher.id for trial in trials for teacher in trial.teachers}
    kinds = {(teachers_label(t), t.label, str(t.methods), str(t.ce), t.recipe.batch_size, t.epochs): t for t in trials}

    def build(trial: TrialSpec) -> None:
        notes.update(dict.fromkeys(f"{pair_label(trial)}: {note}" for note in builder.composition(trial, None).notes))

    for trial in kinds.values():
        if problem := _refusal(partial(build, trial)):
            teacher = teachers_label(trial) or "no teacher"
            why = f"{teacher} -> {trial.label}: {str(problem).rstrip('.')}"
            refused[trial.id in teachers].setdefault(why, []).append(trial.method)
    found: list[KdbenchError] = []
    if of_students := refused[False]:
        methods = list(dict.fromkeys(chain(*of_students.values())))
        noun = "method" if len(methods) == 1 else "methods of each pair"
        found.append(PairError(f"{'; '.join(of_students)}. Leave the {noun} out with `without: [{', '.join(methods)}]`."))
    if of_teachers := refused[True]:
        found.append(PairError(f"{'; '.join(of_teachers)}. Give the teacher another `method`, or another teacher to learn from."))
    return found, [*notes]


def _refusal(build: Callable[[], object]) -> KdbenchError | None:
    """Why something cannot be built; None where it can, and where the code that builds it is wrong."""
    try:
        build()
    except KdbenchError as problem:
        return problem
    except Exception:
        return None
    return None
