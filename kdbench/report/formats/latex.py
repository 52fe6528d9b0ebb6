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

_NARROW, _WIDE = " .,:;()'_Iijlfrst", "mw-+±%&#×→<>=≥—"
"""Characters that are narrower and wider than a digit; so are capitals."""

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


_NO_NAMES: Mapping[str, str] = MappingProxyType({})

_CITATION = 4.0
"""Digits that a citation is about as wide as."""


def to_latex(table: Table, *, options: ReportOptions = DEFAULT, prefix: str = "", names: Mapping[str, str] = _NO_NAMES) -> str:
    """The table as `options.latex` says: floating with its notes under it, or a tabular alone.

    Args:
        table: what is to be printed.
        options: of a report.
        prefix: what the label begins with, such as the report's name: `tab:quick-test-error`.
        names: LaTeX for what has one of these texts, as `kdbench.report.formats.latex_names` gives it.
    """
    table = table.shaped(lambda shape: max(len(shape.columns), _COLUMNS))
    notes = [escaped(note) for note in table.notes]
    if options.latex == "tabular":
        told = (f"% {' '.join(note.split())}" for note in (escaped(table.title), *notes))
        return "\n".join([*told, *_tabular(table, names)]) + "\n"
    table, letters, space = _fitting(table, _WIDTHS[options.latex], names)
    label = "-".join(filter(None, (_for_label(options.label or prefix), table.name.replace("_", "-"))))
    lines = [
        rf"\begin{{{options.latex}}}[htbp]",
        r"\centering",
        rf"\caption{{{_sentence(escaped(table.title))}}}",
        rf"\label{{tab:{label}}}",
        r"\smallskip",
        rf"\{letters}",
        rf"\setlength{{\tabcolsep}}{{{space:g}pt}}",
        *_tabular(table, names),
        *([r"\par\smallskip", r"\begin{minipage}{\linewidth}", r"\footnotesize", *notes, r"\end{minipage}"] if notes else []),
        rf"\end{{{options.latex}}}",
    ]
    return "\n".join(lines) + "\n"


def _tabular(table: Table, names: Mapping[str, str]) -> Iterator[str]:
    """The lines of the tabular."""
    yield rf"\begin{{tabular}}{{{'l' * table.naming + 'r' * (len(table.columns) - table.naming)}}}"
    yield r"\toprule"
    if table.groups:
        yield from _group_headings(table)
    yield " & ".join(names.get(text) or _heading(text) for text in table.columns) + r" \\"
    for row in table.rows[: table.head]:
        yield _row(row, names)
    yield r"\midrule"
    for position, row in enumerate(table.rows[table.head :]):
        if position and (row.opens_group or row.heading):
            yield r"\midrule"
        if row.heading:
            yield rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{escaped(row.heading)}}}}} \\"
        yield _row(row, names)
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _group_headings(table: Table) -> Iterator[str]:
    """A line of headings over the columns of a group, and one of rules under them."""
    cells, rules, first = [], [], 1
    for heading, same in groupby(table.groups):
        count = len(list(same))
        cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escaped(heading)}}}" if heading else " & ".join([""] * count))
        if heading:
            rules.append(rf"\cmidrule(lr){{{first}-{first + count - 1}}}")
        first += count
    yield " & ".join(cells) + r" \\"
    yield " ".join(rules)


def _row(row: Row, names: Mapping[str, str]) -> str:
    return " & ".join(names.get(cell.text) or _cell(cell) for cell in row.cells) + r" \\"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else rf"\underline{{{text}}}" if cell.underlined else text
    return text + (rf"\rlap{{$^{{{_MARKS[cell.mark]}}}$}}" if cell.mark else "")


_MARKS = {"*": "*", "†": r"\dagger"}


def _fitting(table: Table, width: float, names: Mapping[str, str]) -> tuple[Table, str, float]:
    """The table, the size of its letters, and the space beside columns with which it fits into so many points.

    Before letters become smaller, the names of groups stand over their rows and not in a column.
    """
    shapes = [(shape, _digits(shape, names)) for shape in (table, table.under_names())]
    for letters, digit, space in _SIZES:
        for shape, digits in shapes:
            if digits * digit + 2 * space * len(shape.columns) <= width:
                return shape, letters, space
    return shapes[-1][0], letters, space


def _digits(table: Table, names: Mapping[str, str]) -> float:
    """How many digits are as wide as all columns without the space between them."""
    columns = zip(map(Cell, table.columns), *(row.cells for row in table.rows), strict=True)
    return sum(max(_width(cell) + _CITATION * (r"\cite" in names.get(cell.text, "")) for cell in column) for column in columns)


def _width(cell: Cell) -> float:
    """In digits, of the longest line."""
    wide = max(sum(map(_width_of, line)) for line in cell.plain.split("\n"))
    return wide * (1.15 if cell.bold else 1)


def _width_of(character: str) -> float:
    if character in _NARROW:
        return 0.75
    return 1.55 if character.isupper() or character in _WIDE else 1.03


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _for_label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9:]+", "-", text).strip("-")


def _heading(text: str) -> str:
    lines = r" \\ ".join(escaped(line) for line in text.split("\n"))
    return rf"\shortstack[r]{{{lines}}}" if "\n" in text else lines


def escaped(text: str) -> str:
    """Text as LaTeX prints it; a hyphen before a number that stands alone, or in parentheses, is a minus."""
    printed = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![^\s(])-(?=\d)", "$-$", printed)
