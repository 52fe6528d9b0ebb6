"""Files on disk: written whole or not at all, and set aside by name where they cannot be used."""

import logging
import os
from pathlib import Path

log = logging.getLogger("kdbench")


def set_aside(file: Path, reason: str) -> None:
    """Rename a file that cannot be used and say so; the last one of each name is kept."""
    aside = file.with_name(file.name + ".broken")
    try:
        os.replace(file, aside)
        then = f"It was set aside as {aside.name}."
    except OSError as problem:  # whoever only reads can do without it
        then = f"It stays there, since it cannot be renamed ({problem.strerror})."
    log.warning("%s cannot be used: %s. %s", file, reason, then)


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, file)
