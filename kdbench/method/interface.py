"""The interface of a knowledge-transfer method: adapter modules and named loss terms, no loop, no optimiser, no device."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method.outputs import Outputs, Shapes
from kdbench.registry import Registry
from kdbench.spec.optimiser import Optimiser
from kdbench.spec.trial import CrossEntropyWeight, MethodParams

Losses = Mapping[str, Tensor]
"""Scalar terms of a loss by name, already weighted. The engine adds `ce_weight` times the cross-entropy, and logs each term."""

UnitInterval = Annotated[float, Field(ge=0, le=1)]
"""The type of a parameter between 0 and 1, both included."""

VIEWS = ("strong", "rotations", "mixup")
"""The views of a batch that a method may ask for."""

USUAL_BATCH = 64
"""Images in a batch where nobody says how many there are."""

METHODS: Registry[type[Method]] = Registry("method", "methods")
register = METHODS.register


class PairError(KdbenchError):
    """A method cannot train this pair of networks. The message says why, and what to choose."""


@dataclass(frozen=True)
class View:
    """Another look at the images of a batch.

    Attributes:
        images: (V, C, H, W), normalised.
        labels: (V,), int64, of these images; or (V, K), the shares of the classes in each of them, where images are mixed.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batch:
    """The images of one step. Every method that trains side by side sees the same ones.

    Attributes:
        images: (B, C, H, W), augmented and normalised.
        labels: (B,), int64.
        indices: (B,), int64, the positions of the images in the training set.
        epoch: the epoch of the current stage, counted from 0.
        epochs: how many epochs the current stage has.
        generator: random numbers for this method alone, on the CPU. It is derived anew for each epoch.
        soft_labels: (B, K), the shares of the classes in each image, where the recipe mixes images (mixup, CutMix); None where it
            does not. `labels` then has the class of the larger share.
        views: the views that the method asks for, by name. Networks' outputs for them are in `Outputs.views`.
        label_smoothing: the recipe's, for a method with a cross-entropy of its own on labels.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    epoch: int
    epochs: int
    generator: torch.Generator
    soft_labels: Tensor | None = None
    views: Mapping[str, View] = field(default_factory=dict)
    label_smoothing: float = 0.0

    @property
    def targets(self) -> Tensor:
        """What the cross-entropy learns: `soft_labels` (B, K) where the recipe mixes images, and `labels` (B,) otherwise."""
        return self.labels if self.soft_labels is None else self.soft_labels

    def by_epoch(self, value: Callable[[int], float]) -> Tensor:
        """`value` of the epoch, as a tensor () of the images' type on their device: a weight that warms up or falls.

        It is what `value(batch.epoch)` is, and keeps a step fast on CUDA: a graph is recorded once for all epochs, where one that
        reads `batch.epoch` is recorded anew in each.

        Args:
            value: from the epoch, counted from 0, to a number, such as `lambda epoch: min(epoch / 20, 1)`.
        """
        return self.images.new_full((), value(self.epoch))

    def random(self, make: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
        """Random numbers of this method alone, on the images' device: `make(*args, **options, generator=batch.generator)`.

        A step that draws like this can be a CUDA graph; one that uses the generator itself cannot.

        Args:
            make: a function of torch's that draws, such as `torch.rand` in `batch.random(torch.rand, 4, 1)`.
            args: its arguments, the same in each step.
            options: the same.
        """
        return on_device(make(*args, **options, generator=self.generator), self.images.device)

    def seen_by(self, method: Method) -> Batch:
        """The same with those views alone that a method asks for."""
        seen = copy(self)  # `replace` would read the epoch, which a graph that is being recorded notices
        object.__setattr__(seen, "views", _Views(method, self.views))
        return seen


def on_device(made: Tensor, device: torch.device) -> Tensor:
    """A tensor that the host has made, on a device, without waiting for it."""
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and not made.is_cuda else made


@dataclass(frozen=True)
class TeacherParts:
    """Copies of the teacher's parameters that some methods read.

    Attributes:
        classifier_weight: (K, D), the weight of the classifier.
        classifier_bias: (K,), its bias.
        norms: for each group, weight and bias of the last batch norm before its pre-activation, (C_i,) each. Empty if the network
            has no such norms.
    """

    classifier_weight: Tensor
    classifier_bias: Tensor
    norms: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Pair:
    """All that a method may know of a teacher and a student before training.

    Attributes:
        student: shapes of the student's hook points.
        teacher: shapes of the teacher's hook points.
        labels: (N,), int64, of all N training images. A memory bank has N rows.
        teacher_parts: the teacher's classifier and last batch norms.
        image_shape: (C, H, W) of the images.
        smallest_batch: how many images the smallest batch of the training has.
        largest_batch: how many the largest has. Both are 64 where the recipe is not known.
        others: shapes of the hook points of further teachers, whose outputs are `teacher.others`. Empty where there is one teacher.
    """

    student: Shapes
    teacher: Shapes
    labels: Tensor
    teacher_parts: TeacherParts
    image_shape: tuple[int, int, int]
    smallest_batch: int = USUAL_BATCH
    largest_batch: int = USUAL_BATCH
    others: tuple[Shapes, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A training before the main one.

    What a stage trains is frozen afterwards, except the student. A stage with `trains_student=False` learns from the teacher alone.
    Its method declares it in `teacher_stages`. It is trained before any student, once for each student seed, or once for all seeds
    if the suite says `stages: per-teacher`. It is kept beside the teacher, for every student and method that needs the same.

    Attributes:
        name: the name that logs show.
        epochs: how many epochs it lasts. With 0 it is left out, and what it would train stays as it was built.
        losses: a function `(student, teacher, batch) -> Losses`. A stage of the teacher alone gets the teacher's outputs for both.
        modules: the modules that it trains.
        trains_student: whether it trains the student, too.
        optimiser: its settings. None means the recipe's, at its first learning rate.
        milestones: epochs at whose start the learning rate is divided by ten. Without them it stays the same.
    """

    name: str
    epochs: int
    losses: Callable[[Outputs, Outputs, Batch], Losses]
    modules: tuple[nn.Module, ...]
    trains_student: bool
    optimiser: Optimiser | None = None
    milestones: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"stage {self.name} has {self.epochs} epochs. Give 0 or more.")


