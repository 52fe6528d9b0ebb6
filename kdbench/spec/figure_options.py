"""How figures are drawn: the key `figures` in the section `report` of a suite, and options of `kdbench report`."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from kdbench.spec.recipe import Spec

FigureName = Literal["results", "forest", "ranks", "cost", "curves", "profile"]
FIGURE_NAMES: tuple[FigureName, ...] = get_args(FigureName)

LARGEST_IN = 60.0
"""Inches. A larger side is a slip of the finger."""

SLIDE_IN = (13.33, 7.5)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)")


def _size(text: str) -> str:
    match = _SIZE.fullmatch(text)
    if not match or not all(1 <= float(side) <= LARGEST_IN for side in match.groups()):
        raise ValueError(
            f"'{text}' is not the size of a figure. Give width and height in inches, from 1 to {LARGEST_IN:g} each, such as 3.3x2.4"
        )
    return text


class FigureOptions(Spec):
    """Which figures a report has, and how they look. They change no trial and no number."""

    only: tuple[FigureName, ...] = ()
    """Which figures there are: `results`, `forest` (gains), `ranks`, `cost`, `curves`, `profile`; the usual ones unless given."""
    style: Literal["paper", "slides"] = "paper"
    """What figures are drawn for: `paper`, a printed page; or `slides` of 13.33 x 7.5 inches, with larger letters."""
    columns: Literal[1, 2] | None = None
    """How many columns of a paper's text figures are wide: 1 is 3.3 inches, 2 is 6.8 inches. Unless given, 1 for one pair and 2 for
    several."""
    size: Annotated[str, AfterValidator(_size)] | None = None
    """Width and height of figures in inches, such as `3.3x2.4`, in place of `columns`."""
    font_size: Annotated[float, Field(ge=4, le=60)] | None = None
    """Points of the letters of figures, in titles and at axes; ticks and names are an eighth smaller. Unless given, 8 in a paper
    and 18 on a slide, or less where the figure would not fit: at least 7.5 in a paper and 11 on a slide."""
    title: bool = True
    """Whether figures have titles. Panels of several pairs keep their names in any case."""

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.columns and self.size:
            raise ValueError("`columns` and `size` both say how wide a figure is. Give one of them")
        if self.columns and self.style == "slides":
            raise ValueError(
                "`columns` are those of a paper, and a slide has none. Leave out `columns`, or choose the style `paper`"
            )
        return self

    @property
    def sheet_in(self) -> tuple[float, float] | None:
        """Width and height of the size or of the slide; None for a paper's column, where the height is what a figure needs."""
        if self.size:
            width, height = self.size.split("x")
            return float(width), float(height)
        return SLIDE_IN if self.style == "slides" else None


def figures_with(given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of figures, with changes that stand for them: a new size for a number of columns, too, and the reverse."""
    replaced = set(changes)
    if "columns" in changes:
        replaced |= {"size", "style"}
    if "size" in changes or changes.get("style") == "slides":
        replaced |= {"columns"}
    return {**{key: value for key, value in given.items() if key not in replaced}, **changes}
