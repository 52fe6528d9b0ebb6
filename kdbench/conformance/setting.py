"""Where a method can be tried in milliseconds: two small networks, synthetic images, and lanes between them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.data import Dataset, EpochPlan, Split, epoch_plan
from kdbench.method import Batch, Composition, Pair
from kdbench.outputs import Outputs
from kdbench.recipe import SGD, Augmentation, Recipe, Schedule
from kdbench.streams import generator, seeded
from kdbench.training.bench import Bench
from kdbench.training.cohort import FrozenTeacher, Stream, error_pct, train_in_lockstep
from kdbench.training.lane import STAGES, Lane, Row, Segment, segments
from kdbench.trial import DatasetSpec, TrialSpec, build_part, resolve_methods
from kdbench.weights import state_hash

IMAGES, CLASSES = 24, 5
EPOCHS = 2
"""Of every stage and of the main training: a check looks at what is computed, never at what comes of it."""
RECIPE = Recipe(epochs=EPOCHS, batch_size=8, optimiser=SGD(lr=1e-3), augmentation=Augmentation(pad=1))
CPU = torch.device("cpu")


class Broken(Exception):
    """A method breaks a promise; the message says which and what to do."""


def expect(holds: bool, otherwise: str) -> None:
    """Raise `Broken` with the sentence `otherwise` unless something holds."""
    if not holds:
        raise Broken(otherwise)


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
    def bench(self) -> Bench:
        """Random images of `CLASSES` classes."""
        channels, *size = self.image_shape
        images = torch.randint(256, (IMAGES, *size, channels), dtype=torch.uint8, generator=generator(0, "images"))
        split = Split(images, torch.arange(IMAGES) % CLASSES)
        classes = tuple(str(label) for label in range(CLASSES))
        return Bench(Dataset(split, split, classes, mean=(0.5,) * channels, std=(0.25,) * channels), 0.0, CPU)

    @cached_property
    def frozen(self) -> FrozenTeacher:
        """A teacher that was never trained, but has seen the images, so that its batch norms have statistics of them."""
        with seeded(0, "teacher", self.teacher), torch.no_grad():
            network = self.bench.network(self.teacher)
            network(self._images(IMAGES)[0])
        return FrozenTeacher(network, precision=self.precision, device=CPU)

    @cached_property
    def pair(self) -> Pair:
        """What the method may know of the two networks."""
        return self.bench.pair(self.student, self.teacher, self.frozen.network.teacher_parts())  # type: ignore[operator]

    def trial(self, params: Mapping[str, Any] | None = None, *, seed: int = 0) -> TrialSpec:
        """One training of the method; `params` holds those that differ from the defaults."""
        methods = resolve_methods(self.name, {self.name: params or {}})
        dataset = DatasetSpec(name="synthetic", params={"label": "synthetic"})
        return TrialSpec(dataset=dataset, recipe=RECIPE, student=self.student, methods=methods, seed=seed)

    def method(self, params: Mapping[str, Any] | None = None, *, seed: int = 0) -> Composition:
        """The method, built for the pair.

        Raises:
            PairError: it cannot do this pair.
        """
        (spec,) = self.trial(params, seed=seed).methods
        with seeded(seed, "adapters", self.name):
            return Composition({self.name: build_part(spec, self.pair)})

    def lane(
        self, *, seed: int = 0, epochs: int = EPOCHS, checkpoint: Callable[[Mapping[str, Any]], None] = lambda state: None
    ) -> Lane:
        """A lane at its start, with `epochs` in each segment, in which the stages of the teacher alone are done.

        Raises:
            PairError: the method cannot do this pair.
            Broken: a stage of the teacher alone fails.
        """
        method = self.method(seed=seed)
        lane = partial(Lane, seed=seed, method=method, precision=self.precision, device=CPU, checkpoint=checkpoint)
        for lesson in lessons(method):
            self.train(lane(lesson.name, student=None, segments=[lesson]))
        student = self.bench.student(self.trial(seed=seed))
        return lane(self.name, student=student, segments=shortened(segments(method, student, RECIPE), epochs))

    def train(self, *lanes: Lane) -> None:
        """Train lanes side by side to their end.

        Raises:
            Broken: one of them fails.
        """
        stream = Stream(self.bench.training_data(RECIPE.augmentation), RECIPE, 0)
        train_in_lockstep(
            lanes,
            stream,
            teacher=self.frozen,
            evaluate=self._evaluate,
            stop=lambda: False,
            epoch_done=lambda now, active: None,
        )
        for lane in lanes:
            expect(lane.failure is None, f"training {lane.name} fails: {lane.failure}")

    def step(self, size: int) -> None:
        """One step of the main training and of each stage before it, on `size` images; raises what the method raises.

        Raises:
            PairError: the method cannot do this pair.
            Broken: a loss or a gradient is not finite.
        """
        lane = self.lane(epochs=1)
        images, labels, indices = self._images(size)
        while lane.position:
            lane.begin_epoch()
            lane.step(images, labels, indices, self.frozen(images) if lane.reads_teacher else None)
            lane.end_epoch(data_s=0.0, teacher_s=0.0, evaluate=self._evaluate)
        expect(lane.failure is None, f"on {size} images {lane.failure}")
        for key, value in weights(lane).items():
            expect(bool(value.isfinite().all()), f"on {size} images {key} is not finite after a step: its gradient was not.")

    def _evaluate(self, lane: Lane) -> Row:
        """As a run does it, because prediction must not disturb the training that goes on."""
        assert lane.student is not None
        student, method = lane.student.eval(), lane.method.eval()
        data = self.bench.test_data
        return {"test_error_pct": error_pct(lambda images: method.predict(student(images)), data, precision=self.precision)}

    def _images(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Augmented images (B, C, H, W), labels (B,) and indices (B,)."""
        plan: EpochPlan = epoch_plan(IMAGES, RECIPE.augmentation, generator(0, "plan"))
        return self.bench.training_data(RECIPE.augmentation).batch(plan, 0, size)

    def example(self, size: int = 8) -> tuple[Outputs, Outputs, Batch]:
        """What the losses get for `size` images: the student's outputs, as leaves that require gradients, the teacher's, and the
        batch, halfway through the training."""
        images, labels, indices = self._images(size)
        with torch.no_grad():
            student = self.bench.student(self.trial()).train()(images)
        batch = Batch(images, labels, indices, epoch=60, epochs=120, generator=generator(0, "draws"))
        return mapped(student, lambda value: value.requires_grad_()), self.frozen(images), batch


