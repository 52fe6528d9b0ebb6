"""How a network is trained: a frozen value, read from YAML and written out in full in every trial."""

import hashlib
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from kdbench.spec.augmentation import Augmentation as Augmentation
from kdbench.spec.augmentation import ResizedCrop as ResizedCrop
from kdbench.spec.base import Spec as Spec
from kdbench.spec.base import SpecWithOptions
from kdbench.spec.optimiser import SGD as SGD
from kdbench.spec.optimiser import AdamW as AdamW
from kdbench.spec.optimiser import AnySchedule, Cosine, Optimiser
from kdbench.spec.optimiser import Schedule as Schedule
from kdbench.wording import counted, plural


class Recipe(SpecWithOptions):
    """One training protocol."""

    optional = frozenset(
        {
            *("label_smoothing", "mixup", "cutmix", "cutmix_probability", "gradient_clipping", "moving_average"),
            *("method_lr", "method_weight_decay", "stack"),
        }
    )

    epochs: PositiveInt
    """How many times the training images are gone through. Stages before the main training come on top."""
    batch_size: PositiveInt
    """Images in a batch. The last batch of an epoch has what is left."""
    optimiser: Optimiser
    """Settings of the optimiser: of stochastic gradient descent, or with `name: adamw` of AdamW."""
    schedule: AnySchedule = Schedule()
    """How the learning rate falls: in steps, or with `name: cosine` along a cosine. Constant unless given."""
    augmentation: Augmentation = Augmentation()
    """How training images are varied."""
    precision: Literal["default", "fp32", "tf32", "bf16"] = "default"
    """How numbers are rounded. `default` is PyTorch's own choice, by which the field trains: TF32 in convolutions where the GPU has
    it, fp32 in matrix products; on a CPU and on older GPUs it is fp32. `fp32` is strict everywhere. `tf32` lets CUDA round the
    operands of convolutions and of matrix products. `bf16` runs forward passes and losses under autocast. Weights and the
    optimiser's state are always fp32. The record says what was used, and tables never mix them."""
    compile: bool = False
    """Whether the passes of students and teacher in training go through `torch.compile`. It is faster after a start-up of its own.
    Results are equal up to rounding, and tables never mix them with others. Of stacked students, the pass of all is compiled."""
    stack: bool = False
    """Whether students of one architecture that train side by side compute as one network, whose convolutions are in groups. It is
    meant for small networks on a GPU. Results are equal up to rounding, and tables never mix them with others. Teachers are not
    stacked."""
    evaluate_every: PositiveInt = 1
    """Epochs from one test of the student to the next. It is always tested after the last epoch."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the cross-entropy's target that all classes get alike. It concerns the cross-entropy alone, no term of a method."""
    mixup: NonNegativeFloat = 0
    """Alpha of mixup: each image is mixed with another one of its batch, in a proportion drawn from Beta(alpha, alpha) for the
    batch. 0 for none. Zhang et al., 2018, arXiv:1710.09412."""
    cutmix: NonNegativeFloat = 0
    """Alpha of CutMix: each image gets a rectangle of another one of its batch, of a share drawn from Beta(alpha, alpha) for the
    batch. 0 for none. Yun et al., 2019, arXiv:1905.04899."""
    cutmix_probability: float = Field(0.5, gt=0, lt=1)
    """Where `mixup` and `cutmix` are both given, the probability that a batch gets CutMix; the others get mixup."""
    gradient_clipping: NonNegativeFloat = 0
    """Norm to which the gradient of all that is trained is cut before each step of the main training. 0 for no cut."""
    moving_average: float = Field(0.0, ge=0, lt=1)
    """Decay of a moving average of the student's weights, per step of the main training. What is tested, kept and deployed is then
    the average. 0 for none."""
    method_lr: PositiveFloat = 1.0
    """What the learning rate is multiplied by for a method's own parameters in the main training."""
    method_weight_decay: NonNegativeFloat | None = None
    """Weight decay of a method's own parameters in the main training. The optimiser's unless given."""

    @model_validator(mode="after")
    def _milestones_are_reached(self) -> Self:
        milestones = self.schedule.milestones if isinstance(self.schedule, Schedule) else ()
        if milestones and milestones[-1] >= self.epochs:
            raise ValueError(
                f"schedule.milestones: {milestones[-1]} is never reached in {counted(self.epochs, 'epoch')}; "
                "give milestones below `epochs`"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        length = self.schedule.warm_up_epochs
        if length >= self.epochs:
            raise ValueError(
                f"schedule.warm_up_epochs: a warm-up of {length:g} {plural('epoch', length)} does not end in "
                f"{counted(self.epochs, 'epoch')}; give one that is shorter than `epochs`"
            )
        return self

    @model_validator(mode="after")
    def _rates_are_below_the_optimiser_s(self) -> Self:
        final = self.schedule.final_lr if isinstance(self.schedule, Cosine) else 0.0
        for key, rate in (("final_lr", final), ("warm_up_lr", self.schedule.warm_up_lr)):
            if rate and rate > self.optimiser.lr:
                raise ValueError(f"schedule.{key}: {rate:g} is above the learning rate {self.optimiser.lr:g}; give a lower one")
        return self

    @model_validator(mode="after")
    def _one_of_two_is_chosen(self) -> Self:
        usual = type(self).model_fields["cutmix_probability"].default
        if self.cutmix_probability != usual and not (self.mixup and self.cutmix):
            raise ValueError("cutmix_probability chooses between mixup and CutMix; give both `mixup` and `cutmix`, or remove it")
        return self

    def evaluates(self, epoch: int) -> bool:
        """Whether the student is tested after `epoch`, counted from 1."""
        return epoch % self.evaluate_every == 0 or epoch == self.epochs

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return bool(self.mixup or self.cutmix)

    @property
    def arithmetic(self) -> str:
        """What it asks for to round its numbers; what `default` comes to depends on the device."""
        return self.precision + ", compiled" * self.compile + ", stacked" * self.stack

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known to read its numbers, in sentences for the record."""
        found = []
        if self.moving_average:
            decay = f"with a decay of {self.moving_average:g} per step"
            found.append(f"moving average of the weights, {decay}: it is what is tested, kept and deployed")
        if self.stack:
            found.append("stacked students: seconds are a share of what they took together, and depend on how many there were")
        if self.mixes:
            found.append("mixed images: the training error counts the class of the larger share")
        return tuple(found)

    @property
    def summary(self) -> str:
        """What a reader of a table needs of it; the hash tells recipes apart that read alike."""
        text = ", ".join(self._features())
        return f"{text} [{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:4]}]"

    def _features(self) -> Iterator[str]:
        yield counted(self.epochs, "epoch")
        yield f"batch {self.batch_size}"
        yield f"{'AdamW ' * isinstance(self.optimiser, AdamW)}lr {self.optimiser.lr:g}"
        if isinstance(self.schedule, Cosine):
            yield "cosine"
        if self.schedule.warm_up_epochs:
            yield f"warm-up {self.schedule.warm_up_epochs:g}"
        if self.augmentation.rand_augment:
            yield "RandAugment"
        if self.augmentation.random_erasing:
            yield f"erasing {self.augmentation.random_erasing:g}"
        named = {
            "mixup": self.mixup,
            "CutMix": self.cutmix,
            "label smoothing": self.label_smoothing,
            "clipping": self.gradient_clipping,
            "moving average": self.moving_average,
        }
        yield from (f"{name} {value:g}" for name, value in named.items() if value)
