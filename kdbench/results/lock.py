"""One writer for a directory: a lock that tells who holds it, with or without `flock`."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.results.processes import is_over, read_process, seen_from_here, this_process

_NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What a file system says that has no `flock`, as Lustre and NFS may be mounted."""

Holder = dict[str, Any]
"""Of a process: `host`, `namespace`, `pid`, `started`, `since`, and whether it holds `flock`, too; empty where it is not known."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder for this process until the block ends.

    `.writer` names the process. It is there as long as the block, and outlives a process that is killed. Such a one is taken over
    where the process is known to be dead: by `flock` of `.lock`, which ends with its process, or by its number on this host.

    Raises:
        KdbenchError: another process holds it.
        OSError: nothing can be written there.
    """
    marker = folder / ".writer"
    with (folder / ".lock").open("a") as lock:
        flock = _flock(lock.fileno())
        if flock is False:
            raise _refused(folder, read_process(marker))
        if flock:
            os.register_at_fork(after_in_child=lock.close)  # a process that reads images must not hold it after this one's death
        this = _this_process(flock=bool(flock))
        _take(marker, this)
        try:
            yield
        finally:
            if read_process(marker) == this:
                marker.unlink()


def refuse_being_written(folder: Path) -> None:
    """See that nobody writes to a folder that is only read; nothing is written there.

    Raises:
        KdbenchError: another process holds it, or nobody can tell.
    """
    marker = folder / ".writer"
    if not (holder := read_process(marker)):
        return
    try:
        with (folder / ".lock").open() as lock:
            flock = _flock(lock.fileno(), shared=True)
    except FileNotFoundError:  # of a copy without hidden files
        flock = None
    if flock is False or not _over(holder, flock=bool(flock)):
        raise _refused(folder, holder, seen=flock is False or seen_from_here(holder))


def _flock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock the file. False where another process has done so, None where there is no `flock`."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno in _NO_FLOCK:
            return None
        if problem.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _take(marker: Path, this: Holder) -> None:
    """Put this process into the marker, in the place of a dead one if need be."""
    try:
        with marker.open("x") as file:
            file.write(json.dumps(this))
        return
    except FileExistsError:
        other = read_process(marker)
    if not _over(other, flock=this["flock"]):
        raise _refused(marker.parent, other, seen=seen_from_here(other))
    # Of several that find one dead process, one makes this file, and nobody else replaces the marker meanwhile.
    claim = marker.with_name(f"{marker.name}.{sha256(json.dumps(other).encode()).hexdigest()[:8]}")
    try:
        claim.open("x").close()
    except FileExistsError:
        raise _refused(marker.parent, {}, seen=False, file=claim) from None
    try:
        if (now := read_process(marker)) != other:
            raise _refused(marker.parent, now)
        partial = marker.with_name(f"{claim.name}.partial")
        partial.write_text(json.dumps(this))
        os.replace(partial, marker)
    finally:
        claim.unlink()


def _this_process(*, flock: bool) -> Holder:
    since = datetime.now().astimezone().isoformat(" ", "minutes")
    return {**this_process(), "since": since, "flock": flock}


def _over(holder: Holder, *, flock: bool) -> bool:
    """Whether the process that stands in the marker is known to write no more; `flock` where we have that."""
    return (flock and holder.get("flock", True)) or is_over(holder)


def _refused(folder: Path, holder: Holder, *, seen: bool = True, file: Path | None = None) -> KdbenchError:
    text = ": process {pid} on {host}, since {since}".format(**holder) if holder else ""
    out = "" if seen else f" Whether it still runs cannot be seen from here: if it does not, delete {file or folder / '.writer'}."
    return KdbenchError(
        f"another kdbench is writing to {folder}{text}. Wait for it, or choose another directory with --results.{out}"
    )
