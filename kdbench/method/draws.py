"""Many random numbers from one, made where they are used."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""Constants of SplitMix64, as signed numbers of 64 bits, whose products torch wraps."""


def uniform_integers(seed: Tensor, shape: Sequence[int]) -> Tensor:
    """Integers from 0 to 2^31 - 1, int64, of this shape on the device of the seed (), int64: the same ones on every device.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; the upper half of SplitMix64, as
    https://prng.di.unimi.it/splitmix64.c has it.
    """
    state = torch.arange(1, math.prod(shape) + 1, device=seed.device).mul_(GOLDEN).add_(seed)
    for bits, factor in ((30, FIRST), (27, SECOND)):
        state.bitwise_xor_(_shifted(state, bits)).mul_(factor)
    return _shifted(state, 33).view(*shape)  # the last step of SplitMix64 changes lower bits alone


def _shifted(state: Tensor, bits: int) -> Tensor:
    """To the right, with zeros coming in, where torch's own shift keeps the sign."""
    return (state >> bits).bitwise_and_(2 ** (64 - bits) - 1)
