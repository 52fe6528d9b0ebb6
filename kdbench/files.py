"""Files on disk: written whole or not at all, and set aside by name where they cannot be used."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def written(file: Path, *, writer: str = "", durable: bool = True) -> Iterator[Path]:
    """Where to write a file, so that it appears whole or not at all: at the end of the block it is on the disk, under its name.

    The umask says who may read it, whatever the library that writes it would say.

    Args:
        file: its name; folders above it are made.
        writer: tells processes apart that may write the file at the same time.
        durable: whether it must outlive a power cut, which costs more.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}{writer and '.'}{writer}.partial")
    partial.unlink(missing_ok=True)  # of a process that was killed, and may have been another user's
    partial.touch()
    mode = partial.stat().st_mode
    try:
        yield partial
        if durable:
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
        if partial.stat().st_mode != mode:  # file systems without modes refuse to change them
            partial.chmod(mode)
        os.replace(partial, file)
    except BaseException as problem:
        partial.unlink(missing_ok=True)
        if isinstance(problem, OSError) and problem.filename is None:  # a full disk does not say which
            problem.filename = str(file)
        raise


def write_bytes(file: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that it appears whole or not at all; `durable` as for `written`."""
    with written(file, durable=durable) as partial:
        partial.write_bytes(data)
