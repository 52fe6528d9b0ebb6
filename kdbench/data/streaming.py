"""Images that stay in their files: processes decode and augment them with torchvision while others train, each image once for
all students."""

from __future__ import annotations

import atexit
import gc
import logging
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from kdbench.data.augment import UNAUGMENTED
from kdbench.data.decode import Unreadable, read_image, unreadable_files
from kdbench.data.distortion import Distortion, Operations, distortion
from kdbench.data.file_split import FileSplit
from kdbench.data.loader import LoadBatch, LoadedBatch, Loader, LoadPlainBatch, batch_bounds, drawn_seed
from kdbench.errors import DataError
from kdbench.signals import STOPS
from kdbench.spec.augmentation import Augmentation, StrongAugmentation
from kdbench.streams import seeded

if TYPE_CHECKING:
    from torchvision.transforms import v2

log = logging.getLogger("kdbench")

PLAIN_BATCH = 100
"""Images in a batch that is not augmented: of 224x224 pixels they take 60 MB as float32, and many processes hold some."""

START_METHOD = "fork" if sys.platform == "linux" else None
"""How processes start: by Python's default where that may be unsafe, as on macOS.

It is named since Python 3.14 has another default on Linux. Forked processes share the names of the files; others import torch anew,
which takes seconds in every pass, and read the user's script first.
"""

BOTH_WAYS = ("bilinear", "bicubic")
"""Of resizing, where one of the two is chosen for each image."""


