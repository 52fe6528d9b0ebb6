"""What a table takes of a page in LaTeX, and the letters with which it fits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kdbench.report.tables.table import Cell, Table

_SIZES = (
    ("footnotesize", 4.25, 4.0, 9.5),
    ("footnotesize", 4.25, 2.5, 9.5),
    ("scriptsize", 3.98, 2.0, 8.0),
    ("tiny", 3.4, 2.0, 6.0),
)
"""Sizes of letters, the width of a digit, the space on each side of a column, and the height of a line, in points; the first that
fits is taken."""

_PAGE = 550.0
"""Points: the height of the text of an article on letter paper."""

_RULE = 5.0
"""Points that a line between rows takes, with the space around it."""

_BESIDE = 20.0
"""Points of white space under the caption and over the notes, and a little more, to be sure."""

_NARROW, _WIDE = " .,:;()'_Iijlfrst", "mw-+±%&#×→<>=≥—"
"""Characters that are narrower and wider than a digit; so are capitals."""

_CITATION = 4.0
"""Digits that a citation is about as wide as."""


@dataclass(frozen=True)
class Fitted:
    """A table as it is to be printed.

    Attributes:
        table: with the names of groups in a column, or over their rows.
        letters: their size, as a command of LaTeX.
        space: points beside each column.
        too_wide: points by which it is wider than the text all the same; 0 where it fits.
        long: whether it is longer than a page, with its caption and notes.
    """

    table: Table
    letters: str
    space: float
    too_wide: float
    long: bool


def fitted(table: Table, width: float, names: Mapping[str, str]) -> Fitted:
    """The largest letters with which a table is not wider than so many points.

    Before letters become smaller, the names of groups stand over their rows and not in a column.

    Args:
        table: what is to be printed.
        width: of the text.
        names: LaTeX for what has one of these texts.
    """
    shapes = [(shape, _digits(shape, names)) for shape in (table, table.under_names())]
    for letters, digit, space, line in _SIZES:
        for shape, digits in shapes:
            excess = digits * digit + 2 * space * len(shape.columns) - width
            found = Fitted(shape, letters, space, max(0.0, excess), _height(shape, line, width) > _PAGE)
            if excess <= 0:
                return found
    return found


def _height(table: Table, line: float, width: float) -> float:
    """Points of a table with its caption and notes, in lines of such a height."""
    heads = 1 + max(text.count("\n") for text in table.columns) + bool(table.groups)
    ruled = sum(row.opens_group or bool(row.heading) for row in table.rows)
    headed = sum(bool(row.heading) for row in table.rows)
    caption, notes = (
        height * math.ceil(_text(" ".join(texts)) * digit / width)
        for texts, digit, height in (((table.title,), 5.0, 12.0), (table.notes, 4.25, 9.5))
    )
    return line * (heads + len(table.rows) + headed) + _RULE * (3 + ruled) + caption + _BESIDE + notes


def _digits(table: Table, names: Mapping[str, str]) -> float:
    """How many digits are as wide as all columns without the space between them."""
    columns = zip(map(Cell, table.columns), *(row.cells for row in table.rows), strict=True)
    return sum(max(_width(cell) + _CITATION * (r"\cite" in names.get(cell.text, "")) for cell in column) for column in columns)


def _width(cell: Cell) -> float:
    """In digits, of the longest line."""
    wide = max(map(_text, cell.plain.split("\n")))
    return wide * (1.15 if cell.bold else 1)


def _text(line: str) -> float:
    """In digits."""
    return sum(map(_width_of, line))


def _width_of(character: str) -> float:
    if character in _NARROW:
        return 0.75
    return 1.55 if character.isupper() or character in _WIDE else 1.03
