"""A table of the report, arranged for HTML: turned where it is wide, with the number that each cell is sorted by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdbench.report.table import Cell, Row, Table

MOST_COLUMNS = 9
"""A table of more columns is turned where that makes it narrower."""


@dataclass(frozen=True)
class HtmlCell:
    """`key` is the number that the cell is sorted by, None for text; `trial` makes it a button that shows the trial."""

    text: str
    bold: bool
    key: float | None
    classes: str | None
    trial: str


@dataclass(frozen=True)
class HtmlRow:
    """As `table.Row`, for HTML."""

    cells: tuple[HtmlCell, ...]
    opens_group: bool


@dataclass(frozen=True)
class HtmlTable:
    """As `table.Table`, for HTML.

    Attributes:
        heads: the lines of the head; the last has the buttons that sort.
        naming: how many columns, from the first, name a row.
        files: the files that hold this table.
    """

    name: str
    title: str
    heads: tuple[tuple[str, ...], ...]
    rows: tuple[HtmlRow, ...]
    notes: tuple[str, ...]
    naming: int
    turned: bool
    files: tuple[str, ...]


def html_table(table: Table, *, files: Sequence[str] = ()) -> HtmlTable:
    """The table for the page; columns that named the rows become lines of the head of a turned one."""
    turned = len(table.columns) > max(MOST_COLUMNS, len(table.rows) + 1)
    shape = table.turned() if turned else table
    lines = table.naming - 1 if turned else 0
    heads = (shape.columns, *(tuple(cell.text for cell in row.cells) for row in shape.rows[:lines]))
    rows, above = [], None
    for row in shape.rows[lines:]:
        rows.append(HtmlRow(tuple(_cells(row, above, naming=shape.naming)), row.opens_group))
        above = rows[-1]
    return HtmlTable(table.name, table.title, heads, tuple(rows), table.notes, shape.naming, turned, tuple(files))


def _cells(row: Row, above: HtmlRow | None, *, naming: int) -> list[HtmlCell]:
    """The cells; a name that stands in the first of several rows alone is in each of them, to be shown when they are sorted."""
    cells = []
    for place, cell in enumerate(row.cells):
        again = place < naming - 1 and not cell.text and above is not None
        text = above.cells[place].text if again and above else cell.text
        classes = "again" if again else "number" if place >= naming else None
        trial = row.keys.get("trial", "") if place == 0 else ""
        cells.append(HtmlCell(text, cell.bold, _sort_key(cell), classes, trial))
    return cells


def _sort_key(cell: Cell) -> float | None:
    """The first of the numbers behind the cell, which is what it is about; a count alone says that there is none."""
    number = next((value for name, value in cell.values.items() if name != "n"), math.nan)
    return None if math.isnan(number) else number
