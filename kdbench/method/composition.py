"""One method or several as a student trains with them, held to what their classes declare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method.batch import VIEWS, Batch, DeclaredViews
from kdbench.method.interface import Method
from kdbench.method.outputs import Outputs
from kdbench.method.pair import PairError
from kdbench.method.stages import Losses, ParameterGroup, Stage, Survey
from kdbench.spec.trial import CrossEntropyWeight

T = TypeVar("T", Stage, Survey, ParameterGroup)


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


def _seen(part: Method, student: Outputs, teacher: Outputs, batch: Batch) -> tuple[Outputs, Outputs, Batch]:
    """What a method is given: the views that it asks for alone, and no teacher where it declares that it reads none."""
    student = replace(student, views=DeclaredViews(student.views, part.views))
    teacher = replace(teacher, views=DeclaredViews(teacher.views, part.views)) if part.reads else _UNREAD
    return student, teacher, batch.seen_with(part.views)


class _Unread:
    """Stands for the teacher's outputs where a method declares that it reads none."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"it uses the teacher's {name}, and its `reads` names nothing. Write reads = ('{name}',).")


_UNREAD = cast(Outputs, _Unread())


def _several(found: Sequence[T], kind: type[T]) -> Sequence[T]:
    """What a method returns as a tuple of stages, surveys or parameter groups; without its comma `(one)` is no tuple."""
    if isinstance(found, kind):
        name = kind.__name__
        raise TypeError(f"it returned a {name} where a tuple of them belongs. Write a comma behind it: return ({name}(...),).")
    return found


def _declared(part: Method, stage: Stage) -> Stage:
    """The stage, if its method's class says of whom it learns; its losses are given what the method declares."""
    if stage.trains_student and stage.name in part.teacher_stages:
        raise RuntimeError(f"`teacher_stages` names {stage.name}, which trains the student. Take it out there.")
    if not stage.trains_student and stage.name not in part.teacher_stages:
        raise RuntimeError(
            f"stage {stage.name} learns from the teacher alone, and its class does not say so. Write teacher_stages = "
            f"{{'{stage.name}': (...)}} with the names of the parameters that determine what it learns."
        )
    return replace(stage, losses=lambda student, teacher, batch: stage.losses(*_seen(part, student, teacher, batch)))


def refuse_contradictions(parts: Mapping[str, Method], ce: CrossEntropyWeight | None) -> None:
    """Refuse methods that cannot train one student together; `ce` is what a suite says of the cross-entropy's weight.

    Raises:
        PairError: two parts predict, or one sets the cross-entropy's weight to 0, another does not, and `ce` is None.
    """
    predicting = [name for name, part in parts.items() if type(part).predict is not Method.predict]
    if len(predicting) > 1:
        raise PairError(f"{' and '.join(predicting)} each predict in their own way, where a student has one; keep one of them")
    without = [name for name, part in parts.items() if part.ce_weight == 0]
    if ce is None and 0 < len(without) < len(parts):
        name, others = without[0], " and ".join(name for name in parts if name not in without)
        raise PairError(
            f"{name} trains without the cross-entropy, and {others} with it. Say which weight it has beside the parts' "
            f"parameters: `{'+'.join(parts)}: {{ce: 1}}`, or 0 for none"
        )


def _lowered(parts: Mapping[str, Method]) -> list[str]:
    """A note where several parts lower the cross-entropy's weight, which is the product of theirs."""
    low = {name: part.ce_weight for name, part in parts.items() if isinstance(part.ce_weight, Real) and 0 < part.ce_weight < 1}
    if len(low) < 2:
        return []
    factors = " and ".join(f"{weight:.3g} ({name})" for name, weight in low.items())
    name, product = "+".join(parts), math.prod(low.values())
    return [f"{name}: the cross-entropy weighs {product:.3g}, {factors} multiplied; `{name}: {{ce: 1}}` sets another"]


class Composition(nn.Module):
    """One method or several (`at+kd`) as a student trains with them: the sum of their terms, with one cross-entropy.

    Args:
        parts: the methods, by name.
        ce: the weight of the cross-entropy, in place of what the parts say: a number, or numbers by the epoch from which on they
            hold, such as `{0: 1, 30: 0.5}`. None leaves it to the parts.
        notes: sentences on how they are trained, which `notes` gives beside those of the parts.

    Attributes:
        parts: the methods, by name.
    """

    def __init__(self, parts: Mapping[str, Method], ce: CrossEntropyWeight | None = None, *, notes: Sequence[str] = ()) -> None:
        super().__init__()
        self.parts: Mapping[str, Method] = nn.ModuleDict(parts)  # type: ignore[assignment]  # a mapping at run time
        self.ce = ce
        self._ce_now = ce[0] if isinstance(ce, Mapping) else ce
        self._notes = [*([] if ce is not None else _lowered(parts)), *notes]

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
        """What the parts say about how they handle this pair, what they make of the cross-entropy together, and what was given."""
        return [*(f"{name}: {note}" for name, part in self.parts.items() for note in part.notes), *self._notes]

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
        return [(name, _declared(part, stage)) for name, part in self.parts.items() for stage in _several(part.stages(), Stage)]

    def surveys(self) -> list[tuple[str, Survey]]:
        """The surveys of the parts, each with the name of its part.

        Raises:
            RuntimeError: the class of a part does not declare one.
        """
        found = [(name, part, survey) for name, part in self.parts.items() for survey in _several(part.surveys(), Survey)]
        for _, part, survey in found:
            if survey.name not in part.teacher_surveys:
                raise RuntimeError(
                    f"its class does not declare the survey {survey.name}. Write teacher_surveys = {{'{survey.name}': (...)}} with "
                    "the names of the parameters that determine what it finds."
                )
        return [(name, survey) for name, _, survey in found]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the parts."""
        return [group for part in self.parts.values() for group in _several(part.parameter_groups(), ParameterGroup)]

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
        """Logits (B, K) of the network that would be deployed.

        Raises:
            ValueError: a part predicts in another shape.
        """
        for part in self.parts.values():
            logits = part.predict(student)
            if logits is not student.logits:
                if logits.shape != student.logits.shape:
                    raise ValueError(
                        f"`predict` gives logits of shape {tuple(logits.shape)}, and the student's are of shape "
                        f"{tuple(student.logits.shape)}. Give one of each class for each image."
                    )
                return logits
        return student.logits
