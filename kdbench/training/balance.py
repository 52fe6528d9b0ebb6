"""Whether a method's terms and the cross-entropy are of one scale, so that a weight that is a thousand times off is seen."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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
    return found and f"warning: {setting(trial)}, {teacher} -> {trial.label}, epoch {row['epoch']}: {found.fact}{found.advice}."


def imbalance_note(trial: TrialSpec, method: Composition, rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The first such finding of all epochs, for the record: in words that are the same for all seeds of which it holds.

    It gives no advice, since it stands under tables.
    """
    found = (_verdict(trial, method, row, lambda ratio: "over 100 times" if ratio > 1 else "under 0.01 times") for row in rows)
    first = next(filter(None, found), None)
    return first and f"{trial.method}: in some epoch, {first.fact}"


def weights_of(method: Composition, parts: Collection[str] = ()) -> dict[str, Any]:
    """What weighs the terms that can teach something, such as `kd.alpha`, and its value, a number or one for each layer; of some
    parts alone, if any are given."""
    return {
        f"{name}.{weight}": getattr(part.params, weight)
        for name, part in method.parts.items()
        for weight in part.weights
        if hasattr(part.params, weight) and (not parts or name in parts)
    }


def with_values(weights: Mapping[str, Any]) -> str:
    """`at.beta (now 1000), kd.alpha (now 0.9)`."""
    shown = {name: f"{value:g}" if isinstance(value, int | float) else value for name, value in weights.items()}
    return ", ".join(f"{name} (now {value})" for name, value in shown.items())


class _Verdict(NamedTuple):
    """What is out of balance in an epoch, and how the sentence goes on with what would mend it."""

    fact: str
    advice: str = ""


def _verdict(trial: TrialSpec, method: Composition, row: Mapping[str, Any], times: Callable[[float], str]) -> _Verdict | None:
    highest = HIGHEST if row.get("train_error_pct", 100.0) >= LEARNT_PCT else math.inf
    keys = (("loss_ratio", "loss"), ("gradient_ratio", "gradient"))
    ratios = {name: abs(row[key]) for key, name in keys if row.get(key) is not None}
    off = {name: ratio for name, ratio in ratios.items() if not LOWEST <= ratio <= highest}
    if not off or (0 in off.values() and row["epoch"] == 1 < trial.recipe.epochs and _may_begin_with_0(trial, method, row)):
        return None  # the next epoch tells
    weights = weights_of(method)
    if not weights and any(part.weights != type(part).weights for part in method.parts.values()):
        return None  # no term can teach anything of this pair, and a note says so
    if 0 in off.values():
        if not weights or any(weights.values()):
            return _Verdict("no transfer term reaches the student", ": it is detached, its weight is 0, or a warm-up is too long")
        return None if method.stages() else _Verdict(f"nothing is transferred: {', '.join(f'{name} = 0' for name in weights)}")
    light, heavy = min(off.values()) < LOWEST, max(off.values()) > HIGHEST
    change = "change" if light and heavy else "raise" if light else "lower"
    parts = _parts_that_are_off(off.get("loss"), row) if len(method.parts) > 1 else {}
    of_all = {name: ratio for name, ratio in off.items() if not (parts and name == "loss")}
    clauses = [f"of {part} are {times(ratio)} the cross-entropy in loss" for part, ratio in parts.items()]
    if of_all:
        together = f"of {' and '.join(method.parts)} together " if len(method.parts) > 1 else ""
        said = " and ".join(f"{times(ratio)} the cross-entropy in {name}" for name, ratio in of_all.items())
        clauses.append(f"{together}are {said}")
    known = () if of_all and light and heavy else parts
    named = with_values(weights_of(method, known)) or "the weight of its terms"
    return _Verdict(f"the transfer terms {', and those '.join(clauses)}", f"; {change} {named}")


def _parts_that_are_off(whole: float | None, row: Mapping[str, Any]) -> dict[str, float]:
    """The parts of a sum whose loss is out of balance by itself, as the whole is, with their ratios to the cross-entropy."""
    losses: dict[str, float] = {}
    for name, loss in row.get("terms", {}).items():
        if name != "cross_entropy":
            part = name.partition(".")[0]
            losses[part] = losses.get(part, 0.0) + loss
    if whole is None or not sum(losses.values()):
        return {}
    ratios = {part: abs(loss * row["loss_ratio"] / sum(losses.values())) for part, loss in losses.items()}
    return {part: ratio for part, ratio in ratios.items() if (ratio < LOWEST if whole < LOWEST else ratio > HIGHEST)}


def _may_begin_with_0(trial: TrialSpec, method: Composition, row: Mapping[str, Any]) -> bool:
    """Whether the terms may have no gradient in the first step on purpose: by a warm-up, or as a memory bank is still empty."""
    warms_up = any(part.params.get(name) for part in trial.methods for name in EPOCHS_OF_THE_TRAINING)
    return warms_up or not row.get("loss_ratio") or any(True for _ in method.buffers())
