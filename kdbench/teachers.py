"""The teachers of a run: trained before, kept by the store, and taken from there once for all seeds."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from kdbench.models import Network
from kdbench.plan import Planned
from kdbench.progress import Progress
from kdbench.recipe import Recipe
from kdbench.record import Record
from kdbench.store import Store
from kdbench.training.bench import Bench
from kdbench.training.cohort import FrozenTeacher, error_pct, inference_images_per_s
from kdbench.trial import TrialSpec
from kdbench.weights import WEIGHTS, read_weights


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained teacher on the device.

    Attributes:
        spec: the trial that trained it, or adopted its weights.
        frozen: what students see.
        network: the same as it was trained.
        record: of its trial.
        error_pct: its test error in percent, in the arithmetic of the students.
        images_per_s: of inference.
    """

    spec: TrialSpec
    frozen: FrozenTeacher
    network: Network
    record: Record
    error_pct: float
    images_per_s: float


@dataclass(frozen=True, eq=False)
class Teachers:
    """Finds teachers among the records of `store`, and puts them on the device of `bench`."""

    store: Store
    bench: Bench
    progress: Progress
    loaded: dict[tuple[str, str], Teacher] = field(default_factory=dict)
    """The teacher of the last cohort, by its trial and the arithmetic: the next seed has the same one."""

    def usable(self, planned: Planned) -> bool:
        """Whether it is trained, and its weights are there, bit for bit."""
        return self._weights(planned.record) is not None

    def get(self, spec: TrialSpec, recipe: Recipe) -> Teacher | None:
        """The teacher in the arithmetic of `recipe`; None where it has failed."""
        key = spec.id, recipe.arithmetic
        if key not in self.loaded:
            self.loaded.clear()
            if teacher := self._load(spec, recipe):
                self.loaded[key] = teacher
        return self.loaded.get(key)

    def _load(self, spec: TrialSpec, recipe: Recipe) -> Teacher | None:
        record = self.store.record(spec.id)
        weights = self._weights(record)
        if record is None or weights is None:
            return None
        network = self.bench.restored(spec, weights)
        shape = self.bench.dataset.image_shape
        frozen = FrozenTeacher(network, image_shape=shape, recipe=recipe, device=self.bench.device)
        test = self.bench.test_data
        error = error_pct(lambda images: frozen(images).logits, test, precision=recipe.precision)
        self.progress.say(f"teacher {spec.label}: test error {error:.2f} %")
        rate = inference_images_per_s(
            lambda images: network(images).logits, test, batch_size=spec.recipe.batch_size, precision=recipe.precision
        )
        return Teacher(spec, frozen, network, record, error, rate)

    def _weights(self, record: Record | None) -> dict[str, torch.Tensor] | None:
        """Those that a trial left which is done, where they are still the same."""
        if record is None or record.status != "done":
            return None
        return read_weights(self.store.folder(record.trial) / WEIGHTS, sha256=record.weights_sha256 or "")
