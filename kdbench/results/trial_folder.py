"""A trial's folder as it lies on disk: what is in it, where the trial stands, and what is left over of its training."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.errors import KdbenchError
from kdbench.results.layout import CHECKPOINT, RECORD, REPLACED, SPEC
from kdbench.spec.record import Record
from kdbench.spec.trial import digest, teachers_in, why_foreign

STAGE_CHECKPOINT = ".checkpoint.pt"
"""Ends the name of a stage's checkpoint, where the stage's own file ends with `.pt`."""


class State(StrEnum):
    """Where a trial stands, by its folder alone."""

    DONE = "done"
    """Its record is whole, and says so."""
    FAILED = "failed"
    """Its record says why it failed."""
    STARTED = "started"
    """It has a checkpoint and no record."""
    MISSING = "missing"
    """It has neither."""
    DAMAGED = "damaged"
    """Its record cannot be read, or is another trial's."""


@dataclass(frozen=True)
class TrialFolder:
    """One folder of `trials/`.

    Attributes:
        path: where it lies; its name is the trial's id.
        files: every file in it, by its path below the folder with `/` between names. What was only half written is left out.
    """

    path: Path
    files: Mapping[str, Path]

    @property
    def trial(self) -> str:
        """The trial's id."""
        return self.path.name

    @cached_property
    def record(self) -> Record | None:
        """Its record; None where there is none that is whole and its own."""
        if RECORD not in self.files:
            return None
        try:
            record = Record.model_validate_json(self.files[RECORD].read_bytes())
        except ValidationError:
            return None
        return None if why_foreign(record, self.trial) else record

    @cached_property
    def spec(self) -> dict[str, Any] | None:
        """All that determines the trial, as JSON; None where nothing says so."""
        if self.record:
            return self.record.spec
        try:
            return dict(json.loads(self.files[SPEC].read_bytes()))
        except (KeyError, ValueError, TypeError):
            return None

    @property
    def state(self) -> State:
        """Where the trial stands."""
        if self.record:
            return State(self.record.status)
        if RECORD in self.files:
            return State.DAMAGED
        return State.STARTED if CHECKPOINT in self.files else State.MISSING

    @property
    def done(self) -> bool:
        """Whether it ended well."""
        return self.state is State.DONE

    @cached_property
    def teachers(self) -> tuple[str, ...]:
        """The ids of the trials that trained its teachers; none where it reads none, or nothing says which."""
        return tuple(map(digest, teachers_in(self.spec)))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: file.stat().st_size for name, file in self.files.items()}

    @property
    def leftovers(self) -> list[str]:
        """Files that no run needs again: set aside, or of a training that has ended or an earlier result that was replaced."""
        ended = {CHECKPOINT, REPLACED} if self.done else set()
        return [
            name
            for name in self.files
            if name.endswith(".broken")
            or name in ended
            or (name.endswith(STAGE_CHECKPOINT) and f"{name.removesuffix(STAGE_CHECKPOINT)}.pt" in self.files)
        ]


def read_folder(path: Path) -> TrialFolder:
    """The folder as it is now."""
    return TrialFolder(path, dict(sorted(_files(path))))


def trial_folders(root: Path) -> dict[str, TrialFolder]:
    """Every trial's folder of a results directory, by id, in the order of the ids.

    Raises:
        OSError: a folder cannot be read.
    """
    try:
        names = sorted(os.listdir(root / "trials"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    paths = (root / "trials" / name for name in names if not name.startswith("."))
    return {path.name: read_folder(path) for path in paths if path.is_dir()}


def find_trial(root: Path, name: str) -> TrialFolder:
    """The folder of one trial of a results directory.

    Args:
        root: the directory.
        name: the trial's id, or as much of its beginning as no other trial shares.

    Raises:
        KdbenchError: no trial's id begins so, or several do.
    """
    found = [folder for trial, folder in trial_folders(root).items() if trial.startswith(name)]
    if len(found) != 1:
        reason = f"{len(found)} trials under {root / 'trials'} begin" if found else f"no trial under {root / 'trials'} begins"
        raise KdbenchError(f"{reason} with '{name}'. See `kdbench trials list`.")
    return found[0]


def stale(folders: Mapping[str, TrialFolder]) -> set[str]:
    """Finished students of which a teacher is there with other weights than they learnt from."""
    weights = {trial: folder.record.weights_sha256 for trial, folder in folders.items() if folder.done and folder.record}
    return {
        trial
        for trial, folder in folders.items()
        if folder.done and folder.record
        for teacher, learnt_from in zip(folder.teachers, folder.record.teachers_sha256, strict=False)
        if weights.get(teacher, learnt_from) != learnt_from
    }


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    for folder, _, names in os.walk(path, onerror=_refuse, followlinks=True):
        for name in names:
            if not (name.startswith(".") and name.endswith(".partial")):
                file = Path(folder) / name
                yield file.relative_to(path).as_posix(), file


def _refuse(problem: OSError) -> None:
    raise problem
