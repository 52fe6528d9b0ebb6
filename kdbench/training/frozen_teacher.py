"""The teacher as students see it: frozen, and asked once for each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from kdbench.method.outputs import Outputs
from kdbench.models import Network
from kdbench.models.folding import folded
from kdbench.models.weights import state_hash
from kdbench.spec.recipe import Recipe
from kdbench.training.arithmetic import arranged, autocast, memory_format
from kdbench.training.compiled import Compiled
from kdbench.training.inputs import StepInputs


class FrozenTeacher:
    """A trained network that never changes: evaluation mode, no gradients, and a check that both held.

    Students see a copy of it in which batch norms are folded into convolutions.

    Attributes:
        network: what was trained, for methods that ask for its parameters.
        sha256: the hash of its state.
        norms_folded: how many of its batch norms are folded.
    """

    def __init__(self, network: Network, *, image_shape: tuple[int, int, int], recipe: Recipe, device: torch.device) -> None:
        self.network = network.eval().requires_grad_(False)
        self.sha256 = state_hash(network.state_dict())
        self._layout = memory_format(device, precision=recipe.precision)
        self._folded, self.norms_folded = folded(network, image_shape=image_shape, memory_format=self._layout)
        self._folded_sha256 = state_hash(self._folded.state_dict())
        self._device = device
        self._compute_as(recipe)

    def under(self, recipe: Recipe) -> FrozenTeacher:
        """The same teacher with the arithmetic of another recipe."""
        other = copy(self)
        other._compute_as(recipe)
        return other

    def _compute_as(self, recipe: Recipe) -> None:
        if self._layout is not (layout := memory_format(self._device, precision=recipe.precision)):
            self._folded, self._layout = deepcopy(self._folded).to(memory_format=layout), layout
        self._compiled = Compiled(self._folded) if recipe.compile else None
        self._arranged = partial(arranged, precision=recipe.precision)
        self._autocast = autocast(self._device, precision=recipe.precision)

    def prepare(self, images: Tensor) -> float:
        """Seconds that it took to get ready for images (B, C, H, W) of this shape; 0 where nothing is compiled."""
        with torch.no_grad(), self._autocast:
            return self._compiled.prepare(self._arranged(images)) if self._compiled else 0.0

    def __call__(self, images: Tensor) -> Outputs:
        """The outputs (B, ...) for images (B, C, H, W), without a graph."""
        with torch.no_grad(), self._autocast:
            outputs: Outputs = (self._compiled or self._folded)(self._arranged(images))
        return outputs

    def logits(self, images: Tensor) -> Tensor:
        """The logits (B, K) for images (B, C, H, W), never compiled: whatever shapes were compiled before, they are the same."""
        with torch.no_grad(), self._autocast:
            outputs: Outputs = self._folded(self._arranged(images))
        return outputs.logits

    @property
    def unchanged(self) -> bool:
        """Whether every parameter and buffer is bitwise as at construction."""
        states = self.network.state_dict(), self._folded.state_dict()
        return list(map(state_hash, states)) == [self.sha256, self._folded_sha256]

    def assert_unchanged(self) -> None:
        """Fail if any parameter or buffer has changed by a bit since construction."""
        assert self.unchanged, "the teacher was changed during training"


def ask(
    teachers: Sequence[FrozenTeacher], inputs: StepInputs, views: Iterable[str], reseed: Callable[..., None] = lambda *passed: None
) -> Outputs:
    """The first teacher's outputs for a batch and these views of it, with those of the further teachers.

    Args:
        teachers: one or more.
        inputs: the batch.
        views: the names of views that a lane which reads the teacher asks for.
        reseed: called before each pass with what names it: nothing for the first teacher's over the batch's own images.
    """

    def outputs_of(number: int, teacher: FrozenTeacher) -> Outputs:
        which = (number,) if number else ()
        reseed(*which)
        outputs = teacher(inputs.images)
        of_views = {}
        for view in views:
            reseed(*which, view)
            of_views[view] = teacher(inputs.views[view].images)
        return replace(outputs, views=of_views) if of_views else outputs

    first, *others = (outputs_of(number, teacher) for number, teacher in enumerate(teachers))
    return replace(first, others=tuple(others)) if others else first
