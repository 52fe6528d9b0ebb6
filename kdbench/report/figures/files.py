"""Figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

DOTS_PER_INCH = 200


def save(figure: Figure, stem: str | Path, *, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write `stem.png` (200 dots per inch) and `stem.pdf` (fonts embedded as TrueType); the bytes do not depend on the time."""
    stem = Path(stem)
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in formats]
    for file in files:
        metadata = {"CreationDate": None} if file.suffix == ".pdf" else {}
        with mpl.rc_context({"pdf.fonttype": 42}):
            figure.savefig(file, dpi=DOTS_PER_INCH, metadata=metadata)
    return files
