"""What the data sets imagefolder and imagestream share: where the images lie, and which there are."""

from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kdbench.data.class_folders import Folders, scan
from kdbench.data.dataset import Contents
from kdbench.data.source import Source, SourceParams


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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """As the parameters say."""
        return self.params.channels, self.params.size, self.params.size

    def contents(self) -> Contents:
        """By the names of folders and files; no image is opened."""
        classes = self.folders.classes
        train, test = (
            tuple(torch.tensor(split.labels).bincount(minlength=len(classes)).tolist())
            for split in (self.folders.train, self.folders.test)
        )
        return Contents(classes, self.image_shape, train, test, self.folders.passed_over)
