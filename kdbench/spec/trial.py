"""A trial: one training as a frozen value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from kdbench.spec.recipe import Recipe, Spec
from kdbench.spec.record import PROTOCOL, Record
from kdbench.wording import counted

Stages = Literal["per-seed", "per-teacher"]
"""How often a stage that learns from the teacher alone is trained: once for each student seed, or once for all of them."""


class DatasetSpec(Spec):
    """A registered data set and its resolved parameters, without the place where the files lie."""

    name: str
    params: dict[str, Any]

    @property
    def label(self) -> str:
        """The name that tables show; it says when not all of the training images are trained on."""
        label, count, held_out = self.params["label"] or self.name, self.params["train_images"], self.params["validation"]
        words = [f"{count:,} training images"] if count else []
        words += [f"{100 * held_out:g} % held out"] if held_out else []
        return f"{label} ({', '.join(words)})" if words else str(label)


class MethodParams(Spec):
    """Base of a method's parameters. Subclass it inside the method, with a field and its default for each parameter."""


def _canonical(weight: object) -> object:
    """Only the epochs at which it changes; a weight that never does as one number."""
    if not isinstance(weight, dict):
        return weight
    epochs = sorted(weight)
    changes = {now: weight[now] for before, now in zip([-1, *epochs], epochs, strict=False) if weight.get(before) != weight[now]}
    return changes[0] if changes.keys() == {0} else changes


CrossEntropyWeight = Annotated[NonNegativeFloat | dict[NonNegativeInt, NonNegativeFloat], AfterValidator(_canonical)]
"""The weight of the cross-entropy: a number, or numbers by the epoch from which on they hold; the first epoch is 0."""


class MethodSpec(Spec):
    """One part of a composition and its resolved parameters.

    Attributes:
        params: as they are part of a trial's identity: a file stands there by the hash of its content.
        local: the same with the places where files lie; None where no parameter is a path.
    """

    name: str
    params: dict[str, Any]
    local: MethodParams | None = Field(None, exclude=True, repr=False)


FILE = "sha256:"
"""How the name of weights from a file begins."""


RAW = ("raw",)
"""Hooks that leave the groups as they are, and read them before the norm and the activation that follow them."""


class Weights(Spec):
    """Weights that a network starts from.

    Attributes:
        name: what they are: `sha256:` and the first 16 digits of a file's hash, with `#` and a key where one is given; or the name
            that a library publishes them under.
        file: where they lie, which is no part of a trial's identity; None for published ones.
    """

    name: str
    file: Path | None = Field(None, exclude=True)

    @property
    def key(self) -> str:
        """Of a file that holds several, those that are meant: `state_dict_ema`; empty where none is named."""
        return self.name.partition("#")[2]

    @property
    def label(self) -> str:
        """For tables: `weights 1a2b3c4d`, `weights 1a2b3c4d#ema`, or the last part of a published name: `IMAGENET1K_V1`."""
        digits, sharp, key = self.name.removeprefix(FILE).partition("#")
        return f"weights {digits[:8]}{sharp}{key}" if self.name.startswith(FILE) else self.name.split(" ")[0].split(".")[-1]


class Normalisation(Spec):
    """What a network's images are normalised with: one number for each channel, of pixels scaled to 0..1."""

    mean: tuple[float, ...] = Field(min_length=1)
    """What is subtracted."""
    std: tuple[PositiveFloat, ...] = Field(min_length=1)
    """What the difference is divided by."""


class NetworkInput(Spec):
    """How a network takes images, where that is not as the data set gives them.

    Attributes:
        normalise: what they are normalised with; None as the data set's are.
        size: their height and width in pixels; None as the data set's.
    """

    normalise: Normalisation | None = None
    size: PositiveInt | None = None

    def misfit(self, image_shape: tuple[int, int, int]) -> tuple[str, str] | None:
        """Which key cannot be for images (C, H, W), and why, with the fix; None where both can."""
        channels, height, width = image_shape
        if self.normalise and len(self.normalise.mean) != channels:
            mismatch = f"the images have {counted(channels, 'channel')}, and here are numbers for {len(self.normalise.mean)}"
            return "normalise", f"{mismatch}. Give one number for each channel."
        if self.size == height == width:
            return "size", f"the images have {height}x{width} pixels already, so that it has no effect. Remove it."
        return None

    @property
    def labels(self) -> list[str]:
        """For tables: `normalised 1a2b`, a hash, and `224 px`."""
        own = [f"normalised {digest(self.normalise.model_dump(mode='json'))[:4]}"] if self.normalise else []
        return [*own, f"{self.size} px"] if self.size else own


_LEFT_OUT = ("hooks", "input", "weights", "ce", "stages", "other_teachers")
"""Keys of a trial that stand in its spec where they are given, and nowhere else."""


