"""What the views of the catalogue share: a value for `--json`, columns for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Value = dict[str, Any]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Indented lines with a column for each cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
