"""Where a method can be tried in milliseconds: two small networks, synthetic images, and lanes between them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor

from kdbench.conformance.hook_points import Classifier, map_tensors
from kdbench.data import Dataset, SourceParams, Split
from kdbench.method.batch import Batch, View
from kdbench.method.composition import Composition
from kdbench.method.interface import METHODS
from kdbench.method.outputs import Outputs
from kdbench.method.pair import Pair
from kdbench.method.specs import build_part, resolve_methods
from kdbench.models import Network
from kdbench.models.weights import state_hash
from kdbench.spec.recipe import SGD, Augmentation, Recipe
from kdbench.streams import generator, seeded
from kdbench.training.builder import Builder
from kdbench.training.cohort import train_in_lockstep
from kdbench.training.frozen_teacher import FrozenTeacher, ask
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane
from kdbench.training.segments import MAIN, STAGES, Position, Segment, segments, teacher_stages
from kdbench.training.single import Single
from kdbench.training.stream import Stream
from kdbench.training.surveys import survey_together

IMAGES, CLASSES = 24, 5
EPOCHS = 2
"""Of every stage and of the main training: a check looks at what is computed, never at what comes of it."""
RECIPE = Recipe(epochs=EPOCHS, batch_size=12, optimiser=SGD(lr=1e-3), augmentation=Augmentation(pad=1))
CPU = torch.device("cpu")


Example = tuple[Outputs, Outputs, Batch]
"""What losses get: the student's outputs, the teacher's, and the batch."""


class BrokenPromise(Exception):
    """A method breaks a promise; the message says how, and what to do."""


def expect(holds: bool, otherwise: str) -> None:
    """Raise `BrokenPromise` with the sentence `otherwise` unless something holds."""
    if not holds:
        raise BrokenPromise(otherwise)


@dataclass(frozen=True, eq=False)
class Setting:
    """The method `name` between two registered networks on images (C, H, W).

    Its methods and lanes are freshly built at each call, always from the same seed, unless another is given.
    """

    name: str
    student: str
    teacher: str
    image_shape: tuple[int, int, int] = (3, 8, 8)
    precision: str = "fp32"

    @cached_property
    def builder(self) -> Builder:
        """Random images of `CLASSES` classes."""
        return _builder(self.image_shape)

    @property
    def _recipe(self) -> Recipe:
        return RECIPE.model_copy(update={"precision": self.precision})

    @property
    def frozen_teacher(self) -> FrozenTeacher:
        """The teacher; the first of several."""
        return self.frozen_teachers[0]

    @cached_property
    def frozen_teachers(self) -> tuple[FrozenTeacher, ...]:
        """Two where the method learns from several, and one otherwise.

        None was ever trained, but each has seen the images, so that its batch norms have statistics of them. All settings share
        them, as all lanes of a run do.
        """
        number = 1 + METHODS.get(self.name).several_teachers
        return tuple(_frozen_teacher(self.teacher, i, self.image_shape).under(self._recipe) for i in range(number))

    @cached_property
    def pair(self) -> Pair:
        """What the method may know of the two networks."""
        student, teacher = (self.builder.shapes(name) for name in (self.student, self.teacher))
        teachers = [teacher] * len(self.frozen_teachers)
        return self.builder.pair(student, teachers, self.frozen_teacher.network.teacher_parts(), RECIPE)

    def method(self, params: Mapping[str, Any] | None = None, *, seed: int = 0) -> Composition:
        """The method, built for the pair, its surveys done.

        Raises:
            PairError: it cannot do this pair.
            BrokenPromise: a survey fails.
        """
        method = build_for(self.name, self.pair, params, seed=seed)
        if surveys := [survey for _, survey in method.surveys()]:
            for failure in survey_together(surveys, self.builder.surveyed_data.plain_batches(), self.frozen_teacher):
                expect(failure is None, f"a survey fails: {failure}")
        return method

    def lane(
        self, *, seed: int = 0, epochs: int = EPOCHS, checkpoint: Callable[[Mapping[str, Any]], None] = lambda state: None
    ) -> Lane:
        """A lane at its start, with `epochs` in each segment, in which the stages of the teacher alone are done.

        Raises:
            PairError: the method cannot do this pair.
            BrokenPromise: a stage of the teacher alone fails.
        """
        method = self.method(seed=seed)
        lane = partial(Lane, seed=seed, precision=self.precision, device=CPU)
        for i, stage in enumerate(teacher_stages(method, RECIPE.optimiser)):
            other = self.method(seed=seed)  # as in a run: a lane freezes what it does not train, and the modules alone are kept
            learnt = teacher_stages(other, RECIPE.optimiser)[i]
            self.train(lane(stage.name, student=None, method=other, segments=shortened([learnt], EPOCHS)))
            for module, trained in zip(stage.modules, learnt.modules, strict=True):
                module.load_state_dict(trained.state_dict())
        student = self._student(seed)
        return lane(
            self.name,
            student=student,
            method=method,
            segments=shortened(segments(method, student, RECIPE), epochs),
            checkpoint=checkpoint,
        )

    def train(self, *lanes: Lane) -> None:
        """Train lanes side by side to their end.

        Raises:
            BrokenPromise: one of them fails.
        """
        train_in_lockstep(
            lanes,
            _stream(self.builder, RECIPE.batch_size),
            teachers=self.frozen_teachers,
            evaluation={"test_error_pct": self.builder.test_data},
            stop=lambda: False,
            epoch_done=lambda now, active: None,
        )
        for lane in lanes:
            expect(lane.failure is None, f"{lane.failure}.")

    def step(self, size: int, *, mixup: float = 0) -> None:
        """One step of the main training and of each stage before it, on `size` images; raises what the method raises.

        With `mixup` the images are mixed.

        Raises:
            PairError: the method cannot do this pair.
            BrokenPromise: a loss or a gradient is not finite.
        """
        lane = self.lane(epochs=1)
        inputs = self.inputs(size, lane.method.views, mixup=mixup)
        unit = Single(lane)
        while lane.position:
            lane.begin_epoch()
            unit.train_step(inputs if lane.method.reads_teacher else inputs.taught(None))
            lane.sum_up(data_s=0.0, teacher_s=0.0, startup_s=0.0)
            lane.end_epoch()
        expect(lane.failure is None, f"on {size} images {lane.failure}")
        for key, value in weights(lane).items():
            expect(bool(value.isfinite().all()), f"on {size} images {key} is not finite after a step: its gradient was not finite.")

    def _student(self, seed: int) -> Network:
        with seeded(seed, "student"):
            return self.builder.network(self.student)

    def inputs(self, size: int, views: Sequence[str], *, mixup: float = 0) -> StepInputs:
        """Augmented images with these views, and the teachers' outputs for all of them."""
        batch = _loaded(self.builder, size, views, mixup)
        return batch.taught(ask(self.frozen_teachers, batch, views))

    @cached_property
    def _example(self) -> Example:
        inputs = self.inputs(8, METHODS.get(self.name).views)
        with torch.no_grad():
            network = self._student(0)
            student = network(inputs.images)
            student = replace(student, views={name: network(view.images) for name, view in inputs.views.items()})
        assert inputs.teacher
        batch = Batch(
            inputs.images, inputs.labels, inputs.indices, epoch=60, epochs=120, generator=generator(0), views=inputs.views
        )
        teachers = [teacher.network for teacher in self.frozen_teachers]
        return _with_weights(student, network), _with_weights(inputs.teacher, *teachers), batch

    def example_inputs(self) -> Example:
        """What the losses get for 8 images, halfway through the training; the student's tensors are leaves with gradients."""
        student, teacher, batch = self._example
        images, labels, indices = batch.images.clone(), batch.labels.clone(), batch.indices.clone()
        views = {name: View(view.images.clone(), view.labels.clone()) for name, view in batch.views.items()}
        return (
            map_tensors(student, lambda value: value.clone().requires_grad_()),
            map_tensors(teacher, Tensor.clone),
            replace(batch, images=images, labels=labels, indices=indices, views=views),
        )


