"""Randomness as a pure function: every stream is derived from what it is for, never from a shared state."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def seeded(seed: int | str, *names: int | str) -> Iterator[None]:
    """Run a block, such as a network's initialisation, under its own stream; the global state is restored after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, *names))
        yield
