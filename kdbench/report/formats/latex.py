"""A table as LaTeX, for a document that loads booktabs."""

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from types import MappingProxyType

from kdbench.report.tables.table import Cell, Row, Table
from kdbench.spec.report_options import DEFAULT, ReportOptions

_COLUMNS = 7
"""A wider table is turned where that makes it narrower."""

_WIDTHS = {"table": 345.0, "table*": 469.0}
"""Points: the text of an article with 10-point letters in one column, and in two."""

_SIZES = (("footnotesize", 4.25, 4.0), ("footnotesize", 4.25, 2.5), ("scriptsize", 3.98, 2.0), ("tiny", 3.4, 2.0))
"""Sizes of letters, the width of a digit, and the space on each side of a column, in points; the first that fits is taken."""

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
        "†": r"$\dagger$",
        "≥": r"$\geq$",
    }
)


def to_latex(table: Table, *, options: ReportOptions = DEFAULT, prefix: str = "") -> str:
    """The table as `options.latex` says: floating with its notes under it, or a tabular alone.

    Args:
        table: what is to be printed.
        options: of a report.
        prefix: what the label begins with, such as the report's name: `tab:quick-test-error`.
    """
    table = table.shaped(lambda shape: max(len(shape.columns), _COLUMNS))
    notes = [_latex(note) for note in table.notes]
    tabular = "\n".join(_tabular(table))
    if options.latex == "tabular":
        return "\n".join([*(f"% {' '.join(note.split())}" for note in (_latex(table.title), *notes)), tabular]) + "\n"
    label = "-".join(filter(None, (_for_label(options.label or prefix), table.name.replace("_", "-"))))
    letters, space = _size(table, _WIDTHS[options.latex])
    lines = [
        rf"\begin{{{options.latex}}}[htbp]",
        r"\centering",
        rf"\caption{{{_sentence(_latex(table.title))}}}",
        rf"\label{{tab:{label}}}",
        r"\smallskip",
        rf"\{letters}",
        rf"\setlength{{\tabcolsep}}{{{space:g}pt}}",
        tabular,
        *([r"\par\smallskip", r"\begin{minipage}{\linewidth}", r"\footnotesize", *notes, r"\end{minipage}"] if notes else []),
        rf"\end{{{options.latex}}}",
    ]
    return "\n".join(lines) + "\n"


def _tabular(table: Table) -> Iterator[str]:
    """The lines of the tabular."""
    yield rf"\begin{{tabular}}{{{'l' * table.naming + 'r' * (len(table.columns) - table.naming)}}}"
    yield r"\toprule"
    if table.groups:
        yield from _group_headings(table)
    yield " & ".join(map(_heading, table.columns)) + r" \\"
    for row in table.rows[: table.head]:
        yield _row(row)
    yield r"\midrule"
    for position, row in enumerate(table.rows[table.head :]):
        if position and (row.opens_group or row.heading):
            yield r"\midrule"
        if row.heading:
            yield rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{_latex(row.heading)}}}}} \\"
        yield _row(row)
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _group_headings(table: Table) -> Iterator[str]:
    """A line of headings over the columns of a group, and one of rules under them."""
    cells, rules, first = [], [], 1
    for heading, same in groupby(table.groups):
        count = len(list(same))
        cells.append(rf"\multicolumn{{{count}}}{{c}}{{{_latex(heading)}}}" if heading else " & ".join([""] * count))
        if heading:
            rules.append(rf"\cmidrule(lr){{{first}-{first + count - 1}}}")
        first += count
    yield " & ".join(cells) + r" \\"
    yield " ".join(rules)


def _row(row: Row) -> str:
    return " & ".join(map(_cell, row.cells)) + r" \\"


def _cell(cell: Cell) -> str:
    text = _latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else rf"\underline{{{text}}}" if cell.underlined else text
    return text + (rf"\rlap{{$^{{{_MARKS[cell.mark]}}}$}}" if cell.mark else "")


_MARKS = {"*": "*", "†": r"\dagger"}


def _size(table: Table, width: float) -> tuple[str, float]:
    """The size of letters and the space beside columns with which the table fits into so many points."""
    columns = zip(table.columns, *([cell.plain for cell in row.cells] for row in table.rows), strict=True)
    digits = sum(max(_width(line) for text in column for line in text.split("\n")) for column in columns)
    fitting = [(size, space) for size, digit, space in _SIZES if digits * digit + 2 * space * len(table.columns) <= width]
    return fitting[0] if fitting else (_SIZES[-1][0], _SIZES[-1][2])


def _width(line: str) -> float:
    """In digits: capitals and most signs are wider."""
    return sum(1.35 if letter.isupper() or letter in "+±%×→" else 1 for letter in line)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _for_label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9:]+", "-", text).strip("-")


def _heading(text: str) -> str:
    lines = r" \\ ".join(_latex(line) for line in text.split("\n"))
    return rf"\shortstack[r]{{{lines}}}" if "\n" in text else lines


def _latex(text: str) -> str:
    """Escaped; a hyphen before a number that stands alone, or in parentheses, is a minus."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![^\s(])-(?=\d)", "$-$", escaped)
