"""Every method against every other."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kdbench.report.compare import Comparison
from kdbench.report.differences import differences_of_all, wrong_images
from kdbench.report.statistics.agreement import mcnemar
from kdbench.report.statistics.comparisons import Difference
from kdbench.report.tables.cells import method_row, on_data, pair_heading
from kdbench.report.tables.gains import gain_cells, has_image_intervals, images_note, interval_headings, procedures
from kdbench.report.tables.table import NONE, Cell, Row, Table

_MCNEMAR = (
    "McNemar: whether these very students, of the n seeds together, err on different numbers of images. The p speaks of new test "
    "images and not of new seeds, and of each two methods alone."
)


def pairwise_table(comparison: Comparison) -> Table | None:
    """The difference of any two methods in points of the metric, the better one first, with intervals that hold together for a
    pair.

    None where no pair has two methods with results.
    """
    metric = comparison.metric
    found = {pair.name: differences_of_all(comparison, pair) for pair in comparison.pairs}
    images = has_image_intervals(found.values())
    rows: list[Row] = []
    for pair in comparison.pairs:
        better = [one if one.gain >= 0 else one.turned() for one in found[pair.name].differences]
        wrong = wrong_images(comparison, pair)
        for one in better:
            tested = (_mcnemar(wrong, one),) if images else ()
            cells = (Cell(one.method), Cell(one.over), *gain_cells(one, metric, images=images), *tested)
            rows.append(method_row(comparison, pair, cells, first=one is better[0], over=one.over))
    if not rows:
        return None
    notes = (
        f"Difference: how much better the first method's {metric.noun} is than that of the second, last epoch, over n seeds.",
        *procedures(found),
        *images_note(comparison, found.values()),
        *([_MCNEMAR] if images else []),
    )
    columns = (*pair_heading(comparison), "Better", "Than", f"Difference ({metric.points})", *interval_headings(images=images), "n")
    columns += ("McNemar\np",) if images else ()
    title = f"All pairs of methods{on_data(comparison, with_pair=True)}, paired by seed"
    return Table("pairwise", title, columns, tuple(rows), notes, naming=columns.index("Than") + 1)


def _mcnemar(wrong: Mapping[str, pd.DataFrame], one: Difference) -> Cell:
    if one.method not in wrong or one.over not in wrong:
        return Cell(NONE)
    method, over = wrong[one.method], wrong[one.over]
    shared = method.index.intersection(over.index)
    if shared.empty:
        return Cell(NONE)
    p = mcnemar(method.loc[shared].to_numpy(bool), over.loc[shared].to_numpy(bool))
    return Cell("< 0.001" if p < 0.001 else f"{p:.3f}", values={"p": p})
