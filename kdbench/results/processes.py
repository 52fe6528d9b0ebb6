"""Processes as files name them, and whether one that a file names still runs."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """`host`, `namespace`, `pid` and `started` of this process: enough for it to be known by its number on its host."""
    return {**_host(), "pid": os.getpid(), "started": _started(os.getpid())}


def read_process(file: Path) -> dict[str, Any]:
    """The process that a file names; empty where the file is gone, or not written yet."""
    try:
        return dict(json.loads(file.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def seen_from_here(process: Mapping[str, Any]) -> bool:
    """Whether it would be seen that the process runs: it is of this host and, in containers, of this space of numbers."""
    return os.name != "nt" and _host().items() <= process.items()


def is_over(process: Mapping[str, Any]) -> bool:
    """Whether the process is seen to run no more; False where that cannot be seen."""
    if not seen_from_here(process):
        return False
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it runs, and is another user's
    return bool(process["started"]) and _started(process["pid"]) not in ("", process["started"])


def _host() -> dict[str, Any]:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return {"host": socket.gethostname(), "namespace": namespace}


def _started(pid: int) -> str:
    """When a process started, in ticks since the host did; empty where nobody tells. A number is given to many in turn."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
