"""The data set imagestream: images of class folders that stay in their files and are read anew in every epoch."""

import os
import sys
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from kdbench.data.class_folders import Listing, file_sizes
from kdbench.data.dataset import Dataset
from kdbench.data.decode import unreadable_files
from kdbench.data.division import refuse_division
from kdbench.data.file_split import FileSplit
from kdbench.data.folder_source import FolderParams, FolderSource
from kdbench.data.source import register_dataset

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images, as torchvision's classification presets and weights have them."""


@register_dataset("imagestream")
class ImageStream(FolderSource):
    """Your own images, more than memory holds: folders as for imagefolder, read anew in every epoch by processes of their own.

    For training, an image is cropped as the recipe's `augmentation.resized_crop` says. For evaluation, and for training without
    one, its shorter side is resized to `resize`, bilinear and antialiased, and the centre is cropped.

    Images are known by their names and sizes in bytes: a file that changes and keeps its size is not noticed.
    """

    streams = True

    class Params(FolderParams):
        resize: PositiveInt = Field(default_factory=lambda given: round(given.get("size", 1) * 8 / 7))
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
    def files(self) -> tuple[FileSplit, FileSplit]:
        """Of the training and of the test images, looked at once.

        Raises:
            DataError: files that are empty, gone or not to be read; the message names them.
        """
        train, test = self.folders.train, self.folders.test
        found, problems = file_sizes(self.root, (*train.files, *test.files))
        if problems:
            raise unreadable_files(list(problems.values()))
        sizes = np.array(found)
        return self._files(train, sizes[: len(train.files)]), self._files(test, sizes[len(train.files) :])

    def _files(self, listing: Listing, sizes: npt.NDArray[np.int64]) -> FileSplit:
        return FileSplit(
            root=self.root,
            names=np.array([os.fsencode(file) for file in listing.files]),
            file_sizes=sizes,
            labels=torch.tensor(listing.labels),
            size=self.params.size,
            resize=self.params.resize,
            channels=self.params.channels,
            workers=self.params.workers,
        )


def usable_cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
