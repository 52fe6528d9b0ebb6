"""The batches that a cohort sees: a function of the seed, the phase and the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kdbench.data import Loader
from kdbench.data.loader import LoadBatch
from kdbench.data.mixing import mix
from kdbench.data.views import mixup, rotations
from kdbench.method.batch import View
from kdbench.spec.recipe import Recipe
from kdbench.streams import derive, generator, reseed
from kdbench.training.inputs import StepInputs
from kdbench.training.segments import Position

Load = Callable[[], StepInputs]
"""Makes one batch. Every call makes the same batch anew, so that a lane that spoils its tensors spoils nobody else's."""


@dataclass(frozen=True)
class Stream:
    """The batches of a cohort, and what the teacher draws for them.

    Each view has streams of its own, so that asking for one changes neither the batches nor another view.

    Attributes:
        data: the training images.
        recipe: how they are varied.
        seed: of the cohort.
        num_classes: K.
    """

    data: Loader
    recipe: Recipe
    seed: int | str
    num_classes: int

    def batches(self, now: Position, views: Sequence[str]) -> Iterator[Load]:
        """The batches of an epoch, with these views of each."""
        strong = generator(self.seed, "view strong", *now) if "strong" in views else None
        loads = self.data.epoch(generator(self.seed, "batches", *now), batch_size=self.recipe.batch_size, strong=strong)
        for number, load in enumerate(loads):
            yield partial(self._inputs, load, now, number, views)

    def _inputs(self, load: LoadBatch, now: Position, number: int, views: Sequence[str]) -> StepInputs:
        images, labels, indices, strong = load()
        made: dict[str, View] = {}
        if strong is not None:
            made["strong"] = View(strong, labels)
        if "rotations" in views:
            made["rotations"] = rotations(images, labels)
        if "mixup" in views:
            draws = generator(self.seed, "view mixup", *now, number)
            made["mixup"] = mixup(images, labels, num_classes=self.num_classes, generator=draws)
        indices, soft_labels = indices.clone(), None  # they are a view of the epoch's plan
        if self.recipe.mixes:
            seed = derive(self.seed, "mixing", *now, number)
            images, labels, indices, soft_labels = mix(
                images, labels, indices, recipe=self.recipe, num_classes=self.num_classes, seed=seed
            )
        inputs = StepInputs(images, labels, indices, soft_labels, views={name: made[name] for name in views})
        return inputs.arranged(precision=self.recipe.precision)

    def reseed_for_teacher(self, now: Position, number: int, *passed: str | int) -> None:
        """Set what a teacher may draw from that is random in evaluation too, for the batch `number` of an epoch.

        `passed` names the pass, where it is none of the first teacher over the batch's own images.
        """
        reseed(derive(self.seed, "teacher", *now, number, *passed), self.data.device)
