"""Image files below one folder: which there are, and what identifies them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kdbench.data.decode import PIXELS


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Labelled images that stay in their files until a batch needs them; a sample's index is its position here.

    Attributes:
        root: the folder they lie in.
        names: (N,), bytes: of each file, its path below `root`. An array, because processes that read share its memory.
        file_sizes: (N,), int64: bytes of each file.
        labels: (N,), int64.
        size: height and width in pixels of what is made of them.
        resize: pixels of the shorter side before a centre crop to `size`.
        channels: 3 for colour, 1 for grey.
        workers: how many processes decode, 0 for the training one; no result depends on it.
    """

    root: Path
    names: npt.NDArray[np.bytes_]
    file_sizes: npt.NDArray[np.int64]
    labels: Tensor
    size: int
    resize: int
    channels: Literal[1, 3]
    workers: int

    KIND = "names-and-sizes:"
    """Begins the fingerprint, which does not see what is in the files."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.size, self.size

    def path(self, position: int) -> Path:
        """Of one file."""
        return self.root / os.fsdecode(self.names[position])

    def take(self, positions: Tensor) -> FileSplit:
        """Those at `positions` (M,)."""
        chosen = positions.numpy()
        return replace(self, names=self.names[chosen], file_sizes=self.file_sizes[chosen], labels=self.labels[positions])

    def content(self) -> Iterator[bytes | memoryview]:
        """What the fingerprint sees: names, sizes and labels, and what is made of a file; never the file's content."""
        yield repr((PIXELS, self.size, self.resize, self.channels)).encode()
        yield b"\0".join(self.names.tolist())
        yield self.file_sizes.data
        yield self.labels.numpy().data