def _builder(image_shape: tuple[int, int, int]) -> Builder:
    channels, *size = image_shape
    images = torch.randint(256, (IMAGES, *size, channels), dtype=torch.uint8, generator=generator(0, "images"))
    split = Split(images, torch.arange(IMAGES) % CLASSES)
    classes = tuple(str(label) for label in range(CLASSES))
    return Builder(Dataset(split, split, classes, mean=(0.5,) * channels, std=(0.25,) * channels), SourceParams(), CPU)


@cache
def _frozen_teacher(name: str, number: int, image_shape: tuple[int, int, int]) -> FrozenTeacher:
    builder = _builder(image_shape)
    with seeded(number, "teacher", name), torch.no_grad():
        network = builder.network(name)
        network(_loaded(builder, IMAGES).images)
    return FrozenTeacher(network, image_shape=image_shape, recipe=RECIPE, device=CPU)


def _stream(builder: Builder, size: int, mixup: float = 0) -> Stream:
    recipe = RECIPE.model_copy(update={"batch_size": size, "mixup": mixup})
    return Stream(builder.training_data(RECIPE.augmentation), recipe, 0, builder.dataset.num_classes)


def _loaded(builder: Builder, size: int, views: Sequence[str] = (), mixup: float = 0) -> StepInputs:
    return next(_stream(builder, size, mixup).batches(Position(MAIN, 0), views))()


def _with_weights(outputs: Outputs, network: Network, *others: Network) -> Outputs:
    """Outputs whose classifiers, those of views and of further teachers, too, have weights of their own."""
    parts = network.teacher_parts()
    classifier = Classifier(parts.classifier_weight, parts.classifier_bias) if len(parts.classifier_weight) else None
    return replace(
        outputs,
        classifier=classifier,
        views={name: replace(view, classifier=classifier) for name, view in outputs.views.items()},
        others=tuple(map(_with_weights, outputs.others, others)),
    )


def build_for(name: str, pair: Pair, params: Mapping[str, Any] | None = None, *, seed: int = 0) -> Composition:
    """The method `name` for a pair; `params` holds those that differ from the defaults.

    Raises:
        PairError: it cannot do this pair.
    """
    (spec,) = resolve_methods(name, {name: params or {}})
    with seeded(seed, "adapters"):
        return Composition({name: build_part(spec, pair)})


def shortened(found: list[Segment], epochs: int) -> list[Segment]:
    """Segments of `epochs` each, one behind the other."""
    return [replace(s, first=epochs * i if s.phase == STAGES else 0, epochs=epochs) for i, s in enumerate(found)]


def weights(lane: Lane) -> dict[str, Tensor]:
    """The student's and the method's parameters and buffers."""
    assert lane.student is not None
    return {**lane.student.state_dict(), **lane.method.state_dict()}


def fingerprint(lane: Lane) -> str:
    """Of a lane's weights."""
    return state_hash(weights(lane))


def reloaded(state: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint as it comes back from the disk."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(0)
    read: dict[str, Any] = torch.load(buffer, weights_only=True)
    return read
