"""How fast streamed images arrive, against what the same processes can decode: `pytest tests/bench/test_stream.py`.

`extra_info` holds images per second. JPEGs are of ImageNet's usual size, 500x375, 66 kB each.
"""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from photographs import write_photographs
from PIL import Image
from torchvision.transforms import v2

from kdbench.data import FileSplit, ImageStream, StreamedLoader
from kdbench.spec.recipe import Augmentation, ResizedCrop

IMAGES, BATCH, ROUNDS = 512, 64, 5
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of them."""
    root = tmp_path_factory.mktemp("photographs")
    write_photographs(root, IMAGES)
    return root


def decode(files: list[Path]) -> None:
    """What nothing that reads these files can do without."""
    for file in files:
        with Image.open(file) as image:
            image.convert("RGB")


def decode_and_crop(files: list[Path]) -> None:
    """And what the standard augmentation costs on top."""
    augment = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()])
    for file in files:
        with Image.open(file) as image:
            augment(image.convert("RGB"))


@pytest.mark.parametrize("work", [decode, decode_and_crop])
@pytest.mark.parametrize("workers", sorted({1, CORES}))
def test_the_least_that_must_be_done(benchmark, photographs, workers, work):
    """PIL, in processes that are already there and hand nothing over."""
    files = sorted(photographs.glob("train/*/*"))
    chunks = [files[start : start + BATCH] for start in range(0, IMAGES, BATCH)]
    with multiprocessing.get_context("fork").Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        benchmark.pedantic(lambda: list(pool.imap(work, chunks)), rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info |= {"images_per_s": IMAGES / benchmark.stats["median"], "workers": workers}


@pytest.mark.parametrize("workers", sorted({1, CORES}))
def test_an_epoch_of_batches(benchmark, photographs, workers):
    """Decoded, augmented and normalised batches on the CPU, with the start of the processes."""
    params = ImageStream.Params(root=photographs, label="photographs", size=224, workers=workers)
    data = ImageStream(params, cache=photographs).load()
    augmentation = Augmentation(pad=0, resized_crop=ResizedCrop())
    assert isinstance(data.train, FileSplit)
    stream = StreamedLoader(data.train, mean=data.mean, std=data.std, device="cpu", augmentation=augmentation)

    def epoch() -> None:
        for draw in stream.epoch(torch.Generator().manual_seed(0), batch_size=BATCH):
            draw()

    benchmark.pedantic(epoch, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info |= {"images_per_s": IMAGES / benchmark.stats["median"], "workers": workers}


def test_the_start_of_an_epoch(benchmark, photographs):
    """Until the first batch, of one image, is there: what processes that are started in every epoch cost."""
    data = ImageStream(ImageStream.Params(root=photographs, label="x", size=224, workers=CORES), cache=photographs).load()
    assert isinstance(data.train, FileSplit)
    stream = StreamedLoader(data.train, mean=data.mean, std=data.std, device="cpu")
    benchmark.pedantic(lambda: next(stream.epoch(torch.Generator(), batch_size=1))(), rounds=ROUNDS, warmup_rounds=1)
