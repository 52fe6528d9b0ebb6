"""A data set as a value: its images and labels, in memory or in their files, and what it holds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from kdbench.data.duplicates import duplicates
from kdbench.data.file_split import FileSplit
from kdbench.errors import KdbenchError


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images in memory. The index of an image is its position here.

    Attributes:
        images: (N, H, W, C), uint8, contiguous.
        labels: (N,), int64.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8 and self.images.ndim == 4 and self.images.is_contiguous()
        assert self.labels.dtype == torch.int64 and self.labels.shape == self.images.shape[:1]

    KIND = ""
    """Begins the fingerprint, which sees every pixel."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of an image, (C, H, W)."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    def take(self, positions: Tensor) -> Split:
        """The images at `positions` (M,)."""
        return Split(self.images[positions], self.labels[positions])

    def content(self) -> Iterator[bytes | memoryview]:
        """What the fingerprint sees: every pixel and every label."""
        for tensor in (self.images, self.labels):
            yield repr(tuple(tensor.shape)).encode()
            yield tensor.numpy().data


Samples = Split | FileSplit
"""Labelled images, in memory or in their files."""


@dataclass(frozen=True)
class Contents:
    """How many images a data set has, and what was left out of it.

    Attributes:
        classes: the names of the labels 0, 1, ...
        image_shape: (C, H, W), of what networks see.
        train: for each class, how many training images, before any are held out or left unused.
        test: for each class, how many test images.
        passed_over: how many files were not read, by reason, such as `{"train/: unknown type (.heic)": 3}`.
        notes: sentences on what a reader of the results must know, without a full stop.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: tuple[int, ...]
    test: tuple[int, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """The training and the test images that a source loads. Both are in memory, or both stay in files.

    Attributes:
        train: the training images, before any are held out for validation.
        test: the test images.
        classes: the names of the labels 0, 1, ...
        mean: what normalisation subtracts from each channel, for pixels scaled to 0..1.
        std: what it then divides each channel by, on the same scale.
        passed_over: how many files were not read, by reason.
        notes: sentences on what a reader of the results must know, without a full stop; `contents` adds what it finds.
        resize: how images of another size were resized, bilinear and antialiased: `{"height_px": H, "width_px": W}` without regard
            to their shape, or `{"shorter_side_px": N}` before the centre was cropped. None if all have one size.

    Raises:
        KdbenchError: the training images are of one class, or a label is of none.
    """

    train: Samples
    test: Samples
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    resize: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        for split in (self.train, self.test):
            if len(split) and not 0 <= split.labels.min() <= split.labels.max() < self.num_classes:
                raise KdbenchError(
                    f"the data set has {self.num_classes} classes and labels from {split.labels.min()} to {split.labels.max()}; "
                    "number the labels from 0, and name every class in `classes`."
                )
        if len(self.train):
            refuse_one_class(self.train, "the data set", "give it images of two classes or more")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.train.image_shape

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.classes)

    @cached_property
    def contents(self) -> Contents:
        """How many images there are of each class, what was left out, and which images stand there twice."""
        train, test = (
            tuple(torch.bincount(split.labels, minlength=self.num_classes).tolist()) for split in (self.train, self.test)
        )
        notes = (*self.notes, *duplicates(self.train, self.test))
        return Contents(self.classes, self.image_shape, train, test, self.passed_over, notes)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal characters that change with any pixel, label or class name.

        Of images that stay in their files, which can be hundreds of gigabytes, they change with any file's name, size or label and
        do not see a content that changes and keeps the file's size; `names-and-sizes:` before them says so.
        """
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            for part in split.content():
                digest.update(part)
        return self.train.KIND + digest.hexdigest()[:16]


def blank(contents: Contents) -> Dataset:
    """A data set of that many images without their pixels, to see what networks and methods can be built on it."""
    channels, height, width = contents.image_shape

    def split(counts: tuple[int, ...]) -> Split:
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        return Split(torch.empty(len(labels), height, width, channels, dtype=torch.uint8, device="meta"), labels)

    mean, std = (0.0,) * channels, (1.0,) * channels
    return Dataset(split(contents.train), split(contents.test), contents.classes, mean, std)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images (N, H, W, C), on the scale 0..1.

    Raises:
        KdbenchError: a channel is constant, so that nothing can be divided by its standard deviation.
    """
    mean, std = [], []
    for channel in images.unbind(-1):
        # Sums over the histogram are sums of integers: exact, and the same on every machine.
        counts = torch.bincount(channel.flatten(), minlength=256).tolist()
        total = sum(counts)
        first = sum(value * count for value, count in enumerate(counts))
        second = sum(value * value * count for value, count in enumerate(counts))
        mean.append(first / total / 255)
        std.append(math.sqrt(second * total - first * first) / total / 255)
    if 0.0 in std:
        raise KdbenchError(
            f"channel {std.index(0.0)} has the same value in every pixel of the training images; "
            "give `mean` and `std`, or other images."
        )
    return tuple(mean), tuple(std)


def refuse_one_class(train: Samples, what: str, fix: str) -> None:
    if train.labels.min() == train.labels.max():
        raise KdbenchError(f"{what} gives training images of only one class; {fix}.")
