"""The interface of a knowledge-transfer method: adapter modules and named loss terms, no loop, no optimiser, no device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method.batch import VIEWS, Batch
from kdbench.method.outputs import Outputs
from kdbench.method.pair import Pair, PairError
from kdbench.method.stages import Losses, ParameterGroup, Stage, Survey
from kdbench.registry import Registry
from kdbench.spec.trial import MethodParams

UnitInterval = Annotated[float, Field(ge=0, le=1)]
"""The type of a parameter between 0 and 1, both included."""

METHODS: Registry[type[Method]] = Registry("method", "methods")
register = METHODS.register


class Method(nn.Module, ABC):
    """Base of all methods. One instance trains with one student.

    The docstring of a method opens with its formula. A last paragraph has lines that begin with `Transfers:`, `Paper:`, `Code:`
    (the authors') and, if there are any, `Deviations:`. `kdbench show method NAME` prints them.

    Class attributes:
        Params: the class of its parameters, each with a default. One that is called `warm_up_epochs`, `ramp_up_epochs`,
            `reversal_epochs` or `decay_after` counts epochs of the main training: plans and records say so where that is shorter.
        reads: the hook points that it reads, by their names in `Outputs`. Empty, the default, means that it needs no teacher. A
            network that lacks one is refused; `preactivations`, `tokens`, `heads` and `pooled_maps`, which a method may read of one
            network alone, it refuses itself.
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
            `Params` is no `MethodParams`, a parameter is called `ce`, or it learns from the teacher before the training and `reads`
            names nothing.

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
        if not issubclass(cls.Params, MethodParams):
            raise KdbenchError(f"{cls.__name__}: `Params` is no kdbench.MethodParams. Write `class Params(MethodParams):`.")
        for declared, what in (("teacher_stages", "stage"), ("teacher_surveys", "survey")):
            for name, names in getattr(cls, declared).items():
                if unknown := sorted(set(names) - set(cls.Params.model_fields)):
                    raise KdbenchError(
                        f"{cls.__name__}: {what} {name} depends on {', '.join(unknown)} in `{declared}`, and there is no such "
                        "parameter. Correct the names."
                    )
        if (cls.teacher_stages or cls.teacher_surveys) and not cls.reads:
            raise KdbenchError(
                f"{cls.__name__}: it learns from the teacher before the training, and `reads` names nothing. Name what it reads."
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
