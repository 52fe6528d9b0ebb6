"""Folders of image files: decoded once and kept as one file of pixels, or read anew in every epoch."""

import hashlib
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from kdbench.data.dataset import (
    Contents,
    Dataset,
    Source,
    SourceParams,
    Split,
    channel_statistics,
    refuse_division,
    register_dataset,
)
from kdbench.data.decode import PIXELS, Unreadable, read_image, unreadable_files
from kdbench.data.files import Files
from kdbench.data.folders import Folders, Listing, file_sizes, scan
from kdbench.data.pixel_cache import read_images, write_images
from kdbench.errors import KdbenchError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images, as torchvision's classification presets and weights have them."""

GIB = 2**30

DARK = 64
"""Of 255; training images that are all darker are likely 16-bit ones of which fewer bits are used."""


class FolderParams(SourceParams):
    """Where the images are and what is made of them."""

    root: Path = Field(exclude=True)
    """The folder that holds `train/` and `test/` (or `val/`). A relative path begins in the suite's folder."""
    label: str = Field(min_length=1)
    """The name that tables show. It stands for the folder in a trial's identity: give changed images another label."""
    size: PositiveInt
    """Height and width in pixels of what networks see."""
    channels: Literal[1, 3] = 3
    """3 for colour, 1 for grey."""
    mean: tuple[float, ...] | None = None
    """What is subtracted from each channel, on the scale 0 to 1. Computed from the training images unless given."""
    std: tuple[PositiveFloat, ...] | None = None
    """What each channel is then divided by, on the same scale. Give it together with `mean`."""

    @model_validator(mode="after")
    def _one_mean_and_std_per_channel(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("give `mean` and `std` together, or neither")
        if self.mean is not None and self.std is not None and not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"`mean` and `std` must have one number for each channel, {self.channels} in all")
        return self


class FolderSource(Source):
    """Images in class folders: what imagefolder and imagestream share."""

    params: FolderParams

    @property
    def root(self) -> Path:
        """Absolute, so that a message names a file wherever it is read."""
        return self.params.root.absolute()

    @cached_property
    def folders(self) -> Folders:
        """What lies below the root, looked at once."""
        return scan(self.root)

    def contents(self) -> Contents:
        """By the names of folders and files; no image is opened."""
        classes, size = self.folders.classes, self.params.size
        train, test = (
            tuple(torch.tensor(split.labels).bincount(minlength=len(classes)).tolist())
            for split in (self.folders.train, self.folders.test)
        )
        return Contents(classes, (self.params.channels, size, size), train, test, self.folders.passed_over)


@register_dataset("imagefolder")
class ImageFolder(FolderSource):
    """Your own images: train/<class>/* and test/<class>/* (or val/), resized to size x size and held in memory.

    Classes are numbered in the order of their folders' names, and folders below a class folder belong to the class. Where test/ and
    val/ both have class folders, test/ is used. Tiny-ImageNet is read as it is unpacked: its test/ has no labels, and those of
    val/images/* are in val_annotations.txt.

    Files of every type that Pillow opens by itself are read, but for documents, drawings, films and measurements. Other files, and
    those whose names begin with a dot, are passed over and counted.

    An image is read as a viewer shows it: turned as its EXIF says, in sRGB, on white where it is transparent, 16 bits scaled to 8.
    Of an animation or a file with many pages, the first one is read. An image of another size than `size` is resized without regard
    to its shape, bilinear and antialiased.
    """

    class Params(FolderParams):
        pass

    params: Params

    def check(self) -> None:
        """See that the folders hold images and agree on their classes, that files can be opened, and that memory can hold them."""
        contents = self.contents()
        refuse_division(contents, self.params)
        count, size, channels = sum(contents.train) + sum(contents.test), self.params.size, self.params.channels
        pixels, memory = count * size * size * channels, memory_bytes()
        if 2 * pixels > memory:  # training images are copied once, padded
            raise KdbenchError(
                f"{self.root}: {count:,} images of {size}x{size}x{channels} are {pixels / GIB:.1f} GiB of pixels,"
                f" held twice, and this machine has {memory / GIB:.1f} GiB of memory; stream them with `name: imagestream`,"
                " or give a smaller `size`."
            )
        file_sizes(self.root, (*self.folders.train.files, *self.folders.test.files))

    def load(self) -> Dataset:
        """Decoded images; the first time from their files, later from `cache`, until a file's name or content changes.

        Raises:
            KdbenchError: as `check`.
            DataError: images that cannot be decoded; the message names them.
        """
        train, test = self.folders.train, self.folders.test
        path = self.cache / f"imagefolder-{self._key((*train.files, *test.files))}.safetensors"
        images = read_images(path)
        if images is None:
            pixels = self._decode((*train.files, *test.files))
            images = pixels[: len(train.files)], pixels[len(train.files) :]
            write_images(path, images)
        mean, std = self.params.mean, self.params.std
        if mean is None or std is None:
            mean, std = channel_statistics(images[0])
        train_split, test_split = (
            Split(pixels, torch.tensor(listing.labels)) for pixels, listing in zip(images, (train, test), strict=True)
        )
        return Dataset(
            train_split,
            test_split,
            self.folders.classes,
            mean,
            std,
            self.folders.passed_over,
            _darkness(images[0]),
            resize={"height_px": self.params.size, "width_px": self.params.size},
        )

    def _key(self, files: tuple[str, ...]) -> str:
        """32 hexadecimal characters that depend on all that determines the pixels, and on nothing else."""
        digest = hashlib.sha256(f"{PIXELS} {self.params.size} {self.params.channels}".encode())
        for file in files:
            content = (self.root / file).read_bytes()
            digest.update(b"\0%s\0%d\0" % (os.fsencode(file), len(content)))
            digest.update(content)
        return digest.hexdigest()[:32]

    def _decode(self, files: tuple[str, ...]) -> Tensor:
        """Images (N, size, size, channels), uint8."""
        images = np.empty((len(files), self.params.size, self.params.size, self.params.channels), dtype=np.uint8)
        problems = []
        for place, file in enumerate(files):  # threads make it slower: small images spend their time under Python's lock
            try:
                images[place] = decode_file(self.root / file, size=self.params.size, channels=self.params.channels)
            except Unreadable as problem:
                problems.append(str(problem))
        if problems:
            raise unreadable_files(problems)
        return torch.from_numpy(images)


