"""What a recipe's `precision` comes to on a device: how float32 is computed, autocast, and the layout that is fastest with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kdbench.errors import KdbenchError
from kdbench.spec.recipe import Recipe

_backends: Any = torch.backends  # of which some attributes have no types


@cache
def has_tf32(device: torch.device) -> bool:
    """Whether the device can round the operands of float32 to TF32: NVIDIA's GPUs from Ampere on."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_tf32_supported()


def used_precision(precision: str, device: torch.device) -> str:
    """What a recipe's `precision` comes to on a device: `default` and `tf32` are fp32 where it has no TF32."""
    if precision in ("default", "tf32") and not has_tf32(device):
        return "fp32"
    return "tf32 in convolutions" if precision == "default" else precision


def without_effect(recipes: Iterable[Recipe], device: torch.device) -> list[KdbenchError]:
    """What some recipes ask for and has no effect on a device."""
    if device.type == "cuda" or all(recipe.precision != "tf32" for recipe in recipes):
        return []
    return [KdbenchError("precision tf32 has no effect on the CPU. Choose default, fp32 or bf16, or a CUDA device.")]


def used_arithmetic(recipe: Recipe, device: torch.device) -> str:
    """What really rounds the numbers of a training on a device, for its record: `Recipe.arithmetic` with what it comes to there."""
    return recipe.arithmetic.replace(recipe.precision, used_precision(recipe.precision, device))


def memory_format(device: torch.device, *, precision: str) -> torch.memory_format:
    """The layout of networks and batches: on CUDA NCHW for strict fp32, as was measured; channels-last for all else.

    NCHW lanes beside each other need batch norms whose kernels do not wait, as `exact` gives them.
    """
    strict = device.type == "cuda" and used_precision(precision, device) == "fp32"
    return torch.contiguous_format if strict else torch.channels_last


def arranged(images: Tensor, *, precision: str) -> Tensor:
    """Images (B, C, H, W) in the layout of the networks that take them; from the data they come in channels-last."""
    wanted = memory_format(images.device, precision=precision)
    # `to` looks at the strides, as kernels do; `contiguous` finds nothing to do for images of one channel.
    return images if wanted is torch.channels_last else images.to(memory_format=wanted)


_PLACES: tuple[Any, ...] = (
    *(_backends, _backends.cudnn, _backends.cudnn.conv, _backends.cudnn.rnn, _backends.cuda.matmul),
    *(_backends.mkldnn.conv, _backends.mkldnn.rnn, _backends.mkldnn.matmul),
)
"""Where torch keeps how float32 is computed, from the general to the special; one without its own setting has that above it."""


@contextmanager
def float32_as(precision: str) -> Iterator[None]:
    """Float32 as a recipe's `precision` says inside the block, whatever the process has set; its own settings after it.

    TF32 is of CUDA alone, so that these settings change nothing on the CPU.
    """
    wished, before = [place.fp32_precision for place in _PLACES], []
    try:
        for place in _PLACES:
            before.append(place.fp32_precision)
            place.fp32_precision = "none"
        # torch's compiler reads the older switches, which fail where the newer ones alone were set.
        torch.backends.cudnn.allow_tf32 = precision in ("default", "tf32")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        yield
    finally:
        _, _, convolutions, _, products, *_, products_on_cpu = before
        torch.backends.cudnn.allow_tf32 = convolutions == "tf32"
        fast = "medium" if products_on_cpu == "bf16" else "high"
        torch.set_float32_matmul_precision(fast if products == "tf32" else "highest")
        for place, setting in zip(_PLACES, before, strict=True):
            place.fp32_precision = setting
        for place, setting in zip(_PLACES, wished, strict=True):  # where what stood above one spoke for it
            if place.fp32_precision != setting:
                place.fp32_precision = setting


def autocast(device: torch.device, *, precision: str) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where the precision says so."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
