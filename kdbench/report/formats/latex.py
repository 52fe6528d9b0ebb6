"""A table as LaTeX, for a document that loads booktabs, and longtable where a table is longer than a page."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from kdbench.report.formats.latex_space import Fitted, fitted
from kdbench.report.tables.table import Cell, Row, Table
from kdbench.spec.report_options import DEFAULT, ReportOptions
from kdbench.wording import NO_BREAK, unbroken

_COLUMNS = 7
"""A wider table is turned where that makes it narrower."""

_WIDTHS = {"table": 345.0, "table*": 469.0}
"""Points: the text of an article with 10-point letters in one column, and in two."""

_LATEX: Mapping[str, str] = MappingProxyType(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        NO_BREAK: "~",
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


def to_latex(table: Table, *, options: ReportOptions = DEFAULT, prefix: str = "", names: Mapping[str, str] = _NO_NAMES) -> str:
    """The table as `options.latex` says: floating with its notes under it, or a tabular alone.

    One that is longer than a page is no float but a longtable, except over two columns, where LaTeX has none.

    Args:
        table: what is to be printed.
        options: of a report.
        prefix: what the label begins with, such as the report's name: `tab:quick-test-error`.
        names: LaTeX for what has one of these texts, as `kdbench.report.formats.latex_names` gives it.
    """
    table = table.shaped(lambda shape: max(len(shape.columns), _COLUMNS))
    notes = [escaped(unbroken(note)) for note in table.notes]
    if options.latex == "tabular":
        told = (f"% {' '.join(note.split())}" for note in (escaped(table.title), *notes))
        return "\n".join([*told, *_tabular(table, names)]) + "\n"
    place = fitted(table, _WIDTHS[options.latex], names)
    label = "-".join(filter(None, (_for_label(options.label or prefix), table.name.replace("_", "-"))))
    caption = rf"\caption{{{_sentence(escaped(table.title))}}}"
    size = (rf"\{place.letters}", rf"\setlength{{\tabcolsep}}{{{place.space:g}pt}}")
    if place.long and options.latex == "table":
        lines = [
            _PACKAGES,
            _ONE_COLUMN,
            *_misfit(place),
            *_over_pages(place.table, names, [caption, rf"\label{{tab:{label}}}"], size, notes),
        ]
        return "\n".join(lines) + "\n"
    lines = [
        *_misfit(place),
        *(
            ["% Longer than a page, and LaTeX breaks no float: show fewer methods (`kdbench report --methods`)."]
            if place.long
            else []
        ),
        rf"\begin{{{options.latex}}}[htbp]",
        r"\centering",
        caption,
        rf"\label{{tab:{label}}}",
        r"\smallskip",
        *size,
        *_tabular(place.table, names),
        *([r"\par\smallskip", r"\begin{minipage}{\linewidth}", r"\footnotesize", *notes, r"\end{minipage}"] if notes else []),
        rf"\end{{{options.latex}}}",
    ]
    return "\n".join(lines) + "\n"


_PACKAGES = r"% \usepackage{booktabs,longtable}"
_ONE_COLUMN = "% For text in one column. In two columns: `kdbench report --latex 'table*'`, with fewer methods (`--methods`)."


def packages(tables: Iterable[str]) -> str:
    """A comment with the packages that these texts of `to_latex` need."""
    return _PACKAGES if any(text.startswith(_PACKAGES) for text in tables) else r"% \usepackage{booktabs}"


def _misfit(place: Fitted) -> Iterator[str]:
    """A comment where no letters make the table fit."""
    if place.too_wide:
        yield f"% About {place.too_wide:,.0f} points wider than the text: show fewer methods (`kdbench report --methods`)."


def _over_pages(
    table: Table, names: Mapping[str, str], caption: Sequence[str], size: Sequence[str], notes: Sequence[str]
) -> Iterator[str]:
    """The lines of a longtable, which LaTeX breaks over pages, and of the notes after it."""
    heads = [r"\toprule", *_heads(table, names), r"\midrule"]
    yield r"\begingroup"
    yield from size
    yield r"\setlength{\LTcapwidth}{\linewidth}"
    yield r"\expandafter\def\expandafter\tablename\expandafter{\expandafter\normalsize\tablename} % the caption's letters"
    yield rf"\begin{{longtable}}{{{_alignment(table)}}}"
    yield "".join(caption) + r" \\"
    yield from (*heads, r"\endfirsthead")
    yield rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\tablename~\thetable, continued}} \\"
    yield from (*heads, r"\endhead", r"\bottomrule", r"\endfoot")
    yield from _body(table, names)
    yield r"\end{longtable}"
    if notes:
        yield from (r"\noindent\footnotesize\sloppy", *notes, r"\par")
    yield r"\endgroup"


def _tabular(table: Table, names: Mapping[str, str]) -> Iterator[str]:
    """The lines of the tabular."""
    yield rf"\begin{{tabular}}{{{_alignment(table)}}}"
    yield r"\toprule"
    yield from _heads(table, names)
    yield r"\midrule"
    yield from _body(table, names)
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _alignment(table: Table) -> str:
    return "l" * table.naming + "r" * (len(table.columns) - table.naming)


def _heads(table: Table, names: Mapping[str, str]) -> Iterator[str]:
    if table.groups:
        yield from _group_headings(table)
    yield _line(names.get(text) or _heading(text) for text in table.columns)
    for row in table.rows[: table.head]:
        yield _row(row, names)


def _body(table: Table, names: Mapping[str, str]) -> Iterator[str]:
    for position, row in enumerate(table.rows[table.head :]):
        if position and (row.opens_group or row.heading):
            yield r"\midrule"
        if row.heading:
            yield rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{escaped(row.heading)}}}}} \\*"
        yield _row(row, names)


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
    return _line(names.get(cell.text) or _cell(cell) for cell in row.cells)


def _line(cells: Iterable[str]) -> str:
    return _no_argument(" & ".join(cells)) + r" \\"


def _no_argument(text: str) -> str:
    """Text such as `[1] KD` that is not read as an argument of what stands before it: the end of a line, or a rule."""
    return "{}" + text if text.startswith(("[", "*")) else text


def _cell(cell: Cell) -> str:
    text = _heading(cell.text, "l") if "\n" in cell.text else escaped(cell.text)  # a heading, of a table that was turned
    text = rf"\textbf{{{text}}}" if cell.bold else rf"\underline{{{text}}}" if cell.underlined else text
    return text + (rf"\rlap{{$^{{{_MARKS[cell.mark]}}}$}}" if cell.mark else "")


_MARKS = {"*": "*", "†": r"\dagger"}


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _for_label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9:]+", "-", text).strip("-")


def _heading(text: str, side: str = "r") -> str:
    lines = r" \\ ".join(_no_argument(escaped(line)) for line in text.split("\n"))
    return rf"\shortstack[{side}]{{{lines}}}" if "\n" in text else lines


def escaped(text: str) -> str:
    """Text as LaTeX prints it; a hyphen before a number that stands alone, or in parentheses, is a minus.

    Backticks around a name are its quotation marks.
    """
    text = re.sub(r"`([^`]*)`", r"`\1'", text)
    printed = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![^\s(])-(?=\d)", "$-$", printed)
