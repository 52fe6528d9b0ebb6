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
    """Base of everything that enters a trial's identity: frozen, and a misspelt key is an error.

    The text under a field describes it: the reference pages and `kdbench show` print it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class SGD(Spec):
    """Settings of stochastic gradient descent: those of `torch.optim.SGD`."""

    lr: PositiveFloat
    """Learning rate at the start of the training."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum; 0 for none."""
    weight_decay: NonNegativeFloat = 5e-4
    """Weight decay, in the L2 form that `torch.optim.SGD` has."""
    nesterov: bool = False
    """Whether the momentum is Nesterov's."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Schedule(Spec):
    """Steps of the learning rate."""

    milestones: tuple[PositiveInt, ...] = ()
    """Epochs at whose start the learning rate is multiplied by `gamma`, in ascending order. The first epoch is 0."""
    gamma: PositiveFloat = 0.1
    """What the learning rate is multiplied by at each milestone."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(a >= b for a, b in pairwise(self.milestones)):
            raise ValueError("milestones must ascend")
        return self

    def factor(self, epoch: int) -> float:
        """What the base learning rate is multiplied by in `epoch`."""
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


class ResizedCrop(Spec):
    """A random part of the image is resized to the data set's size, bilinear and antialiased: torchvision's `RandomResizedCrop`."""

    scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    """Smallest and largest share of the image's area that the part has."""
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    """Smallest and largest width of the part, divided by its height."""

    @model_validator(mode="after")
    def _bounds_ascend(self) -> Self:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale: give the lower bound, then the upper one, at most 1")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError("ratio: give the lower bound, then the upper one")
        return self


class Augmentation(Spec):
    """How training images are varied. Images in memory are padded and cropped; streamed ones take a `resized_crop`."""

    pad: NonNegativeInt = 4
    """Pixels that are added on each side, before a crop of the image's own size is taken at a random place. 0 for no crop. Streamed
    images need 0."""
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    """What the added pixels show: black, or the image mirrored at its border."""
    flip: bool = True
    """Whether images are flipped left to right with probability 1/2. Turn it off where a mirrored image is of another class."""
    resized_crop: ResizedCrop | None = None
    """For streamed images, the random part that is taken and resized. None, the default, takes the centre."""

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
    """One training protocol."""

    epochs: PositiveInt
    """How many times the training images are gone through. Stages before the main training come on top."""
    batch_size: PositiveInt
    """Images in a batch. The last batch of an epoch has what is left."""
    optimiser: SGD
    """Settings of stochastic gradient descent."""
    schedule: Schedule = Schedule()
    """How the learning rate falls. Constant unless given."""
    augmentation: Augmentation = Augmentation()
    """How training images are varied."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """How numbers are rounded. `tf32` lets CUDA round the operands of convolutions and matrix products. `bf16` runs forward passes
    and losses under autocast. Weights and the optimiser's state are fp32 in all three. Tables never mix them."""
    compile: bool = False
    """Whether the passes of students and teacher in training go through `torch.compile`. It is faster after a start-up of its own.
    Results are equal up to rounding, and tables never mix them with others."""
    evaluate_every: PositiveInt = 1
    """Epochs from one test of the student to the next. It is always tested after the last epoch."""

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
        text = f"{counted(self.epochs, 'epoch')}, batch {self.batch_size}, lr {self.optimiser.lr:g}"
        return f"{text} [{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:4]}]"
