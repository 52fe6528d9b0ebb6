"""A table of the report, arranged for HTML: turned where it is wide, with the number that each cell is sorted by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from kdbench.report.tables.table import Cell, Row, Table

LONGEST_LINE = 40
"""Characters up to which the cells of a column stay in one line; behind the names they are then set as numbers, flush right."""

MOST_COLUMNS = 9
"""A table of more columns is turned where that makes it narrower, unless it says which way it is to stand."""


@dataclass(frozen=True)
class HtmlCell:
    """As `table.Cell`, for HTML.

    Attributes:
        key: the number that the cell is sorted by; None for text.
        classes: of its style.
        trial: that the cell shows when it is pressed; empty for others.
    """

    text: str
    mark: str
    bold: bool
    underlined: bool
    key: float | None
    classes: str | None
    trial: str


@dataclass(frozen=True)
class HtmlRow:
    """As `table.Row`, for HTML."""

    cells: tuple[HtmlCell, ...]
    opens_group: bool
    heading: str


@dataclass(frozen=True)
class HtmlTable:
    """As `table.Table`, for HTML.

    Attributes:
        groups: headings over the columns, each with the number of columns that it spans; or none at all.
        heads: the lines of the head; the last has the buttons that sort.
        naming: how many columns, from the first, name a row.
        numbers: which columns are set as numbers.
        turned: whether its rows are columns of the table of the report.
        files: the files that hold this table.
    """

    name: str
    title: str
    groups: tuple[tuple[str, int], ...]
    heads: tuple[tuple[str, ...], ...]
    rows: tuple[HtmlRow, ...]
    notes: tuple[str, ...]
    naming: int
    numbers: frozenset[int]
    turned: bool
    files: tuple[str, ...]


def html_table(table: Table, *, files: Sequence[str] = ()) -> HtmlTable:
    """The table as the page shows it."""
    shape = table.shaped(lambda shape: max(len(shape.columns), MOST_COLUMNS))
    rows: list[HtmlRow] = []
    longest = [max((len(row.cells[place].text) for row in shape.rows), default=0) for place in range(len(shape.columns))]
    numbers = frozenset(place for place, length in enumerate(longest) if place >= shape.naming and length <= LONGEST_LINE)
    for row in shape.rows[shape.head :]:
        cells = _cells(row, rows[-1] if rows else None, naming=shape.naming, numbers=numbers)
        rows.append(HtmlRow(tuple(cells), row.opens_group, row.heading))
    return HtmlTable(
        name=table.name,
        title=table.title,
        groups=tuple((heading, len(list(columns))) for heading, columns in groupby(shape.groups)),
        heads=(shape.columns, *(tuple(cell.text for cell in row.cells) for row in shape.rows[: shape.head])),
        rows=tuple(rows),
        notes=table.notes,
        naming=shape.naming,
        numbers=numbers,
        turned=shape is not table,
        files=tuple(files),
    )


def _cells(row: Row, above: HtmlRow | None, *, naming: int, numbers: frozenset[int]) -> list[HtmlCell]:
    """The cells; a name that stands in the first of several rows alone is in each of them, to be shown when they are sorted."""
    cells = []
    for place, cell in enumerate(row.cells):
        again = place < naming - 1 and not cell.text and above is not None
        text = above.cells[place].text if again and above else cell.text
        classes = "again" if again else "number" if place in numbers else "long" if len(text) > LONGEST_LINE else None
        trial = row.keys.get("trial", "") if place == 0 else ""
        cells.append(HtmlCell(text, cell.mark, cell.bold, cell.underlined, _sort_key(cell), classes, trial))
    return cells


def _sort_key(cell: Cell) -> float | None:
    """The first of the numbers behind the cell, which is what it is about, else its own; a count alone is none."""
    number = next((value for name, value in cell.values.items() if name != "n"), cell.sort_by)
    return None if math.isnan(number) else number
