"""Taking trials out of a results directory, and what no run needs again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.results.replace_folder import remove_folder
from kdbench.results.trial_folder import TrialFolder


@dataclass(frozen=True)
class Cleaning:
    """What would be removed.

    Attributes:
        folders: of trials, whole.
        files: of trials that stay.
        orphans: finished students that stay, and of which a teacher goes.
    """

    folders: tuple[TrialFolder, ...]
    files: tuple[Path, ...]
    orphans: tuple[TrialFolder, ...]

    @property
    def size(self) -> int:
        """Bytes that become free."""
        return sum(sum(folder.sizes.values()) for folder in self.folders) + sum(file.stat().st_size for file in self.files)

    def within(self, shown: Cleaning) -> bool:
        """Whether it removes nothing else than the one that was shown, of trials that stand as they did."""
        states = {(folder.trial, folder.state) for folder in shown.folders}
        return {(folder.trial, folder.state) for folder in self.folders} <= states and {*self.files} <= {*shown.files}


def removal(held: Mapping[str, TrialFolder], trials: Iterable[TrialFolder]) -> Cleaning:
    """Without these trials."""
    folders = tuple(trials)
    return Cleaning(folders, (), _orphans(held, folders))


def pruning(held: Mapping[str, TrialFolder], *, used: Collection[str] | None = None) -> Cleaning:
    """Without leftovers and, where it is given which trials are `used`, without the others."""
    folders = tuple(folder for folder in held.values() if used is not None and folder.trial not in used)
    gone = {folder.trial for folder in folders}
    kept = (folder for folder in held.values() if folder.trial not in gone)
    files = tuple(folder.files[name] for folder in kept for name in folder.leftovers)
    return Cleaning(folders, files, _orphans(held, folders))


def clean(cleaning: Cleaning) -> None:
    """Remove it. Hold `Store.writing` since before it was planned."""
    for folder in cleaning.folders:
        remove_folder(folder.path)
    for file in cleaning.files:
        file.unlink()


def _orphans(held: Mapping[str, TrialFolder], gone: Sequence[TrialFolder]) -> tuple[TrialFolder, ...]:
    names = {folder.trial for folder in gone}
    return tuple(folder for folder in held.values() if folder.done and names & {*folder.teachers} and folder.trial not in names)
