"""The checks: each is one function, whose first line of docstring is the promise that the table shows.

A check returns a remark or None, raises `Broken` where the promise is broken, and `PairError` where the method refuses the pair.
"""

from __future__ import annotations

import copy
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from torch import Tensor

from kdbench.catalogue import describe_method
from kdbench.conformance.setting import (
    CLASSES,
    Broken,
    Setting,
    copied,
    evaluated,
    expect,
    fingerprint,
    leaves,
    lessons,
    mapped,
)
from kdbench.method import METHODS, Composition, Method, Pair, PairError
from kdbench.outputs import Outputs, Shapes
from kdbench.streams import generator, seeded
from kdbench.training.lane import Lane
from kdbench.weights import state_hash

LINES = 100
SENTENCE = 30
"""Characters below which a reason is none."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A registered method on its way through the checks."""

    name: str

    @property
    def cls(self) -> type[Method]:
        """The method's class."""
        return METHODS.get(self.name)

    def between(self, student: str, teacher: str, image_shape: tuple[int, int, int] = (3, 8, 8)) -> Setting:
        """The method between two networks."""
        return Setting(self.name, student, teacher, image_shape)

    @cached_property
    def usual(self) -> Setting:
        """A teacher of twice the student's width, or, for methods that refuse it, of the same.

        Raises:
            Broken: the method refuses both.
        """
        settings = self.between("resnet8", "wrn_10_2"), self.between("resnet8", "resnet14")
        reasons = []
        for setting in settings:
            try:
                setting.method()
            except PairError as reason:
                reasons.append(f"{setting.teacher} -> {setting.student}: {reason}")
            else:
                return setting
        raise Broken(f"no pair is left to try it on ({'; '.join(reasons)}). Accept pairs of ordinary ResNets.")

    @cached_property
    def alone(self) -> str:
        """The fingerprint of a training in which nothing disturbs the method."""
        return trained(self.usual, self.usual.lane())


def trained(setting: Setting, *lanes: Lane) -> str:
    """Train lanes side by side; the fingerprint of the first."""
    setting.train(*lanes)
    return fingerprint(lanes[0])


# What is written -------------------------------------------------------------------------------------------------------------


def docstring(subject: Subject) -> None:
    """The docstring opens with the formula and names the paper."""
    described = describe_method(subject.name)
    expect("(" in described["formula"], "the docstring does not open with the formula of the loss, such as CE(z_s, y) + beta D.")
    expect(bool(described["paper"]), "the docstring has no paragraph `Paper:`. Name the authors, the title, the venue and the year.")


def file(subject: Subject) -> None:
    """The file has fewer than 100 lines."""
    lines = len(Path(METHODS.entry(subject.name).file).read_text().splitlines())
    expect(lines < LINES, f"the file has {lines} lines. Use what kdbench.losses offers, and leave out what the formula does not say.")