class TrialSpec(Spec):
    """One training, with every default written out. Nothing outside it changes the outcome.

    A teacher that is used as it is has `weights` and no `methods`: its trial trains nothing.

    Attributes:
        student: the name of the model that is trained.
        hooks: modules with which its groups end, where they are not the usual ones; or `RAW`.
        input: how it takes images, where that is not as the data set gives them.
        weights: what it starts from, where that is not its own initialisation.
        ce: the weight of the cross-entropy, where the suite sets it in place of what the methods say.
        stages: how often the stages that learn from the teacher alone are trained; None where its methods have none.
        teacher: the trial that trained the teacher, None where the methods read none. That trial may have a teacher of its own.
        other_teachers: those of the further teachers, where there are several at once.
    """

    dataset: DatasetSpec
    recipe: Recipe
    student: str
    hooks: tuple[str, ...] = ()
    input: NetworkInput | None = None
    weights: Weights | None = None
    methods: tuple[MethodSpec, ...]
    ce: CrossEntropyWeight | None = None
    stages: Stages | None = None
    seed: int
    teacher: TrialSpec | None = None
    other_teachers: tuple[TrialSpec, ...] = ()
    protocol: int = PROTOCOL

    @model_serializer(mode="wrap")
    def _without_what_is_not_given(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What concerns few trials is no part of the ids of the others."""
        tree: dict[str, Any] = whole(self)
        given = {name: getattr(self, name) not in (None, ()) for name in _LEFT_OUT}
        return {key: value for key, value in tree.items() if given.get(key, True)}

    @cached_property
    def id(self) -> str:
        """16 hexadecimal characters: a hash of the canonical spec and of nothing else."""
        return digest(self.model_dump(mode="json"))

    @cached_property
    def stream_seed(self) -> str:
        """Seeds what methods draw while they learn from its network alone: its id, in which `precision: default` reads as fp32.

        So the two draw alike, and are the same to the last bit where the device has no TF32.
        """
        return digest(_in_fp32(self.model_dump(mode="json")))

    @property
    def teachers(self) -> tuple[TrialSpec, ...]:
        """The trials of all its teachers; none where the methods read none."""
        return (self.teacher, *self.other_teachers) if self.teacher else ()

    @property
    def depth(self) -> int:
        """How many trainings must follow one another before this one."""
        return max((1 + teacher.depth for teacher in self.teachers), default=0)

    @property
    def network(self) -> tuple[str, tuple[str, ...], NetworkInput | None]:
        """What its student is built from: the model, its hooks and how it takes images."""
        return self.student, self.hooks, self.input

    @property
    def architecture(self) -> str:
        """What determines its arithmetic: the model, and the size of its images if that is its own, as in `resnet50 (224 px)`."""
        return f"{self.student} ({self.input.size} px)" if self.input and self.input.size else self.student

    @property
    def epochs(self) -> int:
        """Of its main training; 0 where nothing is trained."""
        return self.recipe.epochs if self.methods else 0

    @property
    def method(self) -> str:
        """Names joined by `+`; `pretrained` where nothing is trained."""
        return _together(part.name for part in self.methods)

    @property
    def label(self) -> str:
        """What tables call the network: its model, what it starts from, how it is read and how it takes images.

        `kdbench.method.specs.teacher_label` says how a teacher was trained.
        """
        given = [self.weights.label] if self.weights else []
        if self.hooks == RAW:
            given.append("raw")
        elif self.hooks:
            given.append(f"hooks {_hooks_text(self.hooks)}")
        given += self.input.labels if self.input else []
        return f"{self.student} ({', '.join(given)})" if given else self.student


_LONGEST_HOOKS = 40
"""Characters of hooks that are written out; more would fill a table, so that a hash stands for them."""


def _hooks_text(hooks: Sequence[str]) -> str:
    """`layers.8 .9 .11` for `layers.8`, `layers.9` and `layers.11`: no other hooks read so."""
    first = hooks[0].rpartition(".")[0]
    while first and not all(hook.startswith(f"{first}.") for hook in hooks):
        first = first.rpartition(".")[0]
    text = " ".join((hooks[0], *(hook[len(first) :] for hook in hooks[1:])))
    return text if len(text) <= _LONGEST_HOOKS else digest(hooks)[:4]


def teachers_in(spec: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The specs of all teachers, as JSON, in the spec of a trial as JSON; none where it has none or is not known."""
    first = spec.get("teacher") if spec else None
    return [first, *spec.get("other_teachers", ())] if spec and first else []


def _in_fp32(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a trial as JSON, with fp32 for each default precision in it and in its teachers."""
    recipe = spec["recipe"]
    changed = {**spec, "recipe": {**recipe, "precision": "fp32"} if recipe["precision"] == "default" else recipe}
    if teachers := teachers_in(spec):
        changed["teacher"], *others = map(_in_fp32, teachers)
        changed |= {"other_teachers": others} if others else {}
    return changed


def digest(value: object) -> str:
    """Hash of a JSON value: 16 hexadecimal characters, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _together(methods: Iterable[str]) -> str:
    """The name of a sum of methods."""
    return "+".join(methods) or "pretrained"


def why_foreign(record: Record, trial: str) -> str | None:
    """Why a record that lies in the folder of a trial is not that trial's, as the end of a sentence; None where it is."""
    if record.trial != trial:
        return f"it is the record of {record.trial}"
    if (own := digest(record.spec)) != trial:
        return f"its `spec` is that of trial {own}"
    method = _together(part["name"] for part in record.spec["methods"])
    for name, told, asked in (("seed", record.seed, record.spec["seed"]), ("method", record.method, method)):
        if told != asked:
            return f"its {name} is {told}, in its `spec` {asked}"
    return None


def file_name(file: Path) -> str:
    """What stands for a file in a trial's identity: a hash of its content.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as handle:
        return f"{FILE}{hashlib.file_digest(handle, 'sha256').hexdigest()[:16]}"
