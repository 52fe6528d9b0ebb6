"""A table as a notebook shows it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby

from kdbench.report.tables.table import Cell, Row, Table
from kdbench.wording import unbroken


def to_html(table: Table) -> str:
    """The table as HTML, with its title above and its notes below."""
    table = table.shaped(lambda shape: len(shape.columns))
    head, body = table.rows[: table.head], table.rows[table.head :]
    notes = "".join(f"<li>{escape(unbroken(note))}</li>" for note in table.notes)
    return "".join(
        [
            f"<table><caption>{escape(table.title)}</caption><thead>",
            *_groups(table),
            f"<tr>{''.join(f'<th>{_text(column)}</th>' for column in table.columns)}</tr>",
            *(f"<tr>{''.join(f'<th>{_text(cell.text)}</th>' for cell in row.cells)}</tr>" for row in head),
            "</thead><tbody>",
            *(line for row in body for line in _lines(row, table.naming)),
            f"</tbody></table><ul>{notes}</ul>",
        ]
    )


def _groups(table: Table) -> Iterator[str]:
    """The line of headings over groups of columns."""
    if table.groups:
        cells = ((heading, len(list(same))) for heading, same in groupby(table.groups))
        yield f"<tr>{''.join(f'<th colspan={count}>{escape(text)}</th>' for text, count in cells)}</tr>"


def _lines(row: Row, naming: int) -> Iterator[str]:
    if row.heading:
        yield f"<tr><th colspan={len(row.cells)}><em>{escape(row.heading)}</em></th></tr>"
    kinds = ["th" if position < naming else "td" for position in range(len(row.cells))]
    yield f"<tr>{''.join(f'<{kind}>{_cell(cell)}</{kind}>' for kind, cell in zip(kinds, row.cells, strict=True))}</tr>"


def _cell(cell: Cell) -> str:
    text = _text(cell.text)
    text = f"<strong>{text}</strong>" if cell.bold else f"<u>{text}</u>" if cell.underlined else text
    return text + (f"<sup>{escape(cell.mark)}</sup>" if cell.mark else "")


def _text(text: str) -> str:
    return escape(text).replace("\n", "<br>")
