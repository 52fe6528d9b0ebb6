"""A table as Markdown, CSV or for the terminal."""

import csv
import io
import math
import re
from dataclasses import dataclass, replace
from textwrap import wrap

import rich.box
import rich.console
import rich.table
from rich.text import Text

from kdbench.report.tables.table import Cell, Table
from kdbench.wording import NO_BREAK, unbroken

_MARKDOWN_COLUMNS = 14
"""A wider table is turned where that makes it narrower: more columns do not fit a page."""

_SIGNS = {"bold": "»", "underline": "›"}
"""What stands before a text of such a style, as rich calls it, where styles are not shown."""


def to_markdown(table: Table) -> str:
    """A pipe table under its title, then its notes."""
    table = table.shaped(lambda shape: max(len(shape.columns), _MARKDOWN_COLUMNS))
    lines = [
        f"**{_markdown(table.title)}**",
        "",
        "| " + " | ".join(map(_markdown, _headings(table, ": "))) + " |",
        "|" + "|".join(" :-- " if position < table.naming else " --: " for position in range(len(table.columns))) + "|",
    ]
    for row in table.rows:
        if row.heading:
            lines.append("| " + " | ".join([f"*{_markdown(row.heading)}*", *[""] * (len(row.cells) - 1)]) + " |")
        lines.append("| " + " | ".join(map(_markdown_cell, row.cells)) + " |")
    return "\n".join([*lines, "", *[f"* {_markdown(note)}" for note in table.notes], ""])


def _markdown_cell(cell: Cell) -> str:
    text = _markdown(cell.text)
    text = f"**{text}**" if cell.bold else f"<u>{text}</u>" if cell.underlined else text
    return text + _markdown(cell.mark)


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*<])", r"\\\1", text.replace("\n", " "))


def _headings(table: Table, between: str) -> list[str]:
    """The headings of columns, each behind that of its group."""
    groups = table.groups or ("",) * len(table.columns)
    return [f"{group}{between}{column}" if group else column for group, column in zip(groups, table.columns, strict=True)]


def to_csv(table: Table) -> str:
    """Tidy long form: one line for each cell with numbers, under `column` the heading it stands under, the numbers unrounded."""
    measured = [
        (row.keys, column, cell.values)
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.values
    ]
    fields = dict.fromkeys(name for keys, _, values in measured for name in (*keys, "column", *values))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(fields), lineterminator="\n")
    writer.writeheader()
    for keys, column, values in measured:
        known = {name: value for name, value in values.items() if not math.isnan(value)}
        writer.writerow({**keys, "column": column.replace("\n", " "), **known})
    return text.getvalue()


@dataclass(frozen=True)
class Paragraph:
    """Text whose lines do not end inside `n = 3`; rich would break them at any space."""

    text: str
    style: str = ""

    def __rich_console__(self, console: rich.console.Console, options: rich.console.ConsoleOptions) -> rich.console.RenderResult:
        lines = wrap(unbroken(self.text), options.max_width, break_on_hyphens=False)
        yield Text("\n".join(lines).replace(NO_BREAK, " "), style=self.style)


@dataclass(frozen=True)
class TerminalTable:
    """Title, rich table and notes; the table is turned where it needs more than `width` characters and is narrower so.

    Where the console shows no styles, as one that writes to a file, signs stand before what is bold or underlined.
    """

    table: Table
    width: int

    def __rich_console__(self, console: rich.console.Console, options: rich.console.ConsoleOptions) -> rich.console.RenderResult:
        yield _printed(self.table if console.color_system else _with_signs(self.table), self.width)


def _with_signs(table: Table) -> Table:
    """With a sign before the text of each cell that has a style, and a note that says so."""
    rows = tuple(
        replace(
            row,
            cells=tuple(
                replace(cell, text=f"{_SIGNS[style]} {cell.text}") if (style := _style(cell)) else cell for cell in row.cells
            ),
        )
        for row in table.rows
    )
    found = {_style(cell) for row in table.rows for cell in row.cells}
    meanings = [f"{sign} stands for {style}" for style, sign in _SIGNS.items() if style in found]
    return replace(table, rows=rows, notes=(*([f"{', '.join(meanings)}."] if meanings else []), *table.notes))


def _style(cell: Cell) -> str:
    return "bold" if cell.bold else "underline" if cell.underlined else ""


def _printed(table: Table, width: int) -> rich.console.Group:
    table = table.shaped(lambda shape: max(_printed_width(shape), width))
    printed = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for position, column in enumerate(_headings(table, "\n")):
        printed.add_column(Text(column), justify="left" if position < table.naming else "right")
    for row in table.rows:
        if row.opens_group or row.heading:
            printed.add_section()
        if row.heading:
            printed.add_row(Text(row.heading, style="italic"))
        printed.add_row(*map(_printed_cell, row.cells))
    return rich.console.Group(Paragraph(table.title, style="bold"), printed, *map(Paragraph, table.notes), "")


def _printed_cell(cell: Cell) -> Text:
    return Text.assemble((cell.text, _style(cell)), cell.mark)


def _printed_width(table: Table) -> int:
    columns = zip(_headings(table, "\n"), *([cell.plain for cell in row.cells] for row in table.rows), strict=True)
    return 2 + sum(2 + max(len(line) for text in column for line in text.split("\n")) for column in columns)
