"""From names to specs, and from specs to methods: parameters written out, instances built, settings told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS, Method
from kdbench.method.pair import Pair, PairError
from kdbench.paths import has_path, map_paths
from kdbench.spec.trial import MethodParams, MethodSpec, TrialSpec, file_name
from kdbench.wording import assigned, counted

OF_ONE = ("preactivations", "tokens", "heads", "pooled_maps")
"""Points that a method may read of the student alone, or of the teacher alone. Whether a pair lacks one, it knows itself."""

EPOCHS_OF_THE_TRAINING = ("warm_up_epochs", "ramp_up_epochs", "reversal_epochs", "decay_after")
"""Names of parameters that count epochs of the main training, in any method. Those of stages have others, such as `hint_epochs`."""

OF_STAGES = "_epochs"
"""Ends the names of parameters that count epochs of stages."""


def resolve_methods(name: str, params: Mapping[str, Mapping[str, Any]]) -> tuple[MethodSpec, ...]:
    """Write out the parameters of `name` (`kd`, `ft+kd`); `params` holds those that differ from the defaults, by part.

    Raises:
        KdbenchError: an unknown method, or one named twice.
        pydantic.ValidationError: a parameter that is unknown or out of range.
    """
    parts = name.split("+")
    if len(set(parts)) < len(parts):
        raise KdbenchError(f"'{name}' names a method twice. Name each once.")
    return tuple(_resolved(part, METHODS.get(part).Params.model_validate(params.get(part, {}))) for part in parts)


def _resolved(name: str, params: MethodParams) -> MethodSpec:
    tree, kind = params.model_dump(mode="json"), type(params)
    if not has_path(kind):
        return MethodSpec(name=name, params=tree)
    return MethodSpec(name=name, params=map_paths(kind, tree, _by_content), local=params)


def _by_content(path: Path) -> str:
    if not path.is_file():
        raise KdbenchError(f"{path} is no file, so that no record could say what was read from it. Give a file that is there.")
    return file_name(path)


def build_part(spec: MethodSpec, pair: Pair) -> Method:
    """An instance of one method for a pair.

    Raises:
        PairError: the method cannot do this pair; the message names it.
    """
    method = METHODS.get(spec.name)
    for whose, shapes in (*(("teacher", shapes) for shapes in (pair.teacher, *pair.others)), ("student", pair.student)):
        if lacking := [point for point in shapes.lacking() if point in method.reads and point not in OF_ONE]:
            raise PairError(f"{spec.name}: it reads {', '.join(lacking)}, and the {whose} has none; choose another {whose}")
    try:
        return method(spec.local or method.Params.model_validate(spec.params), pair)
    except PairError as reason:
        raise PairError(f"{spec.name}: {reason}") from None


def setting(trial: TrialSpec) -> str:
    """A trial's methods, for logs, with the parameters that are not the defaults: `ab (ce_weight=1, kd_weight=0)`."""
    changed = [] if trial.ce is None else [assigned("ce", trial.ce)]
    for part in trial.methods:
        defaults = METHODS.get(part.name).Params().model_dump(mode="json")
        of = f"{part.name}." if len(trial.methods) > 1 else ""
        changed += [assigned(f"{of}{name}", value) for name, value in part.params.items() if value != defaults[name]]
    return f"{trial.method} ({', '.join(changed)})" if changed else trial.method


def stage_epochs(params: Mapping[str, Any]) -> int:
    """How many epochs stages have, as far as parameters of their methods tell."""
    names = (name for name in params if name.endswith(OF_STAGES) and name not in EPOCHS_OF_THE_TRAINING)
    return sum(count for name in names if isinstance(count := params[name], int))


def student_stage_epochs(trial: TrialSpec) -> int:
    """The same of those stages of a trial that train its student, too."""
    found = 0
    for part in trial.methods:
        of_teacher = {name for names in METHODS.get(part.name).teacher_stages.values() for name in names}
        found += stage_epochs({name: value for name, value in part.params.items() if name not in of_teacher})
    return found


def never_reached(trial: TrialSpec) -> list[str]:
    """Notes on parameters that count more epochs than the trial's main training has, so that it ends before what they say."""
    return [
        f"{part.name}: {name} is {count}, and the training ends after {counted(trial.epochs, 'epoch')}; give fewer, or train longer"
        for part in trial.methods
        for name in EPOCHS_OF_THE_TRAINING
        if isinstance(count := part.params.get(name), int | float) and count > trial.epochs
    ]


def single_steps(trials: Iterable[TrialSpec], *, images: int) -> list[str]:
    """A note on each size of batches that some trainings have and that is above the number of images."""
    sizes = sorted({trial.recipe.batch_size for trial in trials if trial.methods and trial.recipe.batch_size > images})
    return [
        f"a batch of {size:,} takes all {images:,} training images, so that each epoch is a single step; lower `batch_size` in the "
        "recipe"
        for size in sizes
    ]


def teacher_label(trial: TrialSpec) -> str:
    """What tables call a teacher: its network and, unless it was trained from scratch, how: `resnet56 (kd from resnet110)`."""
    if trial.method in ("scratch", "pretrained"):
        return trial.label
    source = teachers_label(trial)
    return f"{trial.label} ({setting(trial)} from {source})" if source else f"{trial.label} (by {setting(trial)})"


def teachers_label(trial: TrialSpec) -> str | None:
    """What tables call all teachers of a trial: `resnet56 and wrn_16_2`; None where it has none."""
    return " and ".join(map(teacher_label, trial.teachers)) or None


def pair_label(trial: TrialSpec) -> str:
    """A trial's pair, for logs: `resnet56 -> resnet20`, or the student alone."""
    teachers = teachers_label(trial)
    return f"{teachers} -> {trial.label}" if teachers else trial.label
