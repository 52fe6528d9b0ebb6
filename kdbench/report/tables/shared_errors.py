"""Which test images methods get wrong together, and how they err beside the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.differences import wrong_images
from kdbench.report.statistics import agreement
from kdbench.report.tables.cells import method_row, on_data, pair_heading, percent
from kdbench.report.tables.table import Cell, Row, Table

Bits = NDArray[np.bool_]

_SEEDS = "Counted over the seeds that all methods of the pair share."


def shared_errors_table(comparison: Comparison) -> Table | None:
    """Of the test images that a row's method gets wrong, the share that a column's method with the same seed gets wrong, too.

    None where it is not known which images were wrong.
    """
    shares = {pair.name: agreement.shared_errors(_aligned(comparison, pair)) for pair in comparison.pairs}
    labels = [label for label in comparison.labels if any(label in found for found in shares.values())]
    rows = [row for pair in comparison.pairs for row in _rows(comparison, pair, shares[pair.name].reindex(columns=labels))]
    if not rows:
        return None
    notes = (
        "Each cell: of the test images that the row's method gets wrong, the share (%) that the column's method with the same seed "
        "gets wrong, too.",
        _SEEDS,
    )
    columns = (*pair_heading(comparison), "Method", *labels)
    title = f"Shared errors{on_data(comparison, with_pair=True)}"
    return Table("shared_errors", title, columns, tuple(rows), notes, naming=columns.index("Method") + 1)


def beside_teacher_table(comparison: Comparison) -> Table | None:
    """Of the images that the teacher gets right, the share that each student gets wrong; of those that it gets wrong, the share
    right.

    None where it is not known which images a teacher and its students got wrong.
    """
    rows: list[Row] = []
    for pair in comparison.pairs:
        wrong, teacher = _aligned(comparison, pair), _of_teacher(comparison, pair)
        if not wrong or teacher is None:
            continue
        rows += _rows(comparison, pair, agreement.beside_teacher(wrong, teacher))
    if not rows:
        return None
    notes = (
        "Lost: of the test images that the teacher gets right, the share (%) that the student gets wrong.",
        "Corrected: of those that the teacher gets wrong, the share (%) that the student gets right.",
        _SEEDS,
    )
    columns = (*pair_heading(comparison), "Method", "Lost (%)", "Corrected (%)")
    title = f"Errors beside the teacher{on_data(comparison, with_pair=True)}"
    return Table("beside_teacher", title, columns, tuple(rows), notes, naming=columns.index("Method") + 1)


def _rows(comparison: Comparison, pair: PairTrials, found: pd.DataFrame) -> Iterator[Row]:
    """A row for each method of a frame of percentages."""
    for method, shares in found.iterrows():
        cells = (Cell(str(method)), *map(percent, shares))
        yield method_row(comparison, pair, cells, first=method == found.index[0])


def _aligned(comparison: Comparison, pair: PairTrials) -> Mapping[str, Bits]:
    """By method (S, I) which images were wrong, over the seeds that all methods share."""
    wrong = wrong_images(comparison, pair)
    shared = _shared_seeds(wrong)
    return {label: wrong[label].loc[shared].to_numpy(bool) for label in comparison.labels if label in wrong} if shared else {}


def _shared_seeds(wrong: Mapping[str, pd.DataFrame]) -> list[int]:
    return sorted(set.intersection(*(set(one.index) for one in wrong.values()))) if wrong else []


def _of_teacher(comparison: Comparison, pair: PairTrials) -> Bits | None:
    """(S, I) which images the teacher of each shared seed got wrong; None where it is not known."""
    if "teacher_trial" not in pair.done:
        return None
    taught = pair.done.dropna(subset="teacher_trial").drop_duplicates("seed").set_index("seed")["teacher_trial"]
    seeds = _shared_seeds(wrong_images(comparison, pair))
    known = [comparison.outcomes.get(str(trial)) for trial in taught.reindex(seeds)]
    fingerprints = set(pair.done["data_fingerprint"])
    of = [outcomes.wrong for outcomes in known if outcomes and outcomes.data_fingerprint in fingerprints]
    return np.stack(of) if of and len(of) == len(seeds) else None
