"""Which engine a run uses."""

from __future__ import annotations

from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.runner.engines.engine import Engine

ENGINES = ("here", "local")


def choose_engine(name: str, device: str, *, cache: Path) -> Engine | None:
    """The engine of that name; None for this process.

    Args:
        name: one of `ENGINES`; empty for this process, or for `local` where the device names several places.
        device: as `Options` describes it.
        cache: where data sets keep what is slow to compute.

    Raises:
        KdbenchError: the device cannot be had, or is none for this process.
    """
    several = device == "all" or "," in device or device.startswith("cpu:")
    if name == "here" and several:
        raise KdbenchError(f"--device: '{device}' is several devices, and the engine here uses one. Give --engine local.")
    if name in ("", "here") and not several:
        return None
    from kdbench.runner.engines.local import Local, local_places

    return Local(local_places(device), cache=cache)
