"""A table, as a value that knows nothing of Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NONE = "—"


@dataclass(frozen=True)
class Cell:
    """`text` is for readers; `values` are the numbers behind it, unrounded, for machines."""

    text: str
    bold: bool = False
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One cell for each column; `keys` name the row for machines; `opens_group` asks for a line above it."""

    cells: tuple[Cell, ...]
    keys: Mapping[str, str] = field(default_factory=dict)
    opens_group: bool = False


@dataclass(frozen=True)
class Table:
    """`name` serves as a file name and a label; `notes` belong under the table; the first `naming` columns name their row."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    naming: int = 1

    def turned(self) -> Table:
        """Rows as columns, for a table that is too wide to print."""
        head, *body = zip(self.columns, *([cell for cell in row.cells] for row in self.rows), strict=True)
        columns = tuple(cell.text if isinstance(cell, Cell) else cell for cell in head)
        rows = tuple(Row(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)) for cells in body)
        return Table(self.name, self.title, columns, rows, self.notes)
