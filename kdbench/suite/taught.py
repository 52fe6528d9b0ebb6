"""What cannot train a teacher, or goes with no other key of one."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.method.interface import METHODS, Method
from kdbench.spec.trial import TrialSpec
from kdbench.suite.file import TaughtSpec
from kdbench.wording import counted


def unfit_for_teacher(given: TaughtSpec, parts: Sequence[str]) -> str:
    """Why a teacher cannot be as it is given, with the fix; empty where it can.

    Args:
        given: the teacher as a suite has it.
        parts: the methods that train it.
    """
    name = "+".join(parts)
    if given.weights and (given.method or given.teacher):
        return "a teacher with `weights` is used as it is, and nothing trains it. Take `method` and `teacher` out, or `weights`."
    if given.teacher and not given.method:
        return "the teacher has a teacher, and no method that learns from it. Give one, such as `method: kd`."
    kinds = [METHODS.get(part) for part in parts]
    reads = any(kind.reads for kind in kinds)
    if given.teacher and not reads:
        return f"{name} learns from no teacher. Take `teacher` out, or give another `method`, such as kd."
    if reads and not given.teacher:
        return f"{name} learns from a teacher. Give the teacher one of its own: `teacher: NAME`."
    if beside := [part for part, kind in zip(parts, kinds, strict=True) if _predicts(kind)]:
        return (
            f"{beside[0]} predicts with a part of its own beside the network, and a teacher is its network alone. Give another "
            "`method`."
        )
    if given.normalise and len(given.normalise.mean) != len(given.normalise.std):
        mean, std = (counted(len(values), "channel") for values in (given.normalise.mean, given.normalise.std))
        return f"`normalise` has a mean for {mean} and a std for {std}. Give one number for each channel."
    return ""


def unfit_for_several(parts: Sequence[str], teachers: Sequence[TrialSpec]) -> str:
    """Why methods cannot learn from all of these teachers at once, without the fix; empty where they can."""
    kinds = {part: METHODS.get(part) for part in parts}
    alone = [part for part, kind in kinds.items() if kind.reads and not kind.several_teachers]
    return f"{alone[0]} learns from one teacher, and here are {len(teachers)}" if alone and len(teachers) > 1 else ""


def _predicts(kind: type[Method]) -> bool:
    """Whether the network that a method leaves is more than its student."""
    return kind.predict is not Method.predict or kind.deployed is not Method.deployed
