"""The network that a trial would deploy: the student, and what its method predicts with."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method.composition import Composition
from kdbench.models.measure import parameters


class Normalise(nn.Module):
    """From bytes to what a network was trained on; its two buffers go wherever the network goes."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), uint8, as numbers: scaled to 0..1, less `mean`, divided by `std`."""
        if images.dtype != torch.uint8:
            raise KdbenchError(
                f"the images are {images.dtype} and not bytes. Give torch.uint8, 0 to 255, as files hold them; a student that was "
                "loaded without normalise=True takes images that you normalise yourself."
            )
        return images.to(self.mean.dtype).div(255).sub(self.mean).div(self.std)


class Deployed(nn.Module):
    """The network that would be deployed: the student, and what its method predicts with.

    Attributes:
        classes: names of the logits 0, 1, ...; this and what follows stands on networks that were loaded.
        image_shape: (C, H, W), of the images that it was trained on.
        mean: per channel, of pixels scaled to 0..1; what normalisation subtracts.
        std: per channel, on the same scale; what normalisation then divides by.
        resize: how images of another size are brought to this one, as in `kdbench.spec.record.Data`.
    """

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    resize: Mapping[str, int] | None

    def __init__(self, student: nn.Module, method: Composition, *, normalise: Normalise | None = None) -> None:
        super().__init__()
        self.student = student
        self.method = method
        self.normalise = normalise

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return parameters(self.student) + sum(tensor.numel() for tensor in self.method.deployed())

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        if self.normalise is not None:
            images = self.normalise(images)
        return self.method.predict(self.student(images))
