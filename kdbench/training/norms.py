"""Batch norm on CUDA: torch's own kernels, never cuDNN's, so that lanes beside each other cannot hold each other up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_NORMS = ("batch_norm", "instance_norm")
"""Torch's functions that may take a kernel of cuDNN; all modules and `torch.nn.functional` call them by these names."""


@contextmanager
def norms_without_cudnn(device: torch.device) -> Iterator[None]:
    """Inside the block, batch and instance norm on a CUDA device take torch's own kernels, in whatever module they are.

    cuDNN has persistent kernels for batch norm: each of their blocks waits for the others (pytorch/pytorch#80259). Two of them, in
    graphs on two streams, can share the device so that each waits for blocks of its own that find no room, for ever.

    Torch asks for each norm whether cuDNN is on at all, and no longer looks at their argument `cudnn_enabled`. So it is off during
    these calls; convolutions keep it. What `torch.compile` makes has its own kernels for norms.
    """
    if device.type != "cuda":
        yield
        return
    originals = {name: getattr(torch, name) for name in _NORMS}
    for name, original in originals.items():
        setattr(torch, name, _without_cudnn(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(torch, name, original)


def _without_cudnn(norm: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def without(*args: Any, **options: Any) -> torch.Tensor:
        if torch.compiler.is_compiling():
            return norm(*args, **options)
        before = torch.backends.cudnn.enabled
        torch.backends.cudnn.enabled = False
        try:
            return norm(*args, **options)
        finally:
            torch.backends.cudnn.enabled = before

    return without
