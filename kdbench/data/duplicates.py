"""Images that stand in a data set more than once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdbench.data.file_split import FileSplit

if TYPE_CHECKING:
    from kdbench.data.dataset import Samples

BLOCK = 4096
"""Bytes from the middle of a file, which tell nearly all files of one size apart."""

READERS, CHUNK = 16, 256
"""Threads that read, since a disk far away answers slowly, and how many files each takes at once."""

Keys = dict[int, Hashable]
"""By the positions of images, what is equal for equal images alone."""


def duplicates(train: Samples, test: Samples) -> Iterator[str]:
    """Sentences on test images that are training images, too, and on equal training images with several labels.

    Images in memory are equal if their pixels are, and files if their bytes are. Only files of a size that both splits have are
    opened, and a block of each is read first, so that nothing is said of equal training files.
    """
    if isinstance(train, FileSplit) and isinstance(test, FileSplit):
        train_keys, test_keys = _of_equal_files(train, test)
    else:
        train_keys, test_keys = _of_pixels(train), _of_pixels(test)
    train_labels, test_labels = train.labels.tolist(), test.labels.tolist()
    labels: defaultdict[Hashable, set[int]] = defaultdict(set)
    for position, key in train_keys.items():
        labels[key].add(train_labels[position])
    shared = {position: labels[key] for position, key in test_keys.items() if key in labels}
    if shared:
        differ = sum(known != {test_labels[position]} for position, known in shared.items())
        text = f", {differ:,} of them with another label" if differ else ""
        if len(shared) == 1:
            text = " with another label" if differ else ""
        are = "is" if len(shared) == 1 else "are"
        yield f"{len(shared):,} of {len(test):,} test images {are} identical to a training image{text}"
    several = 0 if isinstance(train, FileSplit) else sum(len(labels[key]) > 1 for key in train_keys.values())
    if several:
        yield f"{several:,} of {len(train):,} training images are identical to one with another label"


def _of_pixels(split: Samples) -> Keys:
    assert not isinstance(split, FileSplit)
    return {position: hashlib.sha256(image.data).digest() for position, image in enumerate(split.images.numpy())}


def _of_equal_files(train: FileSplit, test: FileSplit) -> tuple[Keys, Keys]:
    """Of the files that both have."""
    both: set[Hashable] = set(np.intersect1d(train.file_sizes, test.file_sizes).tolist())
    keys: list[Keys] = [dict(enumerate(files.file_sizes.tolist())) for files in (train, test)]
    for digest in (_block_digest, _file_digest):
        chosen = [[position for position, key in found.items() if key in both] for found in keys]
        keys = [_read(files, positions, digest) for files, positions in zip((train, test), chosen, strict=True)]
        both = {*keys[0].values()} & {*keys[1].values()}
    return keys[0], keys[1]


def _read(files: FileSplit, positions: list[int], digest: Callable[[Path], bytes]) -> Keys:
    chunks = [positions[start : start + CHUNK] for start in range(0, len(positions), CHUNK)]
    with ThreadPoolExecutor(READERS) as pool:
        digests = pool.map(lambda chunk: [digest(files.path(position)) for position in chunk], chunks)
        return dict(zip(positions, chain.from_iterable(digests), strict=True))


def _block_digest(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - BLOCK) // 2)
        return hashlib.sha256(opened.read(BLOCK)).digest()


def _file_digest(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
