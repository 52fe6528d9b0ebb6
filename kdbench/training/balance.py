"""Whether a method's terms and the cross-entropy are of one scale, so that a weight that is a thousand times off is seen."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method.composition import Composition
from kdbench.method.specs import EPOCHS_OF_THE_TRAINING, setting, teachers_label
from kdbench.spec.trial import TrialSpec

LOWEST, HIGHEST = 0.01, 100.0
"""Ratios of the transfer terms to the cross-entropy between which nothing is said."""

LEARNT_PCT = 5.0
"""Training error below which the cross-entropy is as good as learnt, so that anything is large against it."""


def gradient_norms(parameters: Sequence[nn.Parameter], g_ce: Sequence[Tensor | None], *, included: bool) -> dict[str, Tensor]:
    """Norms, of shape (), of two gradients at `parameters`: `cross_entropy`, that is `g_ce`, and `transfer`, of the transfer terms.

    The latter is the gradient that stands at the parameters, less the cross-entropy's where that is `included` in it.
    """
    squares = {"cross_entropy": torch.zeros((), device=parameters[0].device, dtype=torch.float64)}
    squares["transfer"] = squares["cross_entropy"].clone()
    for parameter, g in zip(parameters, g_ce, strict=True):
        if g is not None:
            squares["cross_entropy"] += g.double().square().sum()
        if parameter.grad is not None:
            transfer = parameter.grad - g if included and g is not None else parameter.grad
            squares["transfer"] += transfer.double().square().sum()
    return {name: value.sqrt() for name, value in squares.items()}


def imbalance(trial: TrialSpec, method: Composition, row: Mapping[str, Any]) -> str | None:
    """A warning for an epoch's row whose terms are out of balance, in loss or in gradient norm at the student's parameters.

    It names the method, the pair and the parameters to change; None where there is nothing to say, or no weight would mend it.
    """
    teacher = teachers_label(trial) or "no teacher"
    found = _verdict(trial, method, row, lambda ratio: f"{ratio:.3g} times")
    return found and f"warning: {setting(trial)}, {teacher} -> {trial.label}, epoch {row['epoch']}: {found}."


def imbalance_note(trial: TrialSpec, method: Composition, rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The first such finding of all epochs, for the record: in words that are the same for all seeds of which it holds."""
    found = (_verdict(trial, method, row, lambda ratio: "over 100 times" if ratio > 1 else "under 0.01 times") for row in rows)
    first = next(filter(None, found), None)
    return first and f"{trial.method}: in some epoch, {first}"


def _verdict(trial: TrialSpec, method: Composition, row: Mapping[str, Any], times: Callable[[float], str]) -> str | None:
    """What is out of balance in an epoch, and what would mend it."""
    keys = (("loss_ratio", "loss"), ("gradient_ratio", "gradient"))
    ratios = {name: abs(row[key]) for key, name in keys if row.get(key) is not None}
    highest = HIGHEST if row.get("train_error_pct", 100.0) >= LEARNT_PCT else math.inf
    off = {name: ratio for name, ratio in ratios.items() if not LOWEST <= ratio <= highest}
    if not off or (0 in off.values() and row["epoch"] == 1 < trial.recipe.epochs and _may_begin_with_0(trial, method, row)):
        return None  # the next epoch tells
    weights = _weights(trial, method)
    if not weights and any(part.weights != type(part).weights for part in method.parts.values()):
        return None  # no term can teach anything of this pair, and a note says so
    if 0 in off.values():
        if not weights or any(weights.values()):
            return "no transfer term reaches the student: it is detached, its weight is 0, or a warm-up is too long"
        return None if method.stages() else f"nothing is transferred: {', '.join(f'{name} = 0' for name in weights)}"
    said = " and ".join(f"{times(ratio)} the cross-entropy in {name}" for name, ratio in off.items())
    light, heavy = min(off.values()) < LOWEST, max(off.values()) > HIGHEST
    change = "change" if light and heavy else "raise" if light else "lower"
    named = ", ".join(f"{name} (now {value:g})" for name, value in weights.items()) or "the weight of its terms"
    return f"the transfer terms are {said}; {change} {named}"


def _may_begin_with_0(trial: TrialSpec, method: Composition, row: Mapping[str, Any]) -> bool:
    """Whether the terms may have no gradient in the first step on purpose: by a warm-up, or as a memory bank is still empty."""
    warms_up = any(part.params.get(name) for part in trial.methods for name in EPOCHS_OF_THE_TRAINING)
    return warms_up or not row.get("loss_ratio") or any(True for _ in method.buffers())


def _weights(trial: TrialSpec, method: Composition) -> dict[str, float]:
    """What weighs the terms that can teach something, such as `kd.alpha`, and its value."""
    params = {part.name: part.params for part in trial.methods}
    return {
        f"{name}.{weight}": params[name][weight]
        for name, part in method.parts.items()
        for weight in part.weights
        if weight in params[name]
    }
