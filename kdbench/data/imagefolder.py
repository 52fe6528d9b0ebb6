"""The data set imagefolder: images of class folders, decoded once and held in memory."""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from kdbench.data.class_folders import file_sizes
from kdbench.data.dataset import Dataset, Split, channel_statistics
from kdbench.data.decode import PIXELS, Unreadable, read_image, unreadable_files
from kdbench.data.division import refuse_division
from kdbench.data.folder_source import FolderParams, FolderSource
from kdbench.data.pixel_cache import read_images, write_images
from kdbench.data.source import register_dataset
from kdbench.errors import KdbenchError

log = logging.getLogger("kdbench")

GIB = 2**30

DARK = 64
"""Of 255; training images that are all darker are likely 16-bit ones of which fewer bits are used."""


@register_dataset("imagefolder")
class ImageFolder(FolderSource):
    """Your own images: train/<class>/* and test/<class>/* (or val/), resized to size x size and held in memory.

    Classes are numbered in the order of their folders' names, and folders below a class folder belong to the class. Where test/ and
    val/ both have class folders, test/ is used. Tiny-ImageNet is read as it is unpacked: its test/ has no labels, and those of
    val/images/* are in val_annotations.txt.

    Files of every type that Pillow opens by itself are read, except documents, drawings, films and measurements. Other files, and
    files whose names begin with a dot, are not read; they are counted.

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
                f" held in memory twice, and this machine has {memory / GIB:.1f} GiB; stream them with `name: imagestream`,"
                " or give a smaller `size`."
            )
        files = (*self.folders.train.files, *self.folders.test.files)
        if problems := file_sizes(self.root, files)[1]:
            log.warning("cannot read %s; the other images are decoded to find all such files", next(iter(problems.values())))
            self._decode(files, problems)

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

    def _decode(self, files: tuple[str, ...], known: Mapping[str, str] = {}) -> Tensor:
        """Images (N, size, size, channels), uint8.

        Args:
            known: of files that cannot be read, path and reason.

        Raises:
            DataError: these, or others that cannot be decoded; the message names them.
        """
        images = np.empty((len(files), self.params.size, self.params.size, self.params.channels), dtype=np.uint8)
        problems = []
        for place, file in enumerate(files):  # threads make it slower: small images spend their time under Python's lock
            if file in known:
                problems.append(known[file])
                continue
            try:
                images[place] = decode_file(self.root / file, size=self.params.size, channels=self.params.channels)
            except Unreadable as problem:
                problems.append(str(problem))
        if problems:
            raise unreadable_files(problems)
        return torch.from_numpy(images)


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


def decode_file(file: Path, *, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """One image (size, size, channels); exact where the file has that size already.

    Raises:
        Unreadable: as `read_image`.
    """
    image = read_image(file, channels=channels)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, channels)
