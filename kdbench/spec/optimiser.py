"""Optimisers and the schedules of their learning rates."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from kdbench.errors import nearest
from kdbench.spec.base import SpecWithOptions


class SGD(SpecWithOptions):
    """Stochastic gradient descent: the settings of `torch.optim.SGD`. It is the optimiser that needs no `name`."""

    optional = frozenset({"decay_norms_and_biases"})

    lr: PositiveFloat
    """Learning rate at the start of the training."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum; 0 for none."""
    weight_decay: NonNegativeFloat = 5e-4
    """Weight decay, in the L2 form that `torch.optim.SGD` has."""
    nesterov: bool = False
    """Whether the momentum is Nesterov's."""
    decay_norms_and_biases: bool = True
    """Whether weight decay acts on every parameter, as in torch. With false it spares parameters of one dimension (norms and
    biases) and those that the network names in `no_weight_decay()`, as in timm."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamW(SpecWithOptions):
    """Adam with decoupled weight decay: the settings of `torch.optim.AdamW`. Loshchilov and Hutter, 2019, arXiv:1711.05101."""

    optional = frozenset({"decay_norms_and_biases"})

    name: Literal["adamw"] = "adamw"
    """Says which optimiser it is."""
    lr: PositiveFloat
    """Learning rate at the start of the training, after a warm-up."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """How slowly the averages of the gradient and of its square move."""
    eps: PositiveFloat = 1e-8
    """What is added to the root of the average square."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay, decoupled from the gradient."""
    decay_norms_and_biases: bool = True
    """As for SGD."""


class _WarmUp(SpecWithOptions):
    """What all schedules share."""

    shared: ClassVar[frozenset[str]] = frozenset({"warm_up_epochs", "warm_up_lr", "update"})

    warm_up_epochs: NonNegativeFloat = 0
    """For how long the learning rate first rises linearly, in epochs. 0 for no warm-up. The schedule continues as if there had been
    none: a warm-up is no part that comes before it."""
    warm_up_lr: NonNegativeFloat | None = None
    """The learning rate at which the warm-up starts. Unless given, the optimiser's divided by `warm_up_epochs + 1`: the epochs rise
    evenly, and the first one trains something."""
    update: Literal["epoch", "step"] = "epoch"
    """When the learning rate changes: at the start of each epoch, or before each step. By step, the time in the formulas has a
    fraction: the part of the epoch that is over."""

    @model_validator(mode="after")
    def _warm_up_is_used(self) -> Self:
        if self.warm_up_lr is not None and not self.warm_up_epochs:
            raise ValueError("warm_up_lr has no effect without `warm_up_epochs`; give both, or remove it")
        if self.warm_up_lr == 0 and self.update == "epoch":
            raise ValueError("with a warm_up_lr of 0 the first epoch trains nothing; give a higher one, or `update: step`")
        return self

    def rate(self, lr: float, time: float, epochs: int) -> float:
        """The learning rate.

        Args:
            lr: the optimiser's.
            time: in epochs since the start; with a fraction where the rate changes with every step.
            epochs: how many the training has.
        """
        if time < self.warm_up_epochs:
            start = lr / (self.warm_up_epochs + 1) if self.warm_up_lr is None else self.warm_up_lr
            return start + (lr - start) * time / self.warm_up_epochs
        return self._falling(lr, time, epochs)

    @abstractmethod
    def _falling(self, lr: float, time: float, epochs: int) -> float:
        """The learning rate after the warm-up; the arguments are those of `rate`."""


class Schedule(_WarmUp):
    """Steps of the learning rate. It is the schedule that needs no `name`; without milestones the rate is constant."""

    optional = _WarmUp.shared

    milestones: tuple[PositiveInt, ...] = ()
    """Epochs at whose start the learning rate is multiplied by `gamma`, in ascending order. The first epoch is 0."""
    gamma: PositiveFloat = 0.1
    """What the learning rate is multiplied by at each milestone."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(a >= b for a, b in pairwise(self.milestones)):
            raise ValueError("milestones must ascend")
        return self

    @model_validator(mode="after")
    def _update_is_used(self) -> Self:
        if self.update == "step" and not self.warm_up_epochs:
            raise ValueError("update: step has no effect on steps without a warm-up; give `warm_up_epochs`, or `update: epoch`")
        return self

    def _falling(self, lr: float, time: float, epochs: int) -> float:
        return lr * self.gamma ** sum(time >= milestone for milestone in self.milestones)


class Cosine(_WarmUp):
    """Half a cosine from the optimiser's rate down to `final_lr`: final_lr + (lr - final_lr) (1 + cos(pi t / epochs)) / 2, where t
    is the time in epochs, as in timm. Loshchilov and Hutter, 2017, arXiv:1608.03983."""

    optional = _WarmUp.shared

    name: Literal["cosine"] = "cosine"
    """Says which schedule it is."""
    final_lr: NonNegativeFloat = 0
    """The rate at which the cosine ends."""

    def _falling(self, lr: float, time: float, epochs: int) -> float:
        return self.final_lr + 0.5 * (lr - self.final_lr) * (1 + math.cos(math.pi * time / epochs))


USUAL_NAMES = {"optimiser": "sgd", "schedule": "steps"}
"""By key of a recipe, the `name` of what needs none."""


def _by_name(key: str, model: type[BaseModel], **others: type[BaseModel]) -> BeforeValidator:
    """Choose the model for a key of a recipe by the `name` in a mapping; `model` needs none."""
    usual = USUAL_NAMES[key]
    models = {usual: model, **others}

    def chosen(given: Any) -> Any:
        if isinstance(given, BaseModel):
            return given
        if not isinstance(given, Mapping):
            return model.model_validate(given)
        name = given.get("name", usual)
        if not isinstance(name, str) or name not in models:
            raise ValueError(f"unknown name '{name}'.{nearest(str(name), models)} Choose one of {', '.join(models)}")
        if foreign := [
            InitErrorDetails(type=PydanticCustomError("key_of_another", "{text}", {"text": text}), loc=(at,), input=given[at])
            for at, text in _keys_of_others(name, models, given)
        ]:
            raise ValidationError.from_exception_data(name, foreign)
        return models[name].model_validate({at: value for at, value in given.items() if at != "name" or name != usual})

    return BeforeValidator(chosen)


def _keys_of_others(name: str, models: Mapping[str, type[BaseModel]], given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The keys that the model of this name does not have and another one has, each with what a user must know."""
    own = models[name].model_fields
    has = f"{name} has {', '.join(key for key in own if key != 'name')}"
    for key in (key for key in given if key not in own and key != "name"):
        if owners := [other for other, model in models.items() if key in model.model_fields]:
            yield key, f"{key} is a key of {' and '.join(owners)}. {has}. Remove {key}, or choose another name"


Optimiser = Annotated[SGD | AdamW, _by_name("optimiser", SGD, adamw=AdamW)]
AnySchedule = Annotated[Schedule | Cosine, _by_name("schedule", Schedule, cosine=Cosine)]
