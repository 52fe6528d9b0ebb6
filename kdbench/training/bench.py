"""From specs to networks: one data set on one device, and what can be built on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from kdbench.data import Dataset, Resident, SourceParams, Split, hold_out, use_some
from kdbench.method import Composition, Pair, PairError, TeacherParts
from kdbench.models import Network, build_model
from kdbench.models.measure import shapes
from kdbench.outputs import Shapes
from kdbench.recipe import Augmentation
from kdbench.streams import seeded
from kdbench.trial import TrialSpec, build_part

_shapes = cache(shapes)  # a tenth of a second and more, and every trial of a suite asks for the same ones


@dataclass(frozen=True, eq=False)
class Bench:
    """A data set on a device: every trial of a suite is built on the same one.

    Attributes:
        dataset: as its source loaded it.
        params: of its source; which training images are used, and which of them held out.
        device: where networks and images live.
    """

    dataset: Dataset
    params: SourceParams
    device: torch.device

    @cached_property
    def splits(self) -> tuple[Split, Split | None]:
        """Images to train on and, where the suite declares them, images to select on."""
        used = use_some(self.dataset.train, count=self.params.train_images)
        return hold_out(used, fraction=self.params.validation)

    def training_data(self, augmentation: Augmentation) -> Resident:
        """The training images, ready to be augmented."""
        return self._resident(self.splits[0], augmentation=augmentation)

    @cached_property
    def test_data(self) -> Resident:
        """The test images."""
        return self._resident(self.dataset.test)

    @cached_property
    def validation_data(self) -> Resident | None:
        """The held-out images, if any."""
        return self._resident(self.splits[1]) if self.splits[1] else None

    def _resident(self, split: Split, **options: Augmentation) -> Resident:
        return Resident(split, mean=self.dataset.mean, std=self.dataset.std, device=self.device, **options)

    def network(self, name: str) -> Network:
        """A network of the registry for this data set, on the device, in channels-last layout."""
        network = build_model(name, num_classes=self.dataset.num_classes, in_channels=self.dataset.image_shape[0])
        return network.to(self.device).to(memory_format=torch.channels_last)

    def student(self, trial: TrialSpec) -> Network:
        """The trial's student before training: a function of its name and the seed, the same for every method."""
        with seeded(trial.seed, "student", trial.student):
            return self.network(trial.student)

    def restored(self, trial: TrialSpec, weights: dict[str, Tensor]) -> Network:
        """The trial's student with the given weights."""
        with torch.device("meta"):
            network = build_model(trial.student, num_classes=self.dataset.num_classes, in_channels=self.dataset.image_shape[0])
        network.load_state_dict(weights, assign=True)
        return network.to(self.device).to(memory_format=torch.channels_last)

    def shapes(self, name: str) -> Shapes:
        """Shapes of a network's hook points on this data set."""
        return _shapes(name, image_shape=self.dataset.image_shape, num_classes=self.dataset.num_classes)

    def blank_parts(self, name: str) -> TeacherParts:
        """Parts of a network that was never filled with numbers: ones of the right shapes."""
        with torch.device("meta"):
            network = build_model(name, num_classes=self.dataset.num_classes, in_channels=self.dataset.image_shape[0])
        return _map(network.teacher_parts(), lambda tensor: torch.ones(tensor.shape))

    def pair(self, student: str, teacher: str, parts: TeacherParts) -> Pair:
        """What methods may know of a pair of networks; all of it on the CPU."""
        return Pair(self.shapes(student), self.shapes(teacher), self.splits[0].labels, _map(parts, Tensor.cpu))

    def composition(self, trial: TrialSpec, parts: TeacherParts | None) -> Composition:
        """The trial's methods, on the device; each part's adapters have a stream of their own.

        Args:
            trial: names the methods, the networks and the seed.
            parts: of the teacher; None where the methods read none.

        Raises:
            PairError: a method cannot do this pair.
        """
        teacher = trial.teacher.student if trial.teacher else trial.student
        pair = self.pair(trial.student, teacher, parts or self.blank_parts(teacher))
        methods = {}
        for spec in trial.methods:
            with seeded(trial.seed, "adapters", spec.name):
                methods[spec.name] = build_part(spec, pair)
        return Composition(methods).to(self.device)

    def refuse_impossible(self, trials: Iterable[TrialSpec]) -> None:
        """Build every method for every pair once, with blank teachers.

        Raises:
            PairError: the message names the pair, the method and the reason.
        """
        for trial in {(t.teacher.student if t.teacher else "", t.student, str(t.methods)): t for t in trials}.values():
            try:
                self.composition(trial, None)
            except PairError as reason:
                teacher = trial.teacher.student if trial.teacher else "no teacher"
                raise PairError(
                    f"{teacher} -> {trial.student}: {reason} Leave the method out with `without: [{trial.method}]`."
                ) from None
            except Exception:  # a mistake in a method fails its trial, and no other, when it is built to train
                continue


def _map(parts: TeacherParts, function: Callable[[Tensor], Tensor]) -> TeacherParts:
    norms = tuple((function(weight), function(bias)) for weight, bias in parts.norms)
    return TeacherParts(function(parts.classifier_weight), function(parts.classifier_bias), norms)
