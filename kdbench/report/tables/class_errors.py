"""How methods err on each class, and which classes they take for which."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.tables.cells import on_data, pair_heading, percent
from kdbench.report.tables.table import Cell, Row, Table
from kdbench.results.outcomes import Outcomes

MOST_CONFUSIONS = 20
"""Rows of a pair in the table of confusions; `kdbench.load_outcomes` has the whole matrix."""

_NUMBERED = "Classes are numbered in the order of the data set, from 0. `kdbench show dataset NAME` lists them."


def class_errors_table(comparison: Comparison) -> Table | None:
    """The error on the images of each class, in percent, mean over seeds; None where outcomes are not known."""
    found = {pair.name: _by_class(comparison, pair) for pair in comparison.pairs}
    notes = ("Each cell: test error (%) of the last epoch on the images of the class, mean over the finished seeds.",)
    return _table(comparison, "class_errors", "Test error of each class (%, ↓)", ("Class",), found, notes)


def confusions_table(comparison: Comparison) -> Table | None:
    """Of the images of one class the share that is taken for another, in percent, mean over seeds; the most frequent ones of each
    pair. None where outcomes are not known."""
    found = {pair.name: _confusions(comparison, pair) for pair in comparison.pairs}
    notes = (
        f"Each cell: of the test images of the class, the share (%) that is taken for another, mean over the finished seeds. The "
        f"{MOST_CONFUSIONS} most frequent of all methods together.",
    )
    return _table(comparison, "confusions", "What is taken for what (%, ↓)", ("Class", "Taken for"), found, notes)


def _outcomes(comparison: Comparison, pair: PairTrials) -> Mapping[str, list[Outcomes]]:
    """By method, those of the finished seeds."""
    rows = pair.done[pair.done["trial"].isin(list(comparison.outcomes))]
    return {str(label): [comparison.outcomes[trial] for trial in trials] for label, trials in rows.groupby("label")["trial"]}


def _names(comparison: Comparison, pair: PairTrials) -> Mapping[str, str]:
    """What each class is called, by its number; empty where that is not known."""
    known = [one.classes for seeds in _outcomes(comparison, pair).values() for one in seeds if one.classes]
    return {str(number): name for number, name in enumerate(known[0])} if known else {}


def _by_class(comparison: Comparison, pair: PairTrials) -> pd.DataFrame:
    """One row for each class, one column for each method."""
    found = _outcomes(comparison, pair)
    return pd.DataFrame({label: np.mean([one.class_error_pct for one in seeds], axis=0) for label, seeds in found.items()})


def _confusions(comparison: Comparison, pair: PairTrials) -> pd.DataFrame:
    """One row for each two classes, one column for each method."""
    shares = {}
    for label, seeds in _outcomes(comparison, pair).items():
        shares[label] = pd.concat([_of_seed(one) for one in seeds], axis=1).fillna(0.0).mean(axis=1)
    found = pd.DataFrame(shares).fillna(0.0)
    return found.loc[found.mean(axis=1).sort_values(ascending=False, kind="stable").index[:MOST_CONFUSIONS]]


def _of_seed(outcomes: Outcomes) -> pd.Series[float]:
    """By true and predicted class, the share in percent."""
    true, predicted, images = outcomes.mistakes.T
    return pd.Series(100 * images / outcomes.images_by_class[true], pd.MultiIndex.from_arrays([true, predicted]))


def _table(
    comparison: Comparison,
    name: str,
    title: str,
    naming: tuple[str, ...],
    found: Mapping[str, pd.DataFrame],
    notes: tuple[str, ...],
) -> Table | None:
    labels = [label for label in comparison.labels if any(label in values for values in found.values())]
    rows, numbered = [], False
    for pair in comparison.pairs:
        values, names = found[pair.name].reindex(columns=labels), _names(comparison, pair)
        numbered |= not names and len(values) > 0
        for number, (classes, shares) in enumerate(values.iterrows()):
            numbers = [str(one) for one in (classes if isinstance(classes, tuple) else (classes,))]
            where = (Cell(pair.name if number == 0 else ""),) if len(comparison.pairs) > 1 else ()
            cells = (*where, *(Cell(names.get(one, one)) for one in numbers), *(percent(shares[label]) for label in labels))
            keys = {"dataset": pair.dataset, "teacher": pair.teacher, "student": pair.student}
            keys |= dict(zip(("class", "taken_for"), numbers, strict=False))
            rows.append(Row(cells, keys, opens_group=number == 0 and pair is not comparison.pairs[0]))
    if not rows:
        return None
    columns = (*pair_heading(comparison), *naming, *labels)
    titled = f"{title}{on_data(comparison, with_pair=True)}"
    notes = (*notes, *([_NUMBERED] if numbered else []))
    return Table(name, titled, columns, tuple(rows), notes, naming=len(columns) - len(labels))
