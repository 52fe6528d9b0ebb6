"""Every method against every other."""

from __future__ import annotations

from kdbench.report.compare import Comparison
from kdbench.report.differences import differences_of_all
from kdbench.report.tables.cells import method_row, on_data, pair_heading
from kdbench.report.tables.gains import gain_cells, has_image_intervals, images_note, interval_headings, procedures
from kdbench.report.tables.table import Cell, Row, Table


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
        for one in better:
            cells = (Cell(one.method), Cell(one.over), *gain_cells(one, images=images))
            rows.append(method_row(comparison, pair, cells, first=one is better[0], over=one.over))
    if not rows:
        return None
    notes = (
        f"Difference: how much better the first method's {metric.noun} is than that of the second, last epoch, over n seeds.",
        *procedures(found),
        *images_note(comparison, found.values()),
    )
    columns = (*pair_heading(comparison), "Better", "Than", f"Difference ({metric.points})", *interval_headings(images=images), "n")
    title = f"All pairs of methods{on_data(comparison, with_pair=True)}, paired by seed"
    return Table("pairwise", title, columns, tuple(rows), notes, naming=columns.index("Than") + 1)
