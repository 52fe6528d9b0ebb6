"""Where a data set comes from: the interface of a source and its parameters, and the registry of sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from pydantic import Field, NonNegativeInt

from kdbench.data.dataset import Contents, Dataset
from kdbench.data.distortion import lacking_library
from kdbench.registry import Registry
from kdbench.spec.recipe import Augmentation, Spec


class SourceParams(Spec):
    """Base of every data set's parameters.

    They are part of a trial, except paths: declare a path with `Field(exclude=True)`. The text under a field is what
    `kdbench show dataset` says of it.
    """

    label: str = ""
    """The name that tables show. The name of the data set unless given."""
    validation: float = Field(0.0, ge=0, le=0.5)
    """Fraction of the training images that is held out to select with, at most 0.5. 0 holds out none."""
    train_images: NonNegativeInt = 0
    """How many of the training images are used, the same share of each class. 0 uses all."""


class Source(ABC):
    """Base of all data sets. The first line of the docstring of a data set describes it in `kdbench list datasets`.

    Attributes:
        params: the parameters of this instance.
        cache: a folder for what is slow to compute. It need not exist yet.
        streams: whether images stay in their files, so that `load` gives `FileSplit`.
    """

    streams: ClassVar[bool] = False
    Params: ClassVar[type[SourceParams]] = SourceParams
    params: SourceParams

    def __init__(self, params: SourceParams, *, cache: Path) -> None:
        self.params = params
        self.cache = cache

    @abstractmethod
    def check(self) -> None:
        """Look, before any training, for what would make `load` fail. It must be quick, and download nothing.

        Raises:
            KdbenchError: the data set cannot be loaded. The message gives the path and the fix.
        """

    @property
    def to_download(self) -> str | None:
        """What `load` would download first, and where that is looked for: a sentence without a full stop. The default is None:
        nothing.
        """
        return None

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of what networks see, as far as the parameters tell it, so that a suite can be held to it when it is read.

        The default is None: only `contents` or `load` can say.
        """
        return None

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel that normalise pixels of 0..1, as far as they are known without loading any.

        The default is None: only `load` can say.
        """
        return None

    def contents(self) -> Contents | None:
        """How many images there are of each class, without decoding or downloading any. The default is None: only `load` can say.

        Raises:
            KdbenchError: as `check`.
        """
        return None

    @abstractmethod
    def load(self) -> Dataset:
        """Load the data set. The same files must give the same data set in every trial.

        Raises:
            KdbenchError: files are missing or damaged. The message names them.
        """


DATASETS: Registry[type[Source]] = Registry("data set", "datasets")
register_dataset = DATASETS.register


def unsuited(augmentation: Augmentation, source: type[Source]) -> str | None:
    """Why images of this source cannot be augmented so, and the fix; None where they can."""
    for settings in (augmentation.rand_augment, augmentation.strong.rand_augment):
        if lacking := lacking_library(settings):
            return lacking
    if augmentation.resized_crop and not source.streams:
        return (
            "`resized_crop` needs streamed images, and these are held in memory. Give `resized_crop: null` and a `pad`, or stream "
            "image files: `dataset: {name: imagestream, ...}`."
        )
    if augmentation.pad and source.streams:
        return (
            "streamed images come in any size, so they are not padded. Give `pad: 0` and, for the usual crop, "
            "`resized_crop: {scale: [0.08, 1]}`."
        )
    return None
