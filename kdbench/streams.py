"""Randomness as a pure function: every stream is derived from what it is for, never from a shared state."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int | str, *names: int | str) -> int:
    """A seed in [0, 2**63) that depends on `seed`, on `names` and on nothing else.

    Different names give independent streams, so that adding a method, a lane or an epoch changes nobody else's.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int | str, *names: int | str) -> torch.Generator:
    """A generator on the CPU for the stream `derive(seed, *names)`."""
    return torch.Generator().manual_seed(derive(seed, *names))


def reseed(seed: int, device: torch.device | None = None) -> None:
    """Set the global streams on the CPU, torch's, Python's and NumPy's, and torch's on a CUDA `device`, the current one.

    Networks and methods draw from them.
    """
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed: it takes a stack trace where CUDA is not in use
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if device and device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def streams_kept() -> Iterator[None]:
    """The global streams on the CPU are after the block as they were before it."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def seeded(seed: int | str, *names: int | str) -> Iterator[None]:
    """Run a block, such as a network's initialisation, under its own stream; the global state is restored after it."""
    with streams_kept():
        reseed(derive(seed, *names))
        yield
