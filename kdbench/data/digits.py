"""Scikit-learn's handwritten digits: small enough to try anything in seconds, and never downloaded."""

import torch

from kdbench.data.dataset import Dataset, Source, Split, channel_statistics, register_dataset, stratified
from kdbench.streams import generator

TEST_IMAGES = 360


@register_dataset("digits")
class Digits(Source):
    """Scikit-learn's handwritten digits: 1,437 training and 360 test images of 8x8x1, 10 classes; nothing to download.

    The set comes undivided. Its test images are drawn once, stratified, from a stream of their own; no trial's seed moves them.
    """

    def check(self) -> None:
        """Nothing can be missing: the images ship with scikit-learn."""

    def load(self) -> Dataset:
        from sklearn.datasets import load_digits  # slow to import, and listing data sets must be instant

        digits = load_digits()
        images = torch.from_numpy(digits.images)[..., None].mul(255 / 16).round().to(torch.uint8)  # 0..16 to 0..255
        labels = torch.from_numpy(digits.target).long()
        train, test = stratified(labels, count=TEST_IMAGES, generator=generator(0, "digits"))
        mean, std = channel_statistics(images[train])
        return Dataset(
            train=Split(images[train], labels[train]),
            test=Split(images[test], labels[test]),
            classes=tuple(str(name) for name in digits.target_names),
            mean=mean,
            std=std,
        )
