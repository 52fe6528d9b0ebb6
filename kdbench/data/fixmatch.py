"""RandAugment as FixMatch has it: operations of any strength, then a grey square."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageDraw, ImageEnhance, ImageOps

GREY = (125, 123, 114)
"""Colour of the square; images of one channel get that of the middle."""

LARGEST_SQUARE = 0.5
"""Its largest side, as a part of the image's width."""


class FixMatch:
    """Some of 14 operations, each with a strength that is drawn uniformly, then a square of up to half the image's width.

    It draws from Python's global stream.

    Source: Sohn et al., "FixMatch", 2020, with the operations and ranges of the code of Jin et al., "Multi-level Logit
    Distillation", CVPR 2023.
    """

    def __init__(self, layers: int) -> None:
        self._layers = layers

    def __call__(self, image: Image.Image) -> Image.Image:
        for operation, lowest, highest in random.choices(_OPERATIONS, k=self._layers):
            image = operation(image, random.uniform(lowest, highest))
        return _with_square(image, side=random.uniform(0, LARGEST_SQUARE) * image.width)


def _with_square(image: Image.Image, *, side: float) -> Image.Image:
    left, top = (int(max(0.0, random.uniform(0, extent) - side / 2)) for extent in image.size)
    corner = min(image.width, left + side), min(image.height, top + side)
    image = image.copy()
    ImageDraw.Draw(image).rectangle((left, top, *corner), GREY if image.mode == "RGB" else GREY[1])
    return image


def _unchanged(image: Image.Image, _: float) -> Image.Image:
    return image


def _autocontrast(image: Image.Image, _: float) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, _: float) -> Image.Image:
    return ImageOps.equalize(image)


def _brightness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _colour(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _sharpness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(factor)


def _posterize(image: Image.Image, bits: float) -> Image.Image:
    return ImageOps.posterize(image, int(bits))


def _solarize(image: Image.Image, threshold: float) -> Image.Image:
    return ImageOps.solarize(image, threshold)  # type: ignore[arg-type]  # Pillow compares pixels with it


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees)


def _shear_x(image: Image.Image, share: float) -> Image.Image:
    return _affine(image, 1, share, 0, 0, 1, 0)


def _shear_y(image: Image.Image, share: float) -> Image.Image:
    return _affine(image, 1, 0, 0, share, 1, 0)


def _translate_x(image: Image.Image, share: float) -> Image.Image:
    return _affine(image, 1, 0, share * image.width, 0, 1, 0)


def _translate_y(image: Image.Image, share: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, share * image.height)


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


_OPERATIONS: tuple[tuple[Callable[[Any, float], Image.Image], float, float], ...] = (
    (_autocontrast, 0, 1),
    (_brightness, 0.05, 0.95),
    (_colour, 0.05, 0.95),
    (_contrast, 0.05, 0.95),
    (_equalize, 0, 1),
    (_unchanged, 0, 1),
    (_posterize, 4, 8),
    (_rotate, -30, 30),
    (_sharpness, 0.05, 0.95),
    (_shear_x, -0.3, 0.3),
    (_shear_y, -0.3, 0.3),
    (_solarize, 0, 256),
    (_translate_x, -0.3, 0.3),
    (_translate_y, -0.3, 0.3),
)
"""Each operation with its lowest and highest strength."""