def lessons(method: Composition) -> list[Segment]:
    """The stages that read the teacher alone, shortened."""
    return [
        Segment(
            f"{part}.{stage.name}",
            STAGES,
            0,
            EPOCHS,
            stage.losses,
            0.0,
            stage.modules,
            stage.optimiser or RECIPE.optimiser,
            Schedule(),
        )
        for part, stage in method.stages()
        if not stage.trains_student
    ]


def shortened(found: list[Segment], epochs: int) -> list[Segment]:
    """Segments of `epochs` each, one behind the other."""
    return [replace(s, first=epochs * i if s.phase == STAGES else 0, epochs=epochs) for i, s in enumerate(found)]


Term = tuple[Segment, dict[str, Tensor]]


def evaluated(method: Composition, student: Outputs, teacher: Outputs, batch: Batch) -> Iterator[Term]:
    """Every segment of a training with its terms: stages of the teacher alone, of the student too, then the main one."""
    for lesson in lessons(method):
        yield lesson, dict(lesson.losses(teacher, teacher, batch))
    for segment in segments(method, nn.Module(), RECIPE):
        yield segment, dict(segment.losses(student, teacher, batch))


def weights(lane: Lane) -> dict[str, Tensor]:
    """The student's and the method's parameters and buffers."""
    assert lane.student is not None
    return {**lane.student.state_dict(), **lane.method.state_dict()}


def fingerprint(lane: Lane) -> str:
    """Of a lane's weights."""
    return state_hash(weights(lane))


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint as it comes back from the disk."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(0)
    read: dict[str, Any] = torch.load(buffer, weights_only=True)
    return read


def mapped(point: Outputs, function: Callable[[Tensor], Tensor]) -> Outputs:
    """Outputs with each tensor replaced by its image under `function`."""

    def image(value: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        return function(value) if isinstance(value, Tensor) else tuple(map(function, value))

    return Outputs(*(image(getattr(point, field.name)) for field in fields(point)))  # type: ignore[arg-type]


def leaves(point: Outputs) -> list[Tensor]:
    """All tensors of some outputs."""
    return [point.logits, point.stem, *point.features, *point.preactivations, point.pooled]
