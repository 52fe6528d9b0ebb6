"""One look for each method in every figure: colour, marker and dash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.lines import Line2D

from kdbench.report.compare import Comparison

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
"""Okabe and Ito's palette without yellow and black, and a wine red: any two differ under each kind of colour blindness."""

_SHAPES = (("o", ()), ("s", (5, 1.5)), ("^", (1.5, 1.2)), ("D", (3.5, 1.2, 1.2, 1.2)))
"""Marker, and lengths of ink and gap as multiples of a line's width; a line without them is solid."""

_FURTHER_SHAPES = (
    ("v", (1.2, 2.6)),
    ("P", (3.5, 1.2, 1.2, 1.2, 1.2, 1.2)),
    ("<", (8, 2)),
    (">", (3.5, 1.2, 3.5, 1.2, 1.2, 1.2)),
)
"""Those of methods for which none of the first is left."""

_KNOWN = (
    *("KD", "AT", "FitNets", "FT", "AT+KD", "FT+KD", "FitNets hint"),
    *("SP", "CC", "VID", "RKD", "PKT", "AB", "FSP"),
    *("NST", "CRD", "OFD", "ReviewKD", "DKD", "DIST", "SimKD"),
)
"""Methods whose looks never depend on what stands beside them; seven colours to a line."""

MARKERS_APART = 0.25
"""From one marker of a line to the next, as a part of the panel's diagonal."""

_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, are far from one another."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: str
    marker: str
    dashes: tuple[float, ...]

    def mark(self, *, label: str) -> Line2D:
        """A marker for a legend."""
        return Line2D([], [], color=self.colour, marker=self.marker, linestyle="", markersize=4.5, label=label)

    def line(self, *, width: float, label: str = "", marked: bool = False) -> Line2D:
        """A line for a legend or, with its data set, for a panel; `marked` where dashes alone do not tell it from others."""
        return Line2D(
            [],
            [],
            color=self.colour,
            linestyle=(0, self.dashes) if self.dashes else "-",
            linewidth=width,
            marker=self.marker if marked else "",
            markersize=2.8 * width,
            label=label,
        )


def colours_repeat(looks: Iterable[Look]) -> bool:
    """Whether two of them have one colour, so that their lines need markers."""
    colours = [look.colour for look in looks]
    return len(set(colours)) < len(colours)


def spread_markers(line: Line2D, *, number: int) -> None:
    """Give a line of many points some markers, at other places than the lines of other numbers."""
    line.set_markevery((MARKERS_APART * (number * _GOLDEN % 1), MARKERS_APART))


def method_looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label; up to 57 labels all look different.

    Scratch is black. A known method always has its own look; a new one has the look that its name hashes to, or the next one of a
    colour that is free among `labels`, or where none is, the next one that is free.
    """
    looks, further = ([Look(colour, *shape) for shape in shapes for colour in _COLOURS] for shapes in (_SHAPES, _FURTHER_SHAPES))
    fixed = {"scratch": Look("#000000", "o", ()), **dict(zip(_KNOWN, looks, strict=False))}
    labels = list(labels)
    chosen = {label: fixed[label] for label in labels if label in fixed}
    for label in sorted(set(labels) - set(chosen)):
        start = int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest()) % len(looks)
        turn = looks[start:] + looks[:start] + further
        used, colours = set(chosen.values()), {look.colour for look in chosen.values()}
        free = [look for look in turn if look not in used] or turn[:1]
        chosen[label] = next((look for look in free if look.colour not in colours), free[0])
    return {label: chosen[label] for label in labels}


def looks_of(comparison: Comparison) -> dict[str, Look]:
    """The look of each method of a comparison, by its label; a method that the report calls otherwise keeps its look."""
    usual = comparison.usual_labels
    looks = method_looks(usual.values())
    return {label: looks[usual[label]] for label in comparison.labels}


def colours_of(comparison: Comparison) -> dict[str, str]:
    """The colour of each method of a comparison, by its label."""
    return {label: look.colour for label, look in looks_of(comparison).items()}


def method_colours(labels: Iterable[str]) -> dict[str, str]:
    """The colour of each label, as in every figure."""
    return {label: look.colour for label, look in method_looks(labels).items()}
