"""Tables that a report has as CSV files, and prints where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kdbench.errors import KdbenchError
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


def further_tables(comparison: Comparison) -> list[Table]:
    """Those that can be made of these trials."""
    return [table for make in _TABLES.values() if (table := make(comparison))]


def asked_tables(comparison: Comparison) -> list[Table]:
    """Those that the options ask for.

    Raises:
        KdbenchError: one cannot be made of these trials.
    """
    return [_asked(comparison, name) for name in comparison.options.tables]


def _asked(comparison: Comparison, name: FurtherTable) -> Table:
    table = _TABLES[name](comparison)
    if table is None:
        raise KdbenchError(f"there is no table `{name}`, since {_why_not(comparison, name)}. Leave it out.")
    return table


def _why_not(comparison: Comparison, name: FurtherTable) -> str:
    metric = comparison.metric
    if name in ("win_tie_loss", "performance_profile") and len(comparison.pairs) < 2:
        return "it needs two pairs of networks or more, and here is one"
    if name in ("pairwise", "win_tie_loss"):
        return "no two methods have finished trials of one pair and seed"
    if name == "performance_profile":
        return f"a multiple of the {metric.noun} says little"
    if name in ("shared_errors", "beside_teacher") and metric.column != "test_error_pct":
        return f"it is of wrong images, and what is compared is the {metric.noun}"
    return "it was not kept which test images were wrong" + (", or not of the teacher" if name == "beside_teacher" else "")