class StreamedLoader(Loader):
    """A split that is read from its files in every epoch; each image is decoded once, however many lanes train.

    As many processes decode as `FileSplit.workers` says.

    The augmentation of an image depends on the epoch's generator and on the image's index, so that any number of processes makes
    the same batches, bit for bit.
    """

    def __init__(
        self,
        files: FileSplit,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        augmentation: Augmentation = UNAUGMENTED,
        others: Sequence[FileSplit] = (),
    ) -> None:
        """`others` are the data set's other images: they are read, too, once a file cannot be, to find all such files."""
        self.device = torch.device(device)
        self.labels = files.labels.to(device)
        self._files, self._others = files, others
        self._plain = plain_transform(files)
        self._augmentation = augmentation
        self._distort = partial(distortion, mean=mean)
        self._mean, self._std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))

    def epoch(self, generator: torch.Generator, *, batch_size: int, strong: torch.Generator | None = None) -> Iterator[LoadBatch]:
        order = torch.randperm(len(self), generator=generator)
        transforms, distortions = [], []
        drawing: list[tuple[torch.Generator, Augmentation | StrongAugmentation]] = [(generator, self._augmentation)]
        if strong:
            drawing.append((strong, self._augmentation.strong))
        for draws, settings in drawing:
            seed = drawn_seed(draws)
            distort = self._distort(settings, seed=drawn_seed(draws), interpolation=_interpolation(self._augmentation))
            transforms.append((augmenting_transform(self._files, self._augmentation, then=distort.operations), seed))
            distortions.append(distort)
        bounds = batch_bounds(len(self), batch_size)
        chunks = [order[slice(*bound)].tolist() for bound in bounds]
        on_device = order.to(self.device)
        batches = self._read(_Reader(self._files, transforms), chunks)
        for (start, stop), chunk, pixels in zip(bounds, chunks, batches, strict=True):
            yield partial(self._batch, pixels, on_device[start:stop], chunk, distortions)

    def plain_batches(self) -> Iterator[LoadPlainBatch]:
        yield from self._first(len(self))

    def first(self, count: int) -> Tensor:
        return torch.cat([draw()[0] for draw in self._first(min(count, len(self)))])

    def _first(self, count: int) -> Iterator[LoadPlainBatch]:
        chunks = plain_chunks(count)
        for chunk, pixels in zip(chunks, self._read(_Reader(self._files, [(self._plain, 0)]), chunks), strict=True):
            yield partial(self._plain_batch, pixels, chunk)

    def _batch(self, pixels: Tensor, indices: Tensor, order: Sequence[int], distortions: Sequence[Distortion]) -> LoadedBatch:
        images, *strong = found = [*map(self._normalised, pixels)]
        for distort, made in zip(distortions, found, strict=True):
            distort.erase(made, indices=order)
        return LoadedBatch(images, self.labels.index_select(0, indices), indices, *strong)

    def _plain_batch(self, pixels: Tensor, chunk: range) -> tuple[Tensor, Tensor]:
        return self._normalised(pixels[0]), self.labels[chunk.start : chunk.stop]

    def _normalised(self, pixels: Tensor) -> Tensor:
        """Pixels (B, H, W, C), uint8, as images (B, C, H, W), float32, in channels-last layout."""
        from torchvision.transforms.v2 import functional as F

        images: Tensor = F.to_dtype(pixels.permute(0, 3, 1, 2), torch.float32, scale=True)
        return images.sub_(self._mean).div_(self._std)  # v2's normalize would copy mean and std to the device for every batch

    def _read(self, reader: _Reader, chunks: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Pixels (V, B, H, W, C), uint8, of each chunk of positions for the V transforms of a reader, on the device.

        Processes start anew with every pass, which takes a tenth of a second where they are forked, so that none lies idle.
        """
        on_cuda = self.device.type == "cuda"
        others = [_data_loader(_Reader(files, []), plain_chunks(len(files))) for files in self._others]
        batches = _loaded(_data_loader(reader, chunks, pin_memory=on_cuda), others)
        with _closed_at_exit(batches):
            for pixels in batches:
                yield pixels.to(self.device, non_blocking=on_cuda)


def plain_chunks(count: int) -> list[range]:
    """Positions of `count` images in batches that are not augmented."""
    return [range(start, min(start + PLAIN_BATCH, count)) for start in range(0, count, PLAIN_BATCH)]


Read = torch_data.DataLoader[Tensor | list[str]]


def _data_loader(reader: _Reader, chunks: Sequence[Sequence[int]], *, pin_memory: bool = False) -> Read:
    workers = min(reader.files.workers, len(chunks))
    return torch_data.DataLoader(
        reader,
        sampler=chunks,  # one entry is a batch
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=START_METHOD if workers else None,  # torch refuses one for no processes
        pin_memory=pin_memory,
        worker_init_fn=_leave_interrupts_to_the_main_process,
        generator=torch.Generator(),  # else it draws from the global stream
    )


def _started(loader: Read) -> Iterator[Tensor | list[str]]:
    """What the loader reads, by processes that have begun."""
    gc.freeze()  # a forked process must not free garbage that it has from this one, as `_REPLACED` tells
    try:
        with _no_signal_of_dead_workers():
            return iter(loader)
    finally:
        gc.unfreeze()


def _loaded(loader: Read, others: Sequence[Read]) -> Generator[Tensor, None, None]:
    """What the loader's processes read, in order. Once a file cannot be read, the rest and what `others` read is only read to find
    all such files.

    Raises:
        DataError: files that cannot be read, or a process was killed.
    """
    batches = _started(loader)
    problems: list[str] = []
    try:
        for pixels in batches:
            if isinstance(pixels, list):
                if not problems:
                    log.warning("cannot read %s; the run looks for other such files and then ends", pixels[0])
                problems += pixels
            elif not problems:
                yield pixels
        if problems:
            problems += [problem for other in others for read in _started(other) if isinstance(read, list) for problem in read]
    except RuntimeError as problem:
        raise DataError(
            f"a process that reads images has failed: {' '.join(str(problem).split())} Memory or /dev/shm may be full: give the "
            "data set fewer `workers`, or 0 for none. Then the same command continues; what is finished is kept."
        ) from None
    finally:
        del batches  # ends the processes now, not when the last traceback is forgotten
    if problems:
        raise unreadable_files(sorted(problems))


@contextmanager
def _closed_at_exit(batches: Generator[Tensor, None, None]) -> Iterator[None]:
    """Close them after the block, or when Python ends in the middle of it.

    A traceback may hold the block until then: that of Ctrl-C in a script. Python would ask the processes to end by the SIGTERM that
    they leave to the main process, and wait for them for ever.
    """
    atexit.register(batches.close)
    try:
        yield
    finally:
        batches.close()
        atexit.unregister(batches.close)


class _Reader(torch_data.Dataset[Tensor | list[str]]):
    """A batch's pixels for its positions (B,): uint8, (V, B, H, W, C); or which of its files cannot be read.

    Each file is decoded once for all V transforms, each of which has a seed of its own. An exception would come out of a worker
    with its traceback for a message.
    """

    def __init__(self, files: FileSplit, transforms: Sequence[tuple[v2.Transform, int]]) -> None:
        self.files = files
        self._transforms = transforms

    def __getitem__(self, positions: Sequence[int]) -> Tensor | list[str]:
        files = self.files
        pixels = np.empty((len(self._transforms), len(positions), files.size, files.size, files.channels), dtype=np.uint8)
        problems = []
        for place, position in enumerate(positions):
            try:
                image = read_image(files.path(position), channels=files.channels)
            except Unreadable as problem:
                problems.append(str(problem))
                continue
            for into, (transform, seed) in zip(pixels, self._transforms, strict=True):
                with seeded(seed, position):  # v2 draws from the global stream
                    into[place] = np.asarray(transform(image)).reshape(into.shape[1:])
        return problems or torch.from_numpy(pixels)


def plain_transform(files: FileSplit) -> v2.Transform:
    """For evaluation: the shorter side to `resize`, then the centre."""
    from torchvision.transforms import v2  # slow to import, and listing data sets must be instant

    return v2.Compose([v2.Resize(files.resize), v2.CenterCrop(files.size)])


def augmenting_transform(files: FileSplit, augmentation: Augmentation, *, then: Operations | None = None) -> v2.Transform:
    """For training, with more operations after crop and flip; without a `resized_crop` an image is cropped as in evaluation."""
    from torchvision.transforms import v2

    crop, steps = augmentation.resized_crop, []
    if crop:
        ways = BOTH_WAYS if crop.interpolation == "random" else (crop.interpolation,)
        modes = map(v2.InterpolationMode, ways)
        crops = [v2.RandomResizedCrop(files.size, scale=crop.scale, ratio=crop.ratio, interpolation=mode) for mode in modes]
        steps.append(v2.RandomChoice(crops) if len(crops) > 1 else crops[0])
    else:
        steps.append(plain_transform(files))
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if then:
        steps.append(then)
    return v2.Compose(steps)


def _interpolation(augmentation: Augmentation) -> str:
    """How an image is resized, and so what its later operations interpolate by."""
    return augmentation.resized_crop.interpolation if augmentation.resized_crop else "random"


_REPLACED: list[object] = []
"""Handlers of the main process, kept in those that read: they may hold what a library frees by its threads, such as Ray's client. A
forked process has no such threads, and to free it would be to wait for ever."""


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    """Terminals and schedulers signal every process, and the main one may go on to the end of its epoch.

    The second SIGTERM ends this one, so that the main one can end what does not listen.
    """
    for number in STOPS:
        _REPLACED.append(signal.signal(number, signal.SIG_IGN))
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    sys.excepthook = _unless_the_main_process_has_gone


def _unless_the_main_process_has_gone(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    """Tell an exception that nobody has caught, as Python does, but not that a batch was on its way when nobody wanted it more."""
    if not isinstance(problem, ConnectionError | EOFError):
        sys.__excepthook__(kind, problem, trace)


@contextmanager
def _no_signal_of_dead_workers() -> Iterator[None]:
    """A worker's death is found when a batch of it is waited for.

    The handler that torch installs would raise in the middle of whatever runs, such as a lane's step, and be taken for the
    method's failure.
    """
    if threading.current_thread() is not threading.main_thread():  # torch installs none
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
