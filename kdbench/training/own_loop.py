"""Methods in a training loop of one's own: their stages are trained first, by the same steps as in a suite."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from kdbench.data.views import rotations
from kdbench.errors import KdbenchError, UntrainedStages
from kdbench.method.batch import Batch, View
from kdbench.method.composition import Composition
from kdbench.method.interface import Method
from kdbench.method.outputs import Outputs
from kdbench.method.stages import Losses, Survey
from kdbench.models import Network
from kdbench.spec.optimiser import SGD, Optimiser
from kdbench.spec.recipe import Recipe
from kdbench.spec.trial import CrossEntropyWeight
from kdbench.training.device import exact
from kdbench.training.frozen_teacher import FrozenTeacher, ask
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane
from kdbench.training.segments import Segment, student_stages, teacher_stages
from kdbench.training.single import Single
from kdbench.training.surveys import survey_together

Batches = Iterable[Sequence[Tensor]]
"""What a DataLoader gives: images, labels and more."""


class OwnLoop(Composition):
    """What `kdbench.build_method` gives.

    Attributes:
        untrained: the surveys that are still to be done, and the stages that are still to be trained, such as `ft.paraphraser`.
    """

    def __init__(self, parts: Mapping[str, Method], ce: CrossEntropyWeight | None = None) -> None:
        super().__init__(parts, ce)
        self.untrained = [f"{part}.{survey.name}" for part, survey in self.surveys()]
        self.untrained += [f"{part}.{stage.name}" for part, stage in self.stages() if stage.epochs]

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        """The weighted transfer terms of all parts, named `part.term`.

        Raises:
            UntrainedStages: stages were not trained before.
            KdbenchError: a view that the method reads is missing.
        """
        if self.untrained:
            reason = UntrainedStages(
                f"not trained yet: {', '.join(self.untrained)}. The losses would compare with what is random. Call "
                "kdbench.train_stages(method, teacher, loader) first."
            )
            warnings.warn(reason, stacklevel=2)
        for view in self.views:
            read = (batch, student, teacher) if self.reads_teacher else (batch, student)
            if not all(view in given.views for given in read):
                name = "+".join(self.parts)
                raise KdbenchError(
                    f"{name} reads the view '{view}', and it is missing. Give Batch(views={{'{view}': View(...)}}), and take both "
                    "networks' outputs from kdbench.outputs_of(network, batch)."
                )
        return super().losses(student, teacher, batch)

    def train(self, mode: bool = True) -> OwnLoop:
        """As every module's; what stages have trained stays in evaluation mode."""
        super().train(mode)
        if not self.untrained:
            for _, stage in self.stages():
                for module in stage.modules:
                    module.eval()
        return self

    def get_extra_state(self) -> Tensor:
        """Whether the stages are trained: a part of its state, since a loaded method needs no training anew."""
        return torch.tensor(not self.untrained)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over whether the stages are trained."""
        if state:
            self._finish()

    def _finish(self) -> None:
        """What stages have trained is frozen from now on."""
        self.untrained = []
        for _, stage in self.stages():
            for module in stage.modules:
                module.eval().requires_grad_(False)


def train_stages(
    method: Composition,
    teacher: nn.Module,
    loader: Batches,
    *,
    student: nn.Module | None = None,
    optimiser: Optimiser | None = None,
    survey_loader: Batches | None = None,
    precision: str = "default",
    seed: int | str = 0,
) -> None:
    """Train the stages of a method before a training loop of your own, such as FT's paraphraser and the hint of FitNets.

    Surveys of the training set come first, such as the class means of KD++. Then come stages that learn from the teacher alone, and
    then those that train the student, too. Afterwards everything that stages trained is frozen and in evaluation mode, except the
    student, and you may call `method.losses`.

    Args:
        method: what `build_method` gave.
        teacher: a trained `Network`, such as `build_model` gives, on the method's device. It is not changed.
        loader: gives batches, anew in each epoch, as a DataLoader does: normalised images (B, C, H, W), labels (B,) and, for
            methods that ask for them, the positions of the images in the training set (B,), and after these, for stages of methods
            that read the view `strong`, the images augmented strongly (B, C, H, W).
        student: the student, if a stage trains it.
        optimiser: the settings of stages that have none of their own, such as `SGD(lr=0.1)` or `AdamW(lr=0.001)`. They stay the
            same in all epochs.
        survey_loader: gives each training image once, as in a test, not augmented, with its label, if the method has a survey.
        precision: `default`, `fp32`, `tf32` or `bf16`, as in a recipe.
        seed: the seed of the method's own random draws.

    Raises:
        KdbenchError: the method is none of `build_method`'s or has no stages left, a network or the optimiser is missing, the
            loader gives no batches, or a stage diverges.
    """
    if not isinstance(method, OwnLoop):
        raise KdbenchError(f"train_stages: a {type(method).__name__} is no method of build_method's. Give what that returns.")
    if not method.untrained:
        raise KdbenchError("train_stages: the method has no stage that is still to be trained. Call its losses.")
    for name, network in (("teacher", teacher), ("student", student)):
        if network is not None and not isinstance(network, Network):
            raise KdbenchError(
                f"train_stages: the {name} is a {type(network).__name__} and no Network. Give what build_model returns."
            )
    assert isinstance(teacher, Network)
    surveys = {f"{part}.{survey.name}": survey for part, survey in method.surveys()}
    if surveys and survey_loader is None:
        raise KdbenchError(
            f"train_stages: {', '.join(surveys)} sees each training image once, as in a test. Give a DataLoader that does not "
            "augment as survey_loader=..."
        )
    settings = optimiser or SGD(lr=1.0)
    stages = [(f"{part}.{stage.name}", stage) for part, stage in method.stages() if stage.epochs]
    if student is None and (lacking := [name for name, stage in stages if stage.trains_student]):
        raise KdbenchError(f"train_stages: {', '.join(lacking)} trains the student. Give it as student=...")
    if lacking := [name for name, stage in stages if not (stage.optimiser or optimiser)]:
        raise KdbenchError(
            f"train_stages: {', '.join(lacking)} has no settings of its own. Give the learning rate of your training: "
            "optimiser=kdbench.SGD(lr=...)."
        )
    with _left_as_they_are(teacher, method, *([student] if student else [])):
        frozen: FrozenTeacher | None = None
        if surveys:
            assert survey_loader is not None
            frozen = _survey(list(surveys.values()), teacher, survey_loader, precision=precision)
        for segment in teacher_stages(method, settings):
            frozen = _train(method, teacher, frozen, loader, None, [segment], precision=precision, seed=seed)
        if student and (segments := student_stages(method, student, settings)):
            _train(method, teacher, frozen, loader, student, segments, precision=precision, seed=seed)
    method._finish()


def _survey(surveys: Sequence[Survey], teacher: Network, loader: Batches, *, precision: str) -> FrozenTeacher:
    """Show the surveys all batches of a loader; returns the teacher as the engine reads it."""
    device = next(teacher.parameters()).device
    batches = iter(loader)
    first = next(batches, None)
    if first is None:
        raise KdbenchError("train_stages: the survey_loader gave no batches. Give a DataLoader, or a list of batches.")

    def loads() -> Iterator[Callable[[], tuple[Tensor, Tensor]]]:
        for images, labels, *_ in chain([first], batches):
            yield partial(_moved, images, labels, device)

    with exact(device, precision=precision, image_shape=_shape(first[0])):
        frozen = _frozen(teacher, first[0], SGD(lr=1.0), precision=precision)
        for failure in survey_together(surveys, loads(), frozen):
            if failure:
                raise KdbenchError(f"train_stages: a survey failed: {failure}. Correct the method.")
    return frozen


def _train(
    method: OwnLoop,
    teacher: Network,
    frozen: FrozenTeacher | None,
    loader: Batches,
    student: nn.Module | None,
    segments: list[Segment],
    *,
    precision: str,
    seed: int | str,
) -> FrozenTeacher | None:
    """Train some stages one behind the other; returns the teacher as the engine reads it, for the next ones."""
    device = next(teacher.parameters()).device
    lane = Lane(
        ", ".join(segment.name for segment in segments),
        seed=seed,
        student=student,
        method=method,
        segments=segments,
        precision=precision,
        device=device,
    )
    unit = Single(lane)
    while lane.position:
        lane.begin_epoch()
        seen = 0
        for images, labels, *rest in loader:
            indices = rest[0] if rest else torch.arange(seen, seen + len(labels))
            with exact(device, precision=precision, image_shape=_shape(images)):  # the loader draws from the user's streams
                frozen = frozen or _frozen(teacher, images, segments[0].optimiser, precision=precision)
                shown, truth = _moved(images, labels, device)
                views = _views(method.views, shown, truth, strong=rest[1] if rest[1:] else None)
                inputs = StepInputs(shown, truth, indices.to(device), views=views)
                unit.train_step(inputs.taught(ask([frozen], inputs, method.views)))
            seen += len(labels)
        if not seen:
            raise KdbenchError(
                "train_stages: the loader gave no batches. Give a DataLoader, or a list of batches, and no iterator."
            )
        lane.sum_up(data_s=0.0, teacher_s=0.0, startup_s=0.0)
        if lane.failure:
            raise KdbenchError(f"train_stages: {lane.failure_with_advice}.")
        lane.end_epoch()
    return frozen


def _views(names: Sequence[str], images: Tensor, labels: Tensor, *, strong: Tensor | None) -> dict[str, View]:
    """The views of a batch in a loop of one's own: the loader gives the strong one."""
    made: dict[str, View] = {}
    for name in names:
        if name == "rotations":
            made[name] = rotations(images, labels)
        elif name == "strong" and strong is not None:
            made[name] = View(strong.to(images.device), labels)
        else:
            how = "Let the loader give the images augmented strongly as a fourth tensor" if name == "strong" else "Use a suite"
            raise KdbenchError(f"train_stages: the method reads the view '{name}', which the loader does not give. {how}.")
    return made


def _frozen(teacher: Network, images: Tensor, optimiser: Optimiser, *, precision: str) -> FrozenTeacher:
    """The teacher as the engine reads it, for images (B, C, H, W) like these."""
    recipe = Recipe(epochs=1, batch_size=len(images), optimiser=optimiser, precision=precision)
    device = next(teacher.parameters()).device
    return FrozenTeacher(teacher, image_shape=_shape(images), recipe=recipe, device=device)


def _moved(images: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    return images.to(device), labels.to(device)


def _shape(images: Tensor) -> tuple[int, int, int]:
    return (images.shape[1], images.shape[2], images.shape[3])


@contextmanager
def _left_as_they_are(*networks: nn.Module) -> Iterator[None]:
    """Modes and what asks for a gradient are after the block as before it."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    asking = [(parameter, parameter.requires_grad) for network in networks for parameter in network.parameters()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, asks in asking:
            parameter.requires_grad_(asks)
            parameter.grad = None
