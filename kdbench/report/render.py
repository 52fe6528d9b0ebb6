"""A table as Markdown, LaTeX, CSV or for the terminal."""

import csv
import io
import math
import re
from collections.abc import Mapping
from types import MappingProxyType

import rich.box
import rich.console
import rich.table
from rich.text import Text

from kdbench.report.table import Table

_MARKDOWN_COLUMNS = 14
_LATEX_COLUMNS = 7
"""Wider tables are turned where that makes them narrower: more columns do not fit a page."""

_LATEX: Mapping[str, str] = MappingProxyType(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "|": "$|$",
        "±": r"$\pm$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "→": r"$\to$",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "—": "---",
    }
)


def to_markdown(table: Table) -> str:
    """A pipe table under its title, then its notes."""
    table = _fitting(table, _MARKDOWN_COLUMNS)
    lines = [
        f"**{_markdown(table.title)}**",
        "",
        "| " + " | ".join(map(_markdown, table.columns)) + " |",
        "|" + "|".join(" :-- " if position < table.naming else " --: " for position in range(len(table.columns))) + "|",
    ]
    for row in table.rows:
        cells = [f"**{_markdown(cell.text)}**" if cell.bold else _markdown(cell.text) for cell in row.cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *[f"* {_markdown(note)}" for note in table.notes], ""])


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*<])", r"\\\1", text.replace("\n", " "))


def to_latex(table: Table) -> str:
    """A floating table for a document that loads booktabs; the notes stand under it, the label is `tab:` and the table's name."""
    table = _fitting(table, _LATEX_COLUMNS)
    body: list[str] = []
    for row in table.rows:
        body += [r"\midrule"] if row.opens_group else []
        cells = [rf"\textbf{{{_latex(cell.text)}}}" if cell.bold else _latex(cell.text) for cell in row.cells]
        body.append(" & ".join(cells) + r" \\")
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{_latex(table.title)}.}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        r"\smallskip",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{{'l' * table.naming + 'r' * (len(table.columns) - table.naming)}}}",
        r"\toprule",
        " & ".join(map(_latex_heading, table.columns)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        "",
        r"\smallskip",
        " ".join(map(_latex, table.notes)),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_heading(text: str) -> str:
    lines = r" \\ ".join(_latex(line) for line in text.split("\n"))
    return rf"\shortstack[r]{{{lines}}}" if "\n" in text else lines


def _latex(text: str) -> str:
    """Escaped; a hyphen before a number that stands alone, or in parentheses, is a minus."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![^\s(])-(?=\d)", "$-$", escaped)


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


def to_terminal(table: Table, *, width: int) -> rich.console.Group:
    """Title, rich table and notes; the table is turned where it needs more than `width` characters and is narrower so."""
    table = min(table, table.turned(), key=lambda shape: max(_printed_width(shape), width))
    printed = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for position, column in enumerate(table.columns):
        printed.add_column(Text(column), justify="left" if position < table.naming else "right")
    for row in table.rows:
        if row.opens_group:
            printed.add_section()
        printed.add_row(*[Text(cell.text, style="bold" if cell.bold else "") for cell in row.cells])
    return rich.console.Group(Text(table.title, style="bold"), printed, *[Text(note) for note in table.notes], "")


def _printed_width(table: Table) -> int:
    columns = zip(table.columns, *([cell.text for cell in row.cells] for row in table.rows), strict=True)
    return 2 + sum(2 + max(len(line) for text in column for line in text.split("\n")) for column in columns)


def _fitting(table: Table, columns: int) -> Table:
    return min(table, table.turned(), key=lambda shape: max(len(shape.columns), columns))
