"""Folders of image files: decoded once and kept as one file of pixels, or read anew in every epoch."""

import hashlib
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdbench.data.dataset import Dataset, Source, SourceParams, Split, channel_statistics, register_dataset
from kdbench.data.files import Files, read_image
from kdbench.errors import KdbenchError, first_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

ANNOTATIONS = "val_annotations.txt"
"""Where Tiny-ImageNet's distribution names the classes of its test images."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images, as torchvision's classification presets and weights have them."""

GIB = 2**30

CACHE_FORMAT = 1
"""Raise it when the same files would give other pixels."""


@dataclass(frozen=True)
class Listing:
    """The image files of one split, by their paths below the root, and their labels in the same order."""

    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]


class FolderParams(SourceParams):
    """Where the images are and what is made of them.

    Attributes:
        root: the folder that holds train/ and test/ (or val/).
        label: the name that tables show; in a trial's identity it stands for the folder.
        size: height and width in pixels.
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


@register_dataset("imagefolder")
class ImageFolder(Source):
    """Your own images: train/<class>/* and test/<class>/* (or val/), resized to size x size and held in memory.

    Classes are numbered in the order of their folders' names. Where both test/ and val/ exist, test/ is used. Files and folders
    whose names begin with a dot, and files of other types than `SUFFIXES`, are passed over. Tiny-ImageNet is read as it is
    unpacked: train/<class>/images/* and val/images/* with `ANNOTATIONS`; its test/ has no labels.

    Images of another size than `size` are resized without regard to their shape, bilinear and antialiased.
    """

    class Params(FolderParams):
        pass

    params: Params

    def check(self) -> None:
        """See that the folders are there, hold images and agree on their classes, and that memory can hold the pixels."""
        train, test = scan(self.params.root)
        count, size, channels = len(train.files) + len(test.files), self.params.size, self.params.channels
        pixels, memory = count * size * size * channels, memory_bytes()
        if 2 * pixels > memory:  # training images are copied once, padded
            raise KdbenchError(
                f"{self.params.root}: {count:,} images of {size}x{size}x{channels} are {pixels / GIB:.1f} GiB of pixels, held "
                f"twice, and this machine has {memory / GIB:.1f} GiB of memory; stream them with `name: imagestream`, or give "
                "a smaller `size`."
            )

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

    def _key(self, files: tuple[str, ...]) -> str:
        """32 hexadecimal characters that depend on all that determines the pixels, and on nothing else."""
        digest = hashlib.sha256(f"{CACHE_FORMAT} {self.params.size} {self.params.channels}".encode())
        for file in files:
            content = (self.params.root / file).read_bytes()
            digest.update(f"\0{file}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:32]

    def _decode(self, files: tuple[str, ...]) -> Tensor:
        """Images (N, size, size, channels), uint8."""
        images = np.empty((len(files), self.params.size, self.params.size, self.params.channels), dtype=np.uint8)
        for place, file in enumerate(files):  # threads make it slower: small images spend their time under Python's lock
            images[place] = decode_file(self.params.root / file, size=self.params.size, channels=self.params.channels)
        return torch.from_numpy(images)


@register_dataset("imagestream")
class ImageStream(Source):
    """Your own images, more than memory holds: folders as for imagefolder, read anew in every epoch by processes of their own.

    For training, an image is cropped as the recipe's `augmentation.resized_crop` says. For evaluation, and for training without
    one, its shorter side is resized to `resize`, bilinear and antialiased, and the centre is cropped.

    Images are known by their names and sizes in bytes: a file that changes and keeps its size is not noticed.
    """

    streams = True

    class Params(FolderParams):
        """As for imagefolder, and:

        Attributes:
            size: height and width in pixels of the crops that networks see.
            resize: pixels of the shorter side before the centre crop; 8/7 of `size` unless given, as 256 is of 224.
            mean: per channel, on the scale 0..1; ImageNet's unless given.
            std: as `mean`.
            workers: how many processes decode images, 0 for the training one itself; as many as there are cores, at most 16, unless
                given. It changes no result.
        """

        resize: PositiveInt
        mean: tuple[float, ...] = IMAGENET_MEAN
        std: tuple[PositiveFloat, ...] = IMAGENET_STD
        workers: NonNegativeInt = Field(default_factory=lambda: min(16, usable_cores()), exclude=True)

        @model_validator(mode="before")
        @classmethod
        def _usual_resize(cls, given: Any) -> Any:
            if isinstance(given, dict) and "resize" not in given and isinstance(given.get("size"), int):
                return {**given, "resize": round(given["size"] * 8 / 7)}
            return given

        @model_validator(mode="after")
        def _crops_fit(self) -> Self:
            if self.resize < self.size:
                raise ValueError(f"resize: {self.resize} is less than `size`, so that no crop of {self.size} fits; give more")
            return self

    params: Params

    def check(self) -> None:
        """See that the folders are there, hold images and agree on their classes; opens no image."""
        scan(self.params.root)

    def load(self) -> Dataset:
        """Names, sizes and labels of the files; no image is opened."""
        train, test = scan(self.params.root)
        return Dataset(self._files(train), self._files(test), train.classes, self.params.mean, self.params.std)

    def _files(self, listing: Listing) -> Files:
        return Files(
            root=self.params.root,
            names=np.array([os.fsencode(file) for file in listing.files]),
            file_sizes=np.array([_bytes(self.params.root / file) for file in listing.files]),
            labels=torch.tensor(listing.labels),
            size=self.params.size,
            resize=self.params.resize,
            channels=self.params.channels,
            workers=self.params.workers,
        )


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as problem:
        raise KdbenchError(f"{file} cannot be read ({problem.strerror}). Replace the file or remove it.") from None


def scan(root: Path) -> tuple[Listing, Listing]:
    """The training and the test images below `root`, in an order that depends on their names alone.

    Raises:
        KdbenchError: a folder is missing or has no image, or the two splits have different classes.
    """
    if not root.is_dir():
        told = root if root.is_absolute() else f"{root} in {Path.cwd()}, where kdbench was started"
        raise KdbenchError(f"root: there is no folder {told}; give one that holds train/<class>/ and test/<class>/.")
    held_out = [name for name in ("test", "val") if (root / name).is_dir() and (name == "val" or _has_labels(root / name))]
    if not (root / "train").is_dir() or not held_out:
        missing = "test/ or val/" if (root / "train").is_dir() else "train/"
        raise KdbenchError(f"{root} has no folder {missing}; arrange the images as train/<class>/ and test/<class>/.")
    train = _list(root, "train")
    if (root / "val" / ANNOTATIONS).is_file() and (root / "val" / "images").is_dir():
        return train, _list_annotated(root, train.classes)
    test = _list(root, held_out[0])
    if difference := sorted(set(train.classes) ^ set(test.classes)):
        named = ", ".join(difference[:5]) + (f" and {len(difference) - 5:,} more" if len(difference) > 5 else "")
        raise KdbenchError(
            f"{root / 'train'} and {root / held_out[0]} differ in their class folders: only one of them has {named}; "
            "give both the same."
        )
    return train, test


def decode_file(file: Path, *, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """One image (size, size, channels); exact where the file has that size already.

    Raises:
        DataError: the file is no image or a damaged one.
    """
    image = read_image(file, channels=channels)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)


def _has_labels(folder: Path) -> bool:
    """Whether it holds more than images/, which is all that Tiny-ImageNet's test/ holds."""
    return [entry.name for entry in os.scandir(folder) if entry.is_dir()] != ["images"]


def _list(root: Path, split: str) -> Listing:
    folder = root / split
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise KdbenchError(f"{folder} has no class folders; arrange the images as {split}/<class>/.")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = [f"{split}/{name}/{image}" for image in _images(folder / name)]
        if not images and (folder / name / "images").is_dir():  # Tiny-ImageNet's
            images = [f"{split}/{name}/images/{image}" for image in _images(folder / name / "images")]
        if not images:
            raise KdbenchError(f"{folder / name} has no image ({', '.join(SUFFIXES)}); add some or remove the folder.")
        files += images
        labels += [label] * len(images)
    return Listing(tuple(classes), tuple(files), tuple(labels))


def _list_annotated(root: Path, classes: tuple[str, ...]) -> Listing:
    """Tiny-ImageNet's test images: val/images/*, their classes in a file of lines that begin with a name and a class."""
    annotations = root / "val" / ANNOTATIONS
    named = dict(line.split("\t")[:2] for line in annotations.read_text().splitlines() if line.count("\t"))
    number = {name: label for label, name in enumerate(classes)}
    files, labels = [], []
    for image in _images(root / "val" / "images"):
        if named.get(image) not in number:
            raise KdbenchError(
                f"{annotations} gives val/images/{image} no class that {root / 'train'} has; unpack the archive again, or "
                "arrange the images as val/<class>/."
            )
        files.append(f"val/images/{image}")
        labels.append(number[named[image]])
    if not files:
        raise KdbenchError(f"{root / 'val' / 'images'} has no image ({', '.join(SUFFIXES)}); unpack the archive again.")
    return Listing(classes, tuple(files), tuple(labels))


def _images(folder: Path) -> list[str]:
    """Names of the image files of a folder, in order."""
    names = (entry.name for entry in os.scandir(folder))
    return sorted(name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))


def _write(path: Path, images: tuple[Tensor, Tensor]) -> None:
    """Keep the images of both splits under `path`, which never holds half a file.

    Raises:
        KdbenchError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file(dict(zip(("train", "test"), images, strict=True)), temporary, metadata={"sha256": _checksum(images)})
    except SafetensorError as problem:
        temporary.unlink(missing_ok=True)
        raise KdbenchError(f"{path} cannot be written ({first_line(problem)}). Make room, or choose another --results.") from None
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
