"""Tables that a report has as CSV files, and prints where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kdbench.report.compare import Comparison
from kdbench.report.tables.class_errors import class_errors_table, confusions_table
from kdbench.report.tables.pairwise import pairwise_table
from kdbench.report.tables.ranks import profile_table, win_tie_loss_table
from kdbench.report.tables.shared_errors import beside_teacher_table, shared_errors_table
from kdbench.report.tables.table import Table
from kdbench.spec.report_options import FurtherTable

_TABLES: Mapping[FurtherTable, Callable[[Comparison], Table | None]] = {
    "pairwise": pairwise_table,
    "win_tie_loss": win_tie_loss_table,
    "performance_profile": profile_table,
    "shared_errors": shared_errors_table,
    "beside_teacher": beside_teacher_table,
    "class_errors": class_errors_table,
    "confusions": confusions_table,
}


def further_tables(comparison: Comparison, names: Iterable[FurtherTable] = tuple(_TABLES)) -> list[Table]:
    """Those of the names that can be made of these trials."""
    return [table for name in names if (table := _TABLES[name](comparison))]
