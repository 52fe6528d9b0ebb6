"""Which training images are used and which are held out for validation: the same for every trial."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.data.dataset import Contents, Samples, blank, refuse_one_class
from kdbench.data.source import SourceParams
from kdbench.errors import KdbenchError
from kdbench.streams import generator


def stratified(labels: Tensor, *, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions (N - count,) that stay and positions (count,) that are drawn, each ascending.

    Each class gives its share of the drawn ones, rounded up or down: in a random order that is sorted by class, every
    (N / count)-th position is taken.
    """
    n = len(labels)
    order = torch.randperm(n, generator=generator)
    order = order[labels[order].argsort(stable=True)]
    drawn = torch.zeros(n, dtype=torch.bool)
    drawn[order[(torch.arange(count) * n + n // 2) // count]] = True
    return (~drawn).nonzero().flatten(), drawn.nonzero().flatten()


def use_some(split: Samples, *, count: int) -> Samples:
    """`count` of the training images, the same share of each class and the same for all trials; all of them where it is 0.

    Raises:
        KdbenchError: there are fewer, or those are of one class.
    """
    if not count:
        return split
    if count > len(split):
        raise KdbenchError(f"train_images: you asked for {count:,} images and there are {len(split):,}; give fewer, or 0 for all.")
    _, drawn = stratified(split.labels, count=count, generator=generator(0, "train_images"))
    used = split.take(drawn)
    refuse_one_class(used, f"train_images: {count:,}", "give more, or 0 for all")
    return used


def hold_out(split: Samples, *, fraction: float) -> tuple[Samples, Samples | None]:
    """Divide training images into those to train on and those to select with; None where `fraction` is 0.

    The division is stratified and depends on the labels and `fraction` alone, never on a trial's seed, so that all trials select
    on the same images. Sample indices are positions in the returned splits.

    Raises:
        KdbenchError: `fraction` of the images is less than one image, or leaves one class to train on.
    """
    if not fraction:
        return split, None
    count = round(fraction * len(split))
    if not count:
        raise KdbenchError(
            f"validation: {fraction} of {len(split)} training images is less than one image; give a larger fraction, or 0 for none."
        )
    stay, held = stratified(split.labels, count=count, generator=generator(0, "validation"))
    train = split.take(stay)
    refuse_one_class(train, f"validation: {fraction}", "give a smaller fraction, or 0 for none")
    return train, split.take(held)


def training_images(contents: Contents, params: SourceParams) -> int:
    """How many images `train_images` and `validation` leave to train on, before any is read.

    Raises:
        KdbenchError: as `use_some` and `hold_out`.
    """
    train, _ = hold_out(use_some(blank(contents).train, count=params.train_images), fraction=params.validation)
    return len(train)


def refuse_division(contents: Contents, params: SourceParams) -> None:
    """See that they leave images to train on; raises as `training_images`."""
    training_images(contents, params)
