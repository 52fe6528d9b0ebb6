"""What a step is given: the images of a batch, their views, and the teacher's outputs for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from kdbench.method.batch import Batch, View
from kdbench.method.outputs import Outputs
from kdbench.training.arithmetic import arranged


@dataclass(frozen=True)
class StepInputs:
    """A batch as all lanes are given it; none may change its tensors.

    Attributes:
        images: (B, C, H, W), augmented and normalised.
        labels: (B,), int64.
        indices: (B,), int64, the images' positions in the training set.
        soft_labels: (B, K), where the recipe mixes images.
        views: the views that some lane asks for, by name.
        teacher: the teacher's outputs; None where no lane reads them.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    soft_labels: Tensor | None = None
    views: Mapping[str, View] = field(default_factory=dict)
    teacher: Outputs | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def taught(self, teacher: Outputs | None) -> StepInputs:
        """The same with the teacher's outputs."""
        return replace(self, teacher=teacher)

    def arranged(self, *, precision: str) -> StepInputs:
        """The same in the layout of the networks that take it."""
        views = {name: replace(view, images=arranged(view.images, precision=precision)) for name, view in self.views.items()}
        return replace(self, images=arranged(self.images, precision=precision), views=views)

    def loaded(self) -> list[Tensor]:
        """The tensors that come from the data, in an order that is always the same."""
        of_views = (tensor for view in self.views.values() for tensor in (view.images, view.labels))
        found = (self.images, self.labels, self.indices, self.soft_labels, *of_views)
        return [tensor for tensor in found if tensor is not None]

    def tensors(self) -> list[Tensor]:
        """All of them, the teacher's included."""
        return [*self.loaded(), *(self.teacher.tensors() if self.teacher else ())]

    def cloned(self) -> StepInputs:
        """Copies of what comes from the data, without the teacher."""
        return StepInputs(
            self.images.clone(),
            self.labels.clone(),
            self.indices.clone(),
            None if self.soft_labels is None else self.soft_labels.clone(),
            {name: View(view.images.clone(), view.labels.clone()) for name, view in self.views.items()},
        )

    def of_views(self, names: Iterable[str]) -> StepInputs:
        """The same with these of its views alone."""
        return replace(self, views={name: self.views[name] for name in names})


def outputs_of(network: Callable[[Tensor], Outputs], batch: Batch) -> Outputs:
    """A network's outputs for the images of a batch, with those for each of its views, which get a pass of their own.

    Args:
        network: such as `build_model` gives.
        batch: B images, and the views that the method reads.
    """
    outputs = network(batch.images)
    views = {name: network(view.images) for name, view in batch.views.items()}
    return replace(outputs, views=views) if views else outputs
