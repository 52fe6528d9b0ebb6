"""A table, as a value that knows nothing of Markdown or LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

NONE = "—"


@dataclass(frozen=True)
class Cell:
    """`text` is for readers; `values` are the numbers behind it, unrounded, for machines; `mark` is a sign that notes explain;
    `sort_by` is the number by which a cell without values is sorted."""

    text: str
    bold: bool = False
    values: Mapping[str, float] = field(default_factory=dict)
    underlined: bool = False
    mark: str = ""
    sort_by: float = field(default=math.nan, compare=False)

    @property
    def plain(self) -> str:
        """The text and its mark."""
        return self.text + self.mark


@dataclass(frozen=True)
class Row:
    """One cell for each column; `keys` name the row for machines; `opens_group` asks for a line above it, and `heading` for a line
    with that text."""

    cells: tuple[Cell, ...]
    keys: Mapping[str, str] = field(default_factory=dict)
    opens_group: bool = False
    heading: str = ""


@dataclass(frozen=True)
class Table:
    """What is to be printed.

    Attributes:
        name: serves as a file name and a label.
        title: its caption.
        columns: the headings.
        rows: one cell for each column.
        notes: sentences that belong under the table.
        naming: so many columns, from the first, name their row.
        head: so many rows, from the first, belong to the headings.
        groups: headings over the columns, one for each, empty over those that are in no group; or none at all.
        parts: columns that begin a part; where they are rows, a line stands above them.
        turn: whether rows are to be printed as columns: always, never, or, where it is None, to make a wide table narrower.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    naming: int = 1
    head: int = 0
    groups: tuple[str, ...] = ()
    parts: tuple[int, ...] = ()
    turn: bool | None = None

    def turned(self) -> Table:
        """Rows as columns."""
        head, *body = zip(self.columns, *([cell for cell in row.cells] for row in self.rows), strict=True)
        columns = tuple(cell.text if isinstance(cell, Cell) else cell for cell in head)
        groups = self.groups or ("",) * len(self.columns)
        rows = tuple(
            Row(
                tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells),
                opens_group=position in self.parts,
                heading=groups[position] if groups[position] != groups[position - 1] else "",
            )
            for position, cells in enumerate(body, 1)
        )
        above = ("", *self._headings_of_rows()) if any(row.heading for row in self.rows) else ()
        return Table(self.name, self.title, columns, rows, self.notes, head=self.naming - 1, groups=above)

    def under_names(self) -> Table:
        """With the names in the first column as headings over the rows that follow them, where they stand in the first rows of
        groups alone; otherwise as it is."""
        named = [position for position, row in enumerate(self.rows) if row.cells[0].text]
        opening = [position for position, row in enumerate(self.rows) if row.opens_group or not position]
        if named != opening or len(named) == len(self.rows) or any(row.heading for row in self.rows) or self.groups:
            return self
        rows = (replace(row, cells=row.cells[1:], heading=row.cells[0].text) for row in self.rows)
        return replace(self, columns=self.columns[1:], rows=tuple(rows), naming=self.naming - 1)

    def _headings_of_rows(self) -> list[str]:
        """For each row the heading that it stands under."""
        found: list[str] = []
        for row in self.rows:
            found.append(row.heading or ("" if row.opens_group or not found else found[-1]))
        return found

    def __str__(self) -> str:
        from kdbench.report.formats.render import to_markdown  # which knows tables

        return to_markdown(self)

    def _repr_html_(self) -> str:
        from kdbench.report.formats.notebook import to_html  # which knows tables

        return to_html(self)

    def shaped(self, size: Callable[[Table], float]) -> Table:
        """As it is to be printed: turned where that is asked for, or where it is left open and `size` is less so."""
        turned = self.turned()
        return (turned if self.turn else self) if self.turn is not None else min(self, turned, key=size)
