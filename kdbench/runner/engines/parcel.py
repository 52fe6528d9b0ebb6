"""Files of a job's folder on their way between machines that share no file system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kdbench.files import write_bytes
from kdbench.results.layout import RECORD

Files = Mapping[str, bytes | None]
"""What stands in files, by their paths from the folder; None of a file that is gone."""


def contents(folder: Path) -> dict[str, Path]:
    """The whole files of the trials in a job's folder, by their paths from it."""
    found = (Path(place, name) for place, _, names in os.walk(folder / "trials") for name in names if not name.startswith("."))
    return {str(file.relative_to(folder)): file for file in found}


def unpack(files: Files, folder: Path) -> None:
    """Write files into a folder, each whole, records last: where there is a record, its trial's folder is complete."""
    for name, data in sorted(files.items(), key=lambda item: Path(item[0]).name == RECORD):
        if data is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_bytes(folder / name, data)


class Watch:
    """Knows which files of a job's folder the other side has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._now()

    def changes(self, trial: str = "") -> Files:
        """What has changed since the last call, of one trial or of all."""
        under, now = f"trials/{trial}/" if trial else "", self._now()
        changed: dict[str, bytes | None] = {}
        for name in sorted(self._known.keys() | now.keys()):
            if name.startswith(under) and self._known.get(name) != now.get(name):
                try:
                    changed[name] = (self._folder / name).read_bytes() if name in now else None
                except FileNotFoundError:  # it went just now: the next call tells
                    now.pop(name)
        self._known = {name: state for name, state in self._known.items() if name not in changed} | {
            name: now[name] for name in changed if name in now
        }
        return changed

    def _now(self) -> dict[str, tuple[int, int]]:
        """Of each file what tells it from one that has taken its place."""
        found = {}
        for name, file in contents(self._folder).items():
            try:
                state = file.stat()
            except FileNotFoundError:
                continue
            found[name] = (state.st_ino, state.st_mtime_ns)
        return found
