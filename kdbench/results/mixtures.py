"""What a merge brings together that no table shows side by side: finished trials of other code, precision, recipe or data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path

from kdbench.results.layout import RECORD
from kdbench.results.trial_folder import TrialFolder
from kdbench.spec.record import Record


class Kind(StrEnum):
    """What trials of one table must have in common."""

    CODE = "code"
    PRECISION = "precision"
    RECIPE = "recipe"
    DATA = "settings of the data"


_APART: Mapping[Kind, tuple[Callable[[Record], object], Callable[[Record], object]]] = {
    Kind.CODE: (lambda record: (record.method, record.student), lambda record: record.method_code),
    Kind.PRECISION: (lambda record: (), lambda record: record.precision),
    Kind.RECIPE: (lambda record: (record.dataset, record.student), lambda record: record.recipe),
    Kind.DATA: (lambda record: record.dataset, lambda record: json.dumps(record.spec["dataset"], sort_keys=True)),
}
"""Within which groups of trials, and what must be one there; `report.comparable` refuses a table where it is not."""


@dataclass(frozen=True)
class Mixture:
    """Finished trials of two directories that differ in what a table must have in common.

    Attributes:
        first: the directory of those that were there before.
        other: the directory of those that come beside them.
    """

    kind: Kind
    first: Path
    there: tuple[Record, ...]
    other: Path
    coming: tuple[Record, ...]


def mixtures(folders: Iterable[TrialFolder], roots: Sequence[Path]) -> tuple[Mixture, ...]:
    """Which of the directories bring something else than the first one has that has anything to compare with.

    Args:
        folders: of one directory as it will be, each with its files where they lie now.
        roots: where these lie, in the order in which they come.
    """
    done = [(folder.files[RECORD].parents[2], folder.record) for folder in folders if folder.done and folder.record]
    done.sort(key=lambda found: roots.index(found[0]))
    mixed: dict[tuple[Kind, Path, Path], tuple[list[Record], list[Record]]] = {}
    for kind, (within, value) in _APART.items():
        groups: dict[object, list[tuple[Path, Record]]] = {}
        for root, record in done:
            groups.setdefault(within(record), []).append((root, record))
        for group in groups.values():
            by_root = {root: [record for _, record in found] for root, found in groupby(group, key=lambda found: found[0])}
            (first, there), *later = by_root.items()
            known = {value(record) for record in there}
            for root, records in later:
                if coming := [record for record in records if value(record) not in known]:
                    before, after = mixed.setdefault((kind, first, root), ([], []))
                    before += there
                    after += coming
    return tuple(
        Mixture(kind, first, tuple(there), other, tuple(coming)) for (kind, first, other), (there, coming) in mixed.items()
    )
