"""How a network is trained: a frozen value, read from YAML and written out in full in every trial."""

import hashlib
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from kdbench.wording import counted


class Spec(BaseModel):
    """Base of everything that enters a trial's identity: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SGD(Spec):
    """Settings of stochastic gradient descent; `weight_decay` is the L2 form that `torch.optim.SGD` has."""

    lr: PositiveFloat
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 5e-4
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Schedule(Spec):
    """The learning rate is multiplied by `gamma` at the start of each epoch in `milestones` (counted from 0)."""

    milestones: tuple[PositiveInt, ...] = ()
    gamma: PositiveFloat = 0.1

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(a >= b for a, b in pairwise(self.milestones)):
            raise ValueError("milestones must ascend")
        return self

    def factor(self, epoch: int) -> float:
        """What the base learning rate is multiplied by in `epoch`."""
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


class ResizedCrop(Spec):
    """A random part of the image is resized to the data set's size, bilinear and antialiased: torchvision's `RandomResizedCrop`.

    `scale` bounds the part's share of the image's area, `ratio` its width over its height.
    """

    scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _bounds_ascend(self) -> Self:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale: give the lower bound, then the upper one, at most 1")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError("ratio: give the lower bound, then the upper one")
        return self


class Augmentation(Spec):
    """Pad by `pad` pixels and crop back at a random place, or take a `resized_crop`; flip left-right with probability 1/2.

    Images in memory are padded; streamed ones, which come in any size, take a `resized_crop`.
    """

    pad: NonNegativeInt = 4
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    flip: bool = True
    resized_crop: ResizedCrop | None = None

    @model_validator(mode="after")
    def _one_kind_of_crop(self) -> Self:
        if self.resized_crop and self.pad:
            raise ValueError("pad has no effect beside resized_crop; give `pad: 0` with it")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_taken(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Trials that take no resized crop keep the identity that they had before there was one."""
        written: dict[str, Any] = write(self)
        if self.resized_crop is None:
            del written["resized_crop"]
        return written


class Recipe(Spec):
    """One training protocol.

    `precision`: `fp32`; `tf32` lets CUDA round the operands of convolutions and matrix products; `bf16` runs forward passes and
    losses under autocast. Weights and optimiser states are fp32 in all three. `compile` sends the students' and the teacher's
    passes in training through torch.compile: faster after a start-up of its own, and equal only but for rounding. The student is
    tested after every `evaluate_every`-th epoch and after the last.
    """

    epochs: PositiveInt
    batch_size: PositiveInt
    optimiser: SGD
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    compile: bool = False
    evaluate_every: PositiveInt = 1

    @model_validator(mode="after")
    def _milestones_are_reached(self) -> Self:
        if self.schedule.milestones and self.schedule.milestones[-1] >= self.epochs:
            raise ValueError(
                f"schedule.milestones: {self.schedule.milestones[-1]} is never reached in {counted(self.epochs, 'epoch')}; "
                "give milestones below `epochs`"
            )
        return self

    def evaluates(self, epoch: int) -> bool:
        """Whether the student is tested after `epoch`, counted from 1."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs

    @property
    def arithmetic(self) -> str:
        """What rounds its numbers: results of different arithmetic are never mixed in a table."""
        return self.precision + ", compiled" * self.compile

    @property
    def summary(self) -> str:
        """What a reader of a table needs of it; the hash tells recipes apart that read alike."""
        told = f"{counted(self.epochs, 'epoch')}, batch {self.batch_size}, lr {self.optimiser.lr:g}"
        return f"{told} [{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:4]}]"
