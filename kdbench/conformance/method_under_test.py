"""A method on its way through the checks, and what may come of one."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdbench.conformance.setting import BrokenPromise, Setting, build_for, fingerprint, reloaded
from kdbench.conformance.two_heads import NAME as TWO_HEADS
from kdbench.method.interface import METHODS, Method
from kdbench.method.pair import Pair, PairError

NO_GRADIENT = (
    "The images and the teacher's outputs carry no gradient, and no hook point can be differentiated by another. Maps of a class "
    "need none: `classify(pooled_maps)`"
)
"""What torch does not say of a method that calls `torch.autograd.grad`."""


class PairRefused(Exception):
    """The method refuses a pair, as it may; the message is its reason."""


@dataclass(frozen=True)
class Undisturbed:
    """A training from its start to its end: the fingerprint of its weights, and the checkpoints that it wrote on its way."""

    fingerprint: str
    checkpoints: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class MethodUnderTest:
    """A registered method."""

    name: str

    @property
    def method_class(self) -> type[Method]:
        """The method's class."""
        return METHODS.get(self.name)

    @cached_property
    def default_setting(self) -> Setting:
        """A teacher of twice the student's width, or, for methods that refuse it, of the same; or a student with two heads.

        Raises:
            BrokenPromise: the method refuses all of them.
        """
        reasons = []
        for teacher, student in (("wrn_10_2", "resnet8"), ("resnet14", "resnet8"), ("wrn_10_2", TWO_HEADS)):
            setting = Setting(self.name, student, teacher)
            if (reason := self.refusal(setting.pair)) is None:
                return setting
            reasons.append(f"{teacher} -> {student}: {reason}")
        raise BrokenPromise(f"it refuses all pairs that it was tried on ({'; '.join(reasons)}). Accept pairs of ordinary ResNets.")

    def refusal(self, pair: Pair) -> str | None:
        """Why the method, when it is built, refuses a pair; None where it does not."""
        try:
            build_for(self.name, pair)
        except PairError as reason:
            return str(reason).removeprefix(f"{self.name}: ")
        return None

    @cached_property
    def undisturbed(self) -> Undisturbed:
        """What came of a training that nothing disturbs."""
        checkpoints: list[dict[str, Any]] = []
        lane = self.default_setting.lane(checkpoint=lambda state: checkpoints.append(reloaded(state)))
        self.default_setting.train(lane)
        return Undisturbed(fingerprint(lane), checkpoints)

    def place(self, problem: Exception) -> str:
        """The line that raised an exception, such as `mine.py:3`: in the method's file where there is one."""
        frames = traceback.extract_tb(problem.__traceback__)
        own = [frame for frame in frames if frame.filename == METHODS.entry(self.name).file]
        last = (own or frames)[-1]
        return f"{Path(last.filename).name}:{last.lineno}"

    def exception_text(self, problem: Exception) -> str:
        """An exception as one line, with its place."""
        text = " ".join(str(problem).split()).removesuffix(".")
        if any(words in text for words in ("does not require grad", "not to have been used in the graph")):
            text += f". {NO_GRADIENT}"
        return f"{type(problem).__name__}: {text} ({self.place(problem)})"