@dataclass(frozen=True)
class Survey:
    """One pass of the teacher over the training set before any training, without gradients: class means, for example.

    The images are as they are in a test: each once, in order, not augmented. What is found stays in the buffers of `module`. It is
    kept beside the teacher, for every student and method that needs the same. Its method declares it in `teacher_surveys`.

    Attributes:
        name: the name that logs show.
        module: holds the buffers that are filled. Nothing of it is trained.
        see: a function `(teacher, labels) -> None`, called with the teacher's outputs for the next images and their labels (B,).
        finish: called after the last images.
    """

    name: str
    module: nn.Module
    see: Callable[[Outputs, Tensor], None]
    finish: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of a method that learn with other settings than the recipe's.

    Attributes:
        module: holds them.
        lr_factor: what the recipe's learning rate is multiplied by.
        weight_decay: in place of the recipe's; None for the recipe's.
    """

    module: nn.Module
    lr_factor: float = 1.0
    weight_decay: float | None = None


class Method(nn.Module, ABC):
    """Base of all methods. One instance trains with one student.

    The docstring of a method opens with its formula. A last paragraph has lines that begin with `Transfers:`, `Paper:`, `Code:`
    (the authors') and, if there are any, `Deviations:`. `kdbench show method NAME` prints them.

    Class attributes:
        Params: the class of its parameters, each with a default.
        reads: the hook points that it reads, by their names in `Outputs`. Empty, the default, means that it needs no teacher.
        weights: the names of the parameters that weigh its terms against the cross-entropy. `build` may set fewer, where a term
            teaches nothing for this pair.
        min_batch_size: how many images every batch needs; 1 unless given. `build` may set another number.
        min_classes: how many classes the data set needs; 1 unless given.
        teacher_stages: the stages that learn from the teacher alone: the name of each, with the names of the parameters that
            change what it learns. Planning reads this before anything is built.
        teacher_surveys: the same for its surveys.
        views: further views of each batch that it needs: `strong`, the recipe's strong augmentation of the same images;
            `rotations`, each image turned by 90, 180 and 270 degrees (3 B images, those of image b at 3 b to 3 b + 2); `mixup`,
            each image mixed with another one of the batch. Both networks see them, each in a pass of its own.
        several_teachers: whether it learns from several teachers. `teacher` is then the first, `teacher.others` has the outputs of
            the others, and `pair.others` their shapes. Stages and surveys see the first alone. Without it, a pair with several is
            refused.

    Raises:
        KdbenchError: `teacher_stages` or `teacher_surveys` names a parameter that the class does not have, `views` an unknown one,
            or a parameter is called `ce`.

    Attributes:
        params: the parameters of this instance.
        ce_weight: the weight of the cross-entropy, a number; 1 unless `build` sets another. `losses` may set it for each step. Then
            derive it from the batch, as in `1 - batch.epoch / batch.epochs`, and from nothing that the instance remembers: a
            training that is resumed continues with a new instance.
        notes: sentences on how this pair is handled, for the log, the record and the tables. `build` may append some.
    """

    Params: ClassVar[type[MethodParams]] = MethodParams
    reads: ClassVar[tuple[str, ...]] = ()
    weights: tuple[str, ...] = ("beta",)
    min_batch_size: int = 1
    min_classes: ClassVar[int] = 1
    teacher_stages: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    teacher_surveys: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    views: ClassVar[tuple[str, ...]] = ()
    several_teachers: ClassVar[bool] = False
    params: Any
    ce_weight: float
    notes: list[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for declared, what in (("teacher_stages", "stage"), ("teacher_surveys", "survey")):
            for name, names in getattr(cls, declared).items():
                if unknown := sorted(set(names) - set(cls.Params.model_fields)):
                    raise KdbenchError(
                        f"{cls.__name__}: {what} {name} depends on {', '.join(unknown)} in `{declared}`, and there is no such "
                        "parameter. Correct the names."
                    )
        if "ce" in cls.Params.model_fields:
            raise KdbenchError(
                f"{cls.__name__}: `ce` is the weight of the cross-entropy in suites. Give the parameter another name."
            )
        if unknown := sorted(set(cls.views) - set(VIEWS)):
            raise KdbenchError(f"{cls.__name__}: {unknown[0]} in `views` is no view. Choose from {', '.join(VIEWS)}.")

    def __init__(self, params: MethodParams, pair: Pair) -> None:
        super().__init__()
        self.params = params
        self.ce_weight = 1.0
        self.notes = []
        self.build(pair)
        self._refuse_too_little(pair)

    def _refuse_too_little(self, pair: Pair) -> None:
        if "rotations" in self.views and pair.image_shape[1] != pair.image_shape[2]:
            size = "x".join(map(str, pair.image_shape[1:]))
            raise PairError(
                f"it turns images by 90 degrees, and those of this data set have {size} pixels; choose square images, or another "
                "method"
            )
        (classes,) = pair.student.logits
        if classes < self.min_classes:
            raise PairError(f"it needs at least {self.min_classes} classes, and the data set has {classes}; choose another method")
        if pair.smallest_batch < self.min_batch_size:
            raise PairError(
                f"it needs at least {self.min_batch_size} images in every batch, and the smallest batch of this training has "
                f"{pair.smallest_batch}; raise `batch_size` in the recipe, or train on more images"
            )

    def build(self, pair: Pair) -> None:
        """Make the adapters, as submodules, and memory banks, as buffers. The default makes none.

        Raises:
            PairError: the method cannot train this pair.
        """

    def stages(self) -> tuple[Stage, ...]:
        """The trainings before the main one, in order. The default has none."""
        return ()

    def surveys(self) -> tuple[Survey, ...]:
        """The passes of the teacher over the training set before any training, in order. The default has none."""
        return ()

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Its parameters that learn with other settings than the recipe's in the main training. The default has none."""
        return ()

    @abstractmethod
    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """The terms of the main training, weighted, without the cross-entropy. `teacher` carries no gradient."""

    def predict(self, student: Outputs) -> Tensor:
        """Logits (B, K) of the network that would be deployed. The default gives the student's own."""
        return student.logits

    def deployed(self) -> tuple[Tensor, ...]:
        """The parameters that `predict` needs beside the student's, trained or fixed. The default needs none."""
        return ()


def checked(losses: object) -> Losses:
    """What a method's `losses` returned, if it is what they promise.

    Raises:
        TypeError: it is no mapping, or a term is no tensor of shape ().
    """
    if not isinstance(losses, Mapping):
        raise TypeError(f"losses returned a {type(losses).__name__}. Return a dict of named terms, such as {{'distance': ...}}.")
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.ndim:
            text = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(f"the term '{name}' is {text}. Return the mean or the sum of a tensor, without `.item()`.")
    return losses


class _Views(dict[str, Any]):
    """The views that a method asks for, by name, out of all that are there."""

    def __init__(self, method: Method, given: Mapping[str, Any]) -> None:
        super().__init__({name: given[name] for name in method.views if name in given})
        self._declared = method.views

    def __missing__(self, name: str) -> Any:
        if name in self._declared:
            raise KdbenchError(f"it is given no view '{name}'. In a loop of your own, fill in `views` of outputs and batch.")
        raise RuntimeError(
            f"it uses the view '{name}', and its class does not ask for it. Write views = {(*self._declared, name)!r}."
        )


def _seen(part: Method, student: Outputs, teacher: Outputs, batch: Batch) -> tuple[Outputs, Outputs, Batch]:
    """What a method is given: the views that it asks for alone, and no teacher where it declares that it reads none."""
    student = replace(student, views=_Views(part, student.views))
    teacher = replace(teacher, views=_Views(part, teacher.views)) if part.reads else _UNREAD
    return student, teacher, batch.seen_by(part)


class _Unread:
    """Stands for the teacher's outputs where a method declares that it reads none."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"it uses the teacher's {name}, and its `reads` names nothing. Write reads = ('{name}',).")


_UNREAD = cast(Outputs, _Unread())


def _declared(part: Method, stage: Stage) -> Stage:
    """The stage, if its method's class says of whom it learns; its losses are given what the method declares."""
    if stage.trains_student and stage.name in part.teacher_stages:
        raise RuntimeError(f"`teacher_stages` names {stage.name}, which trains the student. Take it out there.")
    if not stage.trains_student and stage.name not in part.teacher_stages:
        raise RuntimeError(
            f"stage {stage.name} learns from the teacher alone, and its class does not say so. Write teacher_stages = "
            f"{{'{stage.name}': (...)}} with the names of the parameters that determine what it learns."
        )
    if not stage.trains_student and not part.reads:
        raise RuntimeError(f"stage {stage.name} learns from the teacher alone, and `reads` names nothing. Name what it reads.")
    return replace(stage, losses=lambda student, teacher, batch: stage.losses(*_seen(part, student, teacher, batch)))


class Composition(nn.Module):
    """One method or several (`at+kd`) as a student trains with them: the sum of their terms, with one cross-entropy.

    Args:
        parts: the methods, by name.
        ce: the weight of the cross-entropy, in place of what the parts say: a number, or numbers by the epoch from which on they
            hold, such as `{0: 1, 30: 0.5}`. None leaves it to the parts.

    Attributes:
        parts: the methods, by name.

    Raises:
        PairError: a part sets the cross-entropy's weight to 0 and another does not, and `ce` does not say which is meant.
    """

    def __init__(self, parts: Mapping[str, Method], ce: CrossEntropyWeight | None = None) -> None:
        super().__init__()
        self.parts: Mapping[str, Method] = nn.ModuleDict(parts)  # type: ignore[assignment]  # a mapping at run time
        self.ce = ce
        self._ce_now = ce[0] if isinstance(ce, Mapping) else ce
        without = [name for name, part in parts.items() if part.ce_weight == 0]
        if ce is None and 0 < len(without) < len(parts):
            name, others = without[0], " and ".join(name for name in parts if name not in without)
            raise PairError(
                f"{name} trains without the cross-entropy, and {others} with it. Say which weight it has beside the parts' "
                f"parameters: `{'+'.join(parts)}: {{ce: 1}}`, or 0 for none"
            )

    @property
    def ce_weight(self) -> float:
        """The weight of the cross-entropy in this step: `ce`, or the product of the parts' weights. Read it after `losses`.

        Raises:
            TypeError: a part's weight is no number.
        """
        if self._ce_now is not None:
            return self._ce_now
        for name, part in self.parts.items():
            if not isinstance(part.ce_weight, Real):
                raise TypeError(
                    f"ce_weight of {name} is a {type(part.ce_weight).__name__}. Set a number; what learns belongs in a term."
                )
        return math.prod(part.ce_weight for part in self.parts.values())

    @property
    def notes(self) -> list[str]:
        """What the parts say about how they handle this pair."""
        return [f"{name}: {note}" for name, part in self.parts.items() for note in part.notes]

    @property
    def reads_teacher(self) -> bool:
        """Whether any part needs the teacher's outputs."""
        return any(part.reads for part in self.parts.values())

    @property
    def views(self) -> tuple[str, ...]:
        """The views that any part needs."""
        return tuple(view for view in VIEWS if any(view in part.views for part in self.parts.values()))

    @property
    def predicting(self) -> dict[str, Method]:
        """The parts that the deployed network predicts with."""
        return {name: part for name, part in self.parts.items() if type(part).predict is not Method.predict or part.deployed()}

    def stages(self) -> list[tuple[str, Stage]]:
        """The stages of the parts before the main training, each with the name of its part.

        Raises:
            RuntimeError: a stage learns from the teacher alone, and its class does not declare it.
        """
        return [(name, _declared(part, stage)) for name, part in self.parts.items() for stage in part.stages()]

    def surveys(self) -> list[tuple[str, Survey]]:
        """The surveys of the parts, each with the name of its part.

        Raises:
            RuntimeError: the class of a part does not declare one.
        """
        found = [(name, part, survey) for name, part in self.parts.items() for survey in part.surveys()]
        for _, part, survey in found:
            if survey.name not in part.teacher_surveys:
                raise RuntimeError(
                    f"its class does not declare the survey {survey.name}. Write teacher_surveys = {{'{survey.name}': (...)}} with "
                    "the names of the parameters that determine what it finds."
                )
        return [(name, survey) for name, _, survey in found]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the parts."""
        return [group for part in self.parts.values() for group in part.parameter_groups()]

    def deployed(self) -> list[Tensor]:
        """The parameters that the deployed network has beside the student's, trained or fixed."""
        return [tensor for part in self.parts.values() for tensor in part.deployed()]

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """The weighted transfer terms of all parts, named `part.term`.

        Raises:
            KdbenchError: the batch has fewer images than a part needs, as the last batch of an epoch may in a loop of your own.
        """
        for name, part in self.parts.items():
            if len(batch.labels) < part.min_batch_size:
                raise KdbenchError(
                    f"{name} needs at least {part.min_batch_size} images in a batch, and this one has {len(batch.labels)}. Leave a "
                    "smaller last batch out, as DataLoader does with drop_last=True."
                )
        if isinstance(self.ce, Mapping):
            self._ce_now = self.ce[max(epoch for epoch in self.ce if epoch <= batch.epoch)]
        return {
            f"{name}.{term}": value
            for name, part in self.parts.items()
            for term, value in checked(part.losses(*_seen(part, student, teacher, batch))).items()
        }

    def predict(self, student: Outputs) -> Tensor:
        """Logits (B, K) of the network that would be deployed."""
        for part in self.parts.values():
            logits = part.predict(student)
            if logits is not student.logits:
                return logits
        return student.logits
