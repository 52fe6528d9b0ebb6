"""The network that would be deployed: a student and what its method predicts with, kept beside its record and loaded again."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from kdbench.data import Dataset, SourceParams, Split
from kdbench.errors import KdbenchError, first_line
from kdbench.method.interface import METHODS, Composition
from kdbench.models.measure import parameters
from kdbench.models.weights import WEIGHTS
from kdbench.paths import has_path
from kdbench.results.kept import AGAIN, MadeFor, read_kept, write_kept
from kdbench.spec.record import Data, Record
from kdbench.spec.trial import TrialSpec
from kdbench.training.bench import Bench

log = logging.getLogger("kdbench")


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


def keep(folder: Path, student: nn.Module, method: Composition | None, *, data: Data) -> None:
    """Write a trained student into its trial's folder, and the parts of its method that predict."""
    predicting = Composition(method.predicting if method else {})
    write_kept(folder, student.state_dict(), predicting.state_dict(), parts=[*predicting.parts], data=data)


def load(folder: Path, *, normalise: bool) -> Deployed:
    """The network that `keep` wrote, on the CPU, in evaluation mode; with `normalise` it takes bytes.

    Raises:
        KdbenchError: no record of a finished trial, no weights, or damaged ones, or `normalise` where an earlier kdbench kept them.
    """
    try:
        record = Record.model_validate_json((folder / "record.json").read_bytes())
        trial = TrialSpec.model_validate(record.spec)
    except OSError as problem:
        absent = isinstance(problem, (FileNotFoundError, NotADirectoryError))
        told = "is missing" if absent else f"cannot be read ({problem.strerror})"
        raise KdbenchError(f"{folder / 'record.json'} {told}. Give the folder of a finished trial, results/trials/...") from None
    except ValidationError as problem:
        raise KdbenchError(f"{folder / 'record.json'} is no whole record ({first_line(problem)}). Train it again.") from None
    kept = read_kept(folder, record)
    made_for = kept.made_for
    normalising = None
    if made_for.mean is None or made_for.std is None:
        lacking = f"{folder / WEIGHTS} is of an earlier kdbench and lacks classes, mean, std and resize. {AGAIN}"
        if normalise:
            raise KdbenchError(f"{lacking}, or give images that you normalise, without normalise=True.")
        log.warning("%s.", lacking)
    elif normalise:
        normalising = Normalise(made_for.mean, made_for.std)
    bench = _bench(made_for)
    predicting = tuple(spec for spec in trial.methods if spec.name in made_for.parts)
    if files := [spec.name for spec in predicting if has_path(METHODS.get(spec.name).Params)]:
        raise KdbenchError(
            f"{folder}: {', '.join(files)} predicts with what it read from a file of its parameters, and its record has the file's "
            "hash alone. Build the method with build_method, and load weights.safetensors and method.safetensors into both."
        )
    method = bench.composition(trial.model_copy(update={"methods": predicting}), None) if predicting else Composition({})
    try:
        student = bench.restored(trial, kept.student)
        method.load_state_dict(kept.method)
    except RuntimeError as problem:
        raise KdbenchError(f"the weights in {folder} fit its network or method no more ({first_line(problem)}).") from None
    network = Deployed(student, method, normalise=normalising).eval()
    network.classes, network.image_shape, network.resize = made_for.classes, made_for.image_shape, made_for.resize
    network.mean, network.std = made_for.mean, made_for.std
    return network


def _bench(made_for: MadeFor) -> Bench:
    """One for such images and so many classes, of which it holds none."""
    channels, height, width = made_for.image_shape
    none = Split(torch.empty(0, height, width, channels, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    classes = made_for.classes or tuple(map(str, range(made_for.num_classes)))
    return Bench(Dataset(none, none, classes, mean=(0.0,) * channels, std=(1.0,) * channels), SourceParams(), torch.device("cpu"))
