"""Which workers `--device` means on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdbench.errors import KdbenchError

MOST_THREADS = 4
"""CPUs of a worker that trains on the CPU, at most."""


@dataclass(frozen=True)
class Wish:
    """Which workers are wanted.

    Attributes:
        threads: of a worker on the CPU; None of one on a GPU.
        most: how many; None for as many as the cluster has room for.
    """

    threads: int | None
    most: int | None

    def workers(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """How many workers there are to be. There is to be one at least: a cluster may grow for it."""
        return self.most or max(1, self.room(nodes))

    def room(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """For how many workers there is room."""
        unit, each = ("CPU", self.threads) if self.threads else ("GPU", 1)
        return sum(int(node.get(unit, 0)) // each for node in nodes)


def wished(device: str, nodes: Sequence[Mapping[str, float]]) -> Wish:
    """The workers that `--device` means on a cluster.

    CPU workers have equally many threads wherever they are, since the last bits of a result depend on them.

    Raises:
        KdbenchError: it means none.
    """
    kind, _, number = device.partition(":")
    if device in ("auto", "all"):
        kind = "cuda" if any(node.get("GPU") for node in nodes) else "cpu"
    elif kind not in ("cpu", "cuda") or (kind == "cuda" and device != "cuda") or (device != kind and not number.isdecimal()):
        raise KdbenchError(f"--device: '{device}' cannot be chosen: Ray gives the GPUs out. Choose auto, cuda, cpu or cpu:2.")
    if kind == "cuda":
        return Wish(None, None)
    most = int(number) if number else None
    if most == 0:
        raise KdbenchError(f"--device: '{device}' is no worker at all. Write cpu:2 for two of them.")
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1] or [1]
    return Wish(max(1, min(MOST_THREADS, *cpus, sum(cpus) // (most or 1))), most)
