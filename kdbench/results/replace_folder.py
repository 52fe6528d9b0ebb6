"""A trial's folder put in place whole, or taken away whole: killed at any moment, what was there before is there or the new one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kdbench.files import written

STAGED, BEFORE, REMOVED = ".new", ".before", ".removed"
"""Ends the name of a hidden folder beside a trial's: one that is not complete yet, one to be replaced, one to be removed."""


def put_folder(folder: Path, files: Mapping[str, Path]) -> None:
    """Make a folder of copies of `files`, by their paths below it, in the place of the one that is there."""
    staged, before = _beside(folder, STAGED), _beside(folder, BEFORE)
    staged.mkdir()  # `finish_interrupted` took away what was half done
    for name, file in files.items():
        _copy(file, staged / name)
    if folder.exists():
        os.rename(folder, before)
    os.rename(staged, folder)
    with suppress(OSError):  # `finish_interrupted` takes away what is left of it
        _delete(before)


def put_files(folder: Path, files: Mapping[str, Path]) -> None:
    """Copy files into a folder; each appears whole or not at all."""
    for name, file in files.items():
        with written(folder / name) as partial:
            _copy(file, partial)


def remove_folder(folder: Path) -> None:
    """Take a folder away."""
    removed = _beside(folder, REMOVED)
    os.rename(folder, removed)
    _delete(removed)


def finish_interrupted(trials: Path) -> None:
    """Set right what a process left that was killed meanwhile. Hold the directory."""
    for hidden in trials.glob(".*"):
        folder = hidden.with_name(hidden.stem.removeprefix("."))
        if hidden.suffix == BEFORE and not folder.exists():
            os.rename(hidden, folder)
        elif hidden.suffix in (STAGED, BEFORE, REMOVED):
            _delete(hidden)


def _delete(folder: Path) -> None:
    """Delete a folder, or a link to one: what it points to stays."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}{suffix}")


def _copy(file: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