@register_dataset("imagestream")
class ImageStream(FolderSource):
    """Your own images, more than memory holds: folders as for imagefolder, read anew in every epoch by processes of their own.

    For training, an image is cropped as the recipe's `augmentation.resized_crop` says. For evaluation, and for training without
    one, its shorter side is resized to `resize`, bilinear and antialiased, and the centre is cropped.

    Images are known by their names and sizes in bytes: a file that changes and keeps its size is not noticed.
    """

    streams = True

    class Params(FolderParams):
        resize: PositiveInt = Field(default_factory=lambda given: round(given["size"] * 8 / 7))
        """Pixels of the shorter side before the centre is cropped. 8/7 of `size` unless given, as 256 is of 224."""
        mean: tuple[float, ...] = IMAGENET_MEAN
        """What is subtracted from each channel, on the scale 0 to 1. ImageNet's unless given."""
        std: tuple[PositiveFloat, ...] = IMAGENET_STD
        """What each channel is then divided by, on the same scale. ImageNet's unless given."""
        workers: NonNegativeInt = Field(default_factory=lambda: min(16, usable_cores()), exclude=True)
        """How many processes decode images; 0 decodes in the training process. One for each core, at most 16, unless given. It
        changes no result."""

        @model_validator(mode="after")
        def _crops_fit(self) -> Self:
            if self.resize < self.size:
                raise ValueError(f"resize: {self.resize} is less than `size`, so that no crop of {self.size} fits; give more")
            return self

    params: Params

    def check(self) -> None:
        """See that the folders hold images and agree on their classes, and that files can be opened; decodes none."""
        refuse_division(self.contents(), self.params)
        _ = self.files

    def load(self) -> Dataset:
        """Names, sizes and labels of the files; no image is decoded."""
        train, test = self.files
        return Dataset(
            train,
            test,
            self.folders.classes,
            self.params.mean,
            self.params.std,
            self.folders.passed_over,
            resize={"shorter_side_px": self.params.resize},
        )

    @cached_property
    def files(self) -> tuple[Files, Files]:
        """Of the training and of the test images, looked at once.

        Raises:
            DataError: as `file_sizes`.
        """
        train, test = self.folders.train, self.folders.test
        sizes = np.array(file_sizes(self.root, (*train.files, *test.files)))
        return self._files(train, sizes[: len(train.files)]), self._files(test, sizes[len(train.files) :])

    def _files(self, listing: Listing, sizes: npt.NDArray[np.int64]) -> Files:
        return Files(
            root=self.root,
            names=np.array([os.fsencode(file) for file in listing.files]),
            file_sizes=sizes,
            labels=torch.tensor(listing.labels),
            size=self.params.size,
            resize=self.params.resize,
            channels=self.params.channels,
            workers=self.params.workers,
        )


def _darkness(images: Tensor) -> tuple[str, ...]:
    """A note where images use a small part of what they are read as."""
    brightest = int(images.max())
    if brightest >= DARK:
        return ()
    return (
        f"the brightest value of the training images is {brightest} of 255; if they are 16-bit images that use fewer bits, scale "
        "their values to 0..65535",
    )


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def decode_file(file: Path, *, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """One image (size, size, channels); exact where the file has that size already.

    Raises:
        Unreadable: as `read_image`.
    """
    image = read_image(file, channels=channels)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)
