"""Batch norm on CUDA: torch's own kernels, never cuDNN's, so that lanes beside each other cannot hold each other up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_cudnn: Any = type(torch.backends.cudnn)  # a class whose attributes are properties


@contextmanager
def norms_without_cudnn(device: torch.device) -> Iterator[None]:
    """Inside the block, batch and instance norm on a CUDA device take torch's own kernels, in whatever module they are.

    cuDNN has persistent kernels for batch norm: each of their blocks waits for the others (pytorch/pytorch#80259). Two of them, in
    graphs on two streams, can share the device so that each waits for blocks of its own that find no room, for ever.

    torch's Python functions for norms ask `torch.backends.cudnn.enabled` for each call. Convolutions do not: they ask torch's C++
    side, which stays as it is. What `torch.compile` makes has its own kernels for norms.
    """
    if device.type != "cuda":
        yield
        return
    before = vars(_cudnn)["enabled"]
    _cudnn.enabled = False
    try:
        yield
    finally:
        _cudnn.enabled = before
