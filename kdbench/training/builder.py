"""From specs to networks: one data set on one device, and what can be built on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain

import torch
from torch import Tensor

from kdbench.data import (
    UNAUGMENTED,
    Dataset,
    FileSplit,
    Loader,
    ResidentLoader,
    Samples,
    SourceParams,
    Split,
    StreamedLoader,
    batch_bounds,
    hold_out,
    use_some,
)
from kdbench.errors import KdbenchError
from kdbench.method.composition import Composition, refuse_contradictions
from kdbench.method.interface import METHODS, Method
from kdbench.method.outputs import Shapes
from kdbench.method.pair import Pair, TeacherParts
from kdbench.method.specs import build_part, never_reached
from kdbench.models import Network, blank_model, build_model
from kdbench.models.measure import followed_by_of, macs_of, parts_of, shapes
from kdbench.models.own_input import OwnInput
from kdbench.models.pretrained import fetch, normalisation
from kdbench.models.start_weights import Fit, fit
from kdbench.spec.recipe import Augmentation, Recipe
from kdbench.spec.trial import NetworkInput, TrialSpec
from kdbench.streams import seeded
from kdbench.training.arithmetic import memory_format
from kdbench.training.finite import Finite, NotFinite

SAME_NORMALISATION = 0.01
"""Means and standard deviations on the scale 0..1 that differ by no more are taken for the same."""

# Each takes a tenth of a second and more, and every trial of a suite asks for the same ones.
_shapes, _macs, _parts, _followed_by = cache(shapes), cache(macs_of), cache(parts_of), cache(followed_by_of)


@dataclass(frozen=True, eq=False)
class Builder:
    """A data set on a device: every trial of a suite is built on the same one.

    Attributes:
        dataset: as its source loaded it.
        params: of its source; which training images are used, and which of them held out.
        device: where networks and images live.
        fits: the weights that were looked at, by network; seeds and methods share them.
    """

    dataset: Dataset
    params: SourceParams
    device: torch.device
    fits: dict[str, Fit] = field(default_factory=dict)

    @cached_property
    def splits(self) -> tuple[Samples, Samples | None]:
        """Images to train on and, where the suite declares them, images to select on."""
        used = use_some(self.dataset.train, count=self.params.train_images)
        return hold_out(used, fraction=self.params.validation)

    def training_data(self, augmentation: Augmentation) -> Loader:
        """The training images, ready to be augmented."""
        return self._loader(self.splits[0], augmentation)

    @cached_property
    def surveyed_data(self) -> Loader:
        """The training images, as they are, for surveys."""
        return self._loader(self.splits[0])

    @cached_property
    def test_data(self) -> Loader:
        """The test images."""
        return self._loader(self.dataset.test)

    @cached_property
    def validation_data(self) -> Loader | None:
        """The held-out images, if any."""
        return self._loader(self.splits[1]) if self.splits[1] else None

    def _loader(self, split: Samples, augmentation: Augmentation = UNAUGMENTED) -> Loader:
        mean, std = self.dataset.mean, self.dataset.std
        if isinstance(split, Split):
            return ResidentLoader(split, mean=mean, std=std, device=self.device, augmentation=augmentation)
        others = [other for other in (*self.splits, self.dataset.test) if isinstance(other, FileSplit) and other is not split]
        return StreamedLoader(split, mean=mean, std=std, device=self.device, augmentation=augmentation, others=others)

    def network(
        self, name: str, hooks: tuple[str, ...] = (), input: NetworkInput | None = None, *, precision: str = "default"
    ) -> Network:
        """A network of the registry for this data set, on the device, in the layout for a recipe's `precision`."""
        network = self._built(build_model, name, hooks, input).to(self.device)
        return network.to(memory_format=memory_format(self.device, precision=precision))

    def student(self, trial: TrialSpec) -> Network:
        """The trial's student before training: a function of its name, its weights and the seed, the same for every method."""
        start = self.start(trial)
        return self._loaded(trial, start.state, strict=False) if start else self._initial(trial)  # `fit` saw that they fit

    def restored(self, trial: TrialSpec, weights: dict[str, Tensor]) -> Network:
        """The trial's student with the given weights.

        Raises:
            NotFinite: they hold NaN or infinity.
        """
        return self._loaded(trial, weights, strict=True)

    def _loaded(self, trial: TrialSpec, weights: Mapping[str, Tensor], *, strict: bool) -> Network:
        network = self._initial(trial)  # buffers that no state holds are as they were in its training
        finite = Finite({"the network": network})
        network.load_state_dict(weights, strict=strict)
        if broken := finite.broken([network]):
            raise NotFinite(f"the weights hold NaN or infinity: {broken}. Give those of a training that did not diverge.")
        return network

    def _initial(self, trial: TrialSpec) -> Network:
        with seeded(trial.seed, "student", trial.student):
            return self.network(*trial.network, precision=trial.recipe.precision)

    def start(self, trial: TrialSpec) -> Fit | None:
        """What the trial's student takes over from its weights; None where it starts from its own initialisation.

        Raises:
            KdbenchError: the weights cannot be had or do not fit; those of a trial that trains nothing must fit to the last tensor.
        """
        if not trial.weights:
            return None
        key = str((trial.network, trial.weights, trial.methods == ()))
        if key not in self.fits:
            state = fetch(trial.weights, model=trial.student, in_channels=self.dataset.image_shape[0])
            try:
                network = self.blank(*trial.network)
                _, height, _ = self._seen(trial.input)
                found = fit(state, network, whole=not trial.methods, model=trial.student, image_size=height)
                self._loaded(trial, found.state, strict=False)
            except KdbenchError as problem:
                raise KdbenchError(f"weights {trial.weights.file or trial.weights.name} of {trial.student}: {problem}") from problem
            self.fits[key] = found
        return self.fits[key]

    def weight_notes(self, trial: TrialSpec) -> tuple[str, ...]:
        """Sentences for the log and the record on the weights that the trial's student starts from."""
        start = self.start(trial)
        if not start or not trial.weights:
            return ()
        notes = []
        if start.new_classifier:
            notes.append(f"{trial.label} starts with a new classifier: its weights {start.new_classifier}")
        notes += [f"the weights of {trial.label} {note}" for note in start.notes]
        own = trial.input and trial.input.normalise
        ours = (own.mean, own.std) if own else (self.dataset.mean, self.dataset.std)
        meant = normalisation(trial.weights, model=trial.student)
        if meant and any(abs(a - b) > SAME_NORMALISATION for a, b in zip(chain(*meant), chain(*ours), strict=False)):
            fix = "give theirs as `mean` and `std` of the data set"
            if not trial.methods:
                fix = f"give the teacher theirs, `normalise: {{mean: [{_text(meant[0])}], std: [{_text(meant[1])}]}}`"
            notes.append(
                f"the weights of {trial.label} are meant for images of mean {_text(meant[0])} and std {_text(meant[1])}, and these "
                f"are normalised with {_text(ours[0])} and {_text(ours[1])}: {fix}"
            )
        return tuple(notes)

    def read_before_activation(self, spec: TrialSpec, reads: Iterable[str]) -> dict[str, str]:
        """By module of a trial's network, the activation that `forward` itself applies to what is read at some hook points."""
        name, hooks, input = spec.network
        found = _followed_by(name, image_shape=self._seen(input), num_classes=self.dataset.num_classes, hooks=hooks)
        return {module: function for point in reads for module, function in found.get(point, {}).items()}

    def map_notes(self, trial: TrialSpec) -> tuple[str, ...]:
        """Sentences for the record on maps that the trial's methods read before an activation, and mean to read after it."""
        return tuple(
            f"{part.name}: the maps of {spec.label} are read before {' or '.join(dict.fromkeys(found.values()))}, which its "
            f"`forward` applies itself ({', '.join(found)})"
            for part in trial.methods
            for spec in {one.label: one for one in (*trial.teachers, trial)}.values()
            if (found := self.read_before_activation(spec, METHODS.get(part.name).reads))
        )

    def shapes(self, name: str, hooks: tuple[str, ...] = (), input: NetworkInput | None = None) -> Shapes:
        """Shapes of a network's hook points on this data set.

        Raises:
            KdbenchError: the network cannot be built, or not for these images.
        """
        return _shapes(name, image_shape=self._seen(input), num_classes=self.dataset.num_classes, hooks=hooks)

    def macs(self, name: str, hooks: tuple[str, ...] = (), input: NetworkInput | None = None) -> int:
        """Multiply-accumulate operations of a network for one image of this data set."""
        return _macs(name, image_shape=self._seen(input), num_classes=self.dataset.num_classes, hooks=hooks)

    def blank(self, name: str, hooks: tuple[str, ...] = (), input: NetworkInput | None = None) -> Network:
        """A network that was never filled with numbers."""
        return self._built(blank_model, name, hooks, input)

    def _built(self, build: Callable[..., Network], name: str, hooks: tuple[str, ...], input: NetworkInput | None) -> Network:
        channels, height, _ = self._seen(input)
        network = build(name, num_classes=self.dataset.num_classes, in_channels=channels, hooks=hooks, image_size=height)
        return OwnInput(network, input, mean=self.dataset.mean, std=self.dataset.std) if input else network

    def _seen(self, input: NetworkInput | None) -> tuple[int, int, int]:
        """(C, H, W) of the images as a network sees them.

        Raises:
            KdbenchError: they have another number of channels than it normalises, or the size that it asks for already.
        """
        channels, height, width = self.dataset.image_shape
        if input and (misfit := input.misfit(self.dataset.image_shape)):
            raise KdbenchError(": ".join(misfit))
        return (channels, input.size, input.size) if input and input.size else (channels, height, width)

    def blank_parts(self, name: str, hooks: tuple[str, ...] = (), input: NetworkInput | None = None) -> TeacherParts:
        """Parts of a network that was never filled with numbers: ones of the right shapes."""
        parts = _parts(name, image_shape=self._seen(input), num_classes=self.dataset.num_classes, hooks=hooks)
        return _map(parts, lambda tensor: torch.ones(tensor.shape))

    def pair(self, student: Shapes, teachers: Sequence[Shapes], parts: TeacherParts, recipe: Recipe) -> Pair:
        """What methods may know of a pair of networks, and of how it is trained; all of it on the CPU.

        Args:
            student: shapes of the student.
            teachers: of its teachers, one or more.
            parts: of the first teacher.
            recipe: of the student.
        """
        (teacher, *others), labels = teachers, self.splits[0].labels
        sizes = self.batch_sizes(recipe)
        return Pair(student, teacher, labels, _map(parts, Tensor.cpu), self.dataset.image_shape, *sizes, tuple(others))

    def batch_sizes(self, recipe: Recipe) -> tuple[int, int]:
        """How many images the smallest and the largest batch of a training have."""
        bounds = batch_bounds(len(self.splits[0]), recipe.batch_size)
        # Where a kept student is loaded there are no images, and its method is built as for whole batches.
        sizes = [stop - start for start, stop in bounds] or [recipe.batch_size]
        return min(sizes), max(sizes)

    def composition(self, trial: TrialSpec, parts: TeacherParts | None) -> Composition:
        """The trial's methods, on the device; each part's adapters have a stream of their own.

        Args:
            trial: names the methods, the networks and the seed.
            parts: of the first teacher; None where the methods read none.

        Raises:
            PairError: a method cannot do this pair, or not beside another one.
        """
        methods = self.parts(trial, parts)
        refuse_contradictions(methods, trial.ce)
        return Composition(methods, trial.ce, notes=never_reached(trial)).to(self.device)

    def parts(self, trial: TrialSpec, parts: TeacherParts | None) -> dict[str, Method]:
        """The trial's methods by name, on the CPU, whether or not they go together; the arguments are those of `composition`.

        Raises:
            PairError: a method cannot do this pair.
        """
        teachers = trial.teachers or (trial,)
        student, *of_teachers = (self.shapes(*spec.network) for spec in (trial, *teachers))
        pair = self.pair(student, of_teachers, parts or self.blank_parts(*teachers[0].network), trial.recipe)
        methods = {}
        for spec in trial.methods:
            with seeded(trial.seed, "adapters", spec.name):
                methods[spec.name] = build_part(spec, pair)
        return methods


def _map(parts: TeacherParts, function: Callable[[Tensor], Tensor]) -> TeacherParts:
    norms = tuple((function(weight), function(bias)) for weight, bias in parts.norms)
    return TeacherParts(function(parts.classifier_weight), function(parts.classifier_bias), norms)


def _text(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:.3f}" for number in numbers)
