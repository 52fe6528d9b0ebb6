"""Scikit-learn's handwritten digits: small enough to try anything in seconds, and never downloaded."""

import torch

from kdbench.data.dataset import Contents, Dataset, Split
from kdbench.data.division import refuse_division, stratified
from kdbench.data.source import Source, register_dataset
from kdbench.streams import generator

CONTENTS = Contents(
    classes=tuple("0123456789"),
    image_shape=(1, 8, 8),
    train=(142, 146, 141, 147, 144, 146, 145, 143, 139, 144),
    test=(36, 36, 36, 36, 37, 36, 36, 36, 35, 36),
)
MEAN, STD = (0.3052369878013836,), (0.3758145190257872,)
"""Of the training images."""


@register_dataset("digits")
class Digits(Source):
    """Scikit-learn's handwritten digits: 1,437 training and 360 test images of 8x8x1, 10 classes; nothing to download.

    The set comes undivided. Its test images are drawn once, stratified, from a stream of their own; no trial's seed moves them.
    """

    def check(self) -> None:
        """The images ship with scikit-learn and cannot be missing; see that they can be divided as the parameters say."""
        refuse_division(CONTENTS, self.params)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Known without looking."""
        return CONTENTS.image_shape

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Known without looking."""
        return MEAN, STD

    def contents(self) -> Contents:
        """Known without looking."""
        return CONTENTS

    def load(self) -> Dataset:
        from sklearn.datasets import load_digits  # slow to import, and listing data sets must be instant

        digits = load_digits()
        images = torch.from_numpy(digits.images)[..., None].mul(255 / 16).round().to(torch.uint8)  # 0..16 to 0..255
        labels = torch.from_numpy(digits.target).long()
        train, test = stratified(labels, count=sum(CONTENTS.test), generator=generator(0, "digits"))
        return Dataset(
            train=Split(images[train], labels[train]),
            test=Split(images[test], labels[test]),
            classes=CONTENTS.classes,
            mean=MEAN,
            std=STD,
        )
