"""A folder of image files, decoded once and kept as one file of pixels."""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdbench.data.dataset import Dataset, Source, SourceParams, Split, channel_statistics, register_dataset
from kdbench.errors import KdbenchError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

CACHE_FORMAT = 1
"""Raise it when the same files would give other pixels."""


@dataclass(frozen=True)
class Listing:
    """The image files of one split, class by class, and their labels in the same order."""

    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]


@register_dataset("imagefolder")
class ImageFolder(Source):
    """Your own images: train/<class>/* and test/<class>/* (or val/), resized to size x size and held in memory.

    Classes are numbered in the order of their folders' names. Where both test/ and val/ exist, test/ is used. Files and folders
    whose names begin with a dot, and files of other types than `SUFFIXES`, are passed over.
    """

    class Params(SourceParams):
        """Where the images are and what is made of them.

        Attributes:
            root: the folder that holds train/ and test/ (or val/).
            label: the name that tables show; in a trial's identity it stands for the folder.
            size: height and width in pixels; images of another size are resized, bilinear and antialiased.
            channels: 3 for colour, 1 for grey.
            mean: per channel, on the scale 0..1; None computes it from the training images.
            std: as `mean`.
        """

        root: Path = Field(exclude=True)
        label: str = Field(min_length=1)
        size: PositiveInt
        channels: Literal[1, 3] = 3
        mean: tuple[float, ...] | None = None
        std: tuple[PositiveFloat, ...] | None = None

        @model_validator(mode="after")
        def _one_mean_and_std_per_channel(self) -> Self:
            if (self.mean is None) != (self.std is None):
                raise ValueError("give `mean` and `std` together, or neither")
            if self.mean is not None and self.std is not None and not len(self.mean) == len(self.std) == self.channels:
                raise ValueError(f"`mean` and `std` must have one number for each channel, {self.channels} in all")
            return self

    params: Params

    def check(self) -> None:
        """See that the folders are there, hold images and agree on their classes."""
        scan(self.params.root)

    def load(self) -> Dataset:
        """Decoded images; the first time from their files, later from `cache`, until a file's name or content changes.

        Raises:
            KdbenchError: as `check`, or an image that cannot be decoded; the message names it.
        """
        train, test = scan(self.params.root)
        path = self.cache / f"imagefolder-{self._key((*train.files, *test.files))}.safetensors"
        images = _read(path)
        if images is None:
            images = self._decode(train.files), self._decode(test.files)
            _write(path, images)
        mean, std = self.params.mean, self.params.std
        if mean is None or std is None:
            mean, std = channel_statistics(images[0])
        train_split, test_split = (
            Split(pixels, torch.tensor(listing.labels)) for pixels, listing in zip(images, (train, test), strict=True)
        )
        return Dataset(train_split, test_split, train.classes, mean, std)

    def _key(self, files: tuple[Path, ...]) -> str:
        """32 hexadecimal characters that depend on all that determines the pixels, and on nothing else."""
        digest = hashlib.sha256(f"{CACHE_FORMAT} {self.params.size} {self.params.channels}".encode())
        for file in files:
            content = file.read_bytes()
            digest.update(f"\0{file.relative_to(self.params.root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:32]

    def _decode(self, files: tuple[Path, ...]) -> Tensor:
        """Images (N, size, size, channels), uint8."""
        images = np.empty((len(files), self.params.size, self.params.size, self.params.channels), dtype=np.uint8)
        for place, file in enumerate(files):  # threads make it slower: small images spend their time under Python's lock
            images[place] = decode_file(file, size=self.params.size, channels=self.params.channels)
        return torch.from_numpy(images)


def scan(root: Path) -> tuple[Listing, Listing]:
    """The training and the test images below `root`, in an order that depends on their names alone.

    Raises:
        KdbenchError: a folder is missing or has no image, or the two splits have different classes.
    """
    if not root.is_dir():
        raise KdbenchError(f"root: there is no folder {root}; give one that holds train/<class>/ and test/<class>/.")
    test_folder = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test_folder is None:
        missing = "test/ or val/" if (root / "train").is_dir() else "train/"
        raise KdbenchError(f"{root} has no folder {missing}; arrange the images as train/<class>/ and test/<class>/.")
    train, test = _list(root / "train"), _list(test_folder)
    if difference := sorted(set(train.classes) ^ set(test.classes)):
        raise KdbenchError(
            f"{root / 'train'} and {test_folder} differ in their class folders: only one of them has {', '.join(difference)}; "
            "give both the same."
        )
    return train, test


def decode_file(file: Path, *, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """One image (size, size, channels); exact where the file has that size already.

    Raises:
        KdbenchError: the file is no image or a damaged one.
    """
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB" if channels == 3 else "L")
    except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, ValueError, struct.error and more
        raise KdbenchError(f"cannot decode {file}: {error}. Replace the file or remove it.") from error
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)


def _list(folder: Path) -> Listing:
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise KdbenchError(f"{folder} has no class folders; arrange the images as {folder.name}/<class>/.")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(
            file for file in (folder / name).iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
        if not images:
            raise KdbenchError(f"{folder / name} has no image ({', '.join(SUFFIXES)}); add some or remove the folder.")
        files += images
        labels += [label] * len(images)
    return Listing(tuple(classes), tuple(files), tuple(labels))


def _write(path: Path, images: tuple[Tensor, Tensor]) -> None:
    """Keep the images of both splits under `path`, which never holds half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(dict(zip(("train", "test"), images, strict=True)), temporary, metadata={"sha256": _checksum(images)})
    os.replace(temporary, path)


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    """The images kept under `path`, or None; a damaged file is set aside."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as kept:
            images = kept.get_tensor("train"), kept.get_tensor("test")
            if kept.metadata() == {"sha256": _checksum(images)}:
                return images
    except SafetensorError:
        pass  # its header is damaged; otherwise its pixels are
    aside = path.with_suffix(".broken")
    os.replace(path, aside)
    warnings.warn(f"{path} is damaged: set aside as {aside.name}; the images are decoded again", stacklevel=3)
    return None


def _checksum(images: tuple[Tensor, Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in images:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
