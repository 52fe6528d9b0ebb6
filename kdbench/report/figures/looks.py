"""One look for each method in every figure: colour, marker and dash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.lines import Line2D

from kdbench.report.compare import Comparison

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
"""Okabe and Ito's palette without yellow and black, and a wine red: any two differ under each kind of colour blindness."""

_SHAPES = (("o", ()), ("s", (5, 1.5)), ("^", (1.5, 1.2)), ("D", (6, 1.5, 1.5, 1.5)))
"""Marker, and lengths of ink and gap in points; a line without them is solid."""

_KNOWN = (
    *("KD", "AT", "FitNets", "FT", "AT+KD", "FT+KD", "FitNets hint"),
    *("SP", "CC", "VID", "RKD", "PKT", "AB", "FSP"),
    *("NST", "CRD", "OFD", "ReviewKD", "DKD", "DIST", "SimKD"),
)
"""Methods whose looks never depend on what stands beside them; seven colours to a line."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: str
    marker: str
    dashes: tuple[float, ...]

    def mark(self, *, label: str) -> Line2D:
        """A marker for a legend."""
        return Line2D([], [], color=self.colour, marker=self.marker, linestyle="", markersize=4.5, label=label)

    def line(self, *, width: float, label: str = "") -> Line2D:
        """A line for a legend or, with its data set, for a panel."""
        return Line2D([], [], color=self.colour, linestyle=(0, self.dashes) if self.dashes else "-", linewidth=width, label=label)


def method_looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label; up to 29 labels all look different.

    Scratch is black. A known method always has its own look; a new one has the look that its name hashes to, or the next one that
    is free among `labels`.
    """
    looks = [Look(colour, *shape) for shape in _SHAPES for colour in _COLOURS]
    fixed = {"scratch": Look("#000000", "o", ()), **dict(zip(_KNOWN, looks, strict=False))}
    labels = list(labels)
    chosen = {label: fixed[label] for label in labels if label in fixed}
    for label in sorted(set(labels) - set(chosen)):
        start = int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest()) % len(looks)
        turn = looks[start:] + looks[:start]
        chosen[label] = next((look for look in turn if look not in chosen.values()), turn[0])
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
