"""A trial: one training as a frozen value, and the methods it trains with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.method import METHODS, Method, Pair, PairError
from kdbench.recipe import Recipe, Spec

PROTOCOL = 2
"""Raised whenever the same spec would give other numbers; records of another protocol are never mixed with ours."""


class DatasetSpec(Spec):
    """A registered data set and its resolved parameters, without the place where the files lie."""

    name: str
    params: dict[str, Any]

    @property
    def label(self) -> str:
        """The name that tables show; it says when only some of the training images are used."""
        label, count = self.params["label"] or self.name, self.params["train_images"]
        return f"{label} ({count:,} training images)" if count else str(label)


class MethodSpec(Spec):
    """One part of a composition and its resolved parameters."""

    name: str
    params: dict[str, Any]


class TrialSpec(Spec):
    """One training, with every default written out. Nothing outside it changes the outcome.

    `teacher` is the trial that trained the teacher, None where the method reads none.
    """

    dataset: DatasetSpec
    recipe: Recipe
    student: str
    methods: tuple[MethodSpec, ...]
    seed: int
    teacher: TrialSpec | None = None
    protocol: int = PROTOCOL

    @cached_property
    def id(self) -> str:
        """16 hexadecimal characters: a hash of the canonical spec and of nothing else."""
        return digest(self.model_dump(mode="json"))

    @property
    def method(self) -> str:
        """Names joined by `+`."""
        return "+".join(part.name for part in self.methods)


def digest(value: object) -> str:
    """Hash of a JSON value: 16 hexadecimal characters, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def resolve_methods(name: str, params: Mapping[str, Mapping[str, Any]]) -> tuple[MethodSpec, ...]:
    """Write out the parameters of `name` (`kd`, `ft+kd`); `params` holds those that differ from the defaults, by part.

    Raises:
        KdbenchError: an unknown method, or one named twice.
        pydantic.ValidationError: a parameter that is unknown or out of range.
    """
    parts = name.split("+")
    if len(set(parts)) < len(parts):
        raise KdbenchError(f"'{name}' names a method twice. Name each once.")
    return tuple(
        MethodSpec(name=part, params=METHODS.get(part).Params.model_validate(params.get(part, {})).model_dump(mode="json"))
        for part in parts
    )


def build_part(spec: MethodSpec, pair: Pair) -> Method:
    """An instance of one method for a pair.

    Raises:
        PairError: the method cannot do this pair; the message names it.
    """
    method = METHODS.get(spec.name)
    try:
        return method(method.Params.model_validate(spec.params), pair)
    except PairError as reason:
        raise PairError(f"{spec.name}: {reason}") from None
