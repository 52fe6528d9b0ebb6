"""Which engine a run uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.runner.engines.engine import Engine

ENGINES = ("here", "local", "ray")


def choose_engine(name: str, device: str, *, address: str, cache: Path, say: Callable[[str], None]) -> Engine | None:
    """The engine of that name; None for this process.

    Args:
        name: one of `ENGINES`; empty for this process, or for `local` where the device names several places.
        device: as `Options` describes it.
        address: of the cluster, for `ray`.
        cache: where data sets keep what is slow to compute; each machine of a cluster has its own.
        say: is told what a user must know of the choice.

    Raises:
        KdbenchError: the device cannot be had, or is none for this process.
    """
    if address and name != "ray":
        raise KdbenchError(f"--address: '{address}' is of a Ray cluster. Give --engine ray with it.")
    if name == "ray":
        from kdbench.runner.engines.ray import Ray

        return Ray(device, address=address, say=say)
    several = device == "all" or "," in device or device.startswith("cpu:")
    if name == "here" and several:
        raise KdbenchError(f"--device: '{device}' is several devices, and the engine here uses one. Leave --engine here out.")
    if name in ("", "here") and not several:
        return None
    from kdbench.runner.engines.local import Local, local_places
    from kdbench.suite.plugins import OwnFiles

    return Local(local_places(device), cache=cache, plugins=OwnFiles.loaded())
