"""What the views of the catalogue share: a value for `--json`, columns, YAML and its comments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import yaml

Value = dict[str, Any]

WIDTH = 100
"""Characters of a line."""


def as_yaml(value: Value) -> str:
    """YAML in which what is short stands on one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True).rstrip("\n")


def as_yaml_line(value: object) -> str:
    """YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


class _Dumper(yaml.SafeDumper):
    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=len(mapping) != 1 and len(str(mapping)) < WIDTH)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=len(str(sequence)) < WIDTH)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Indented lines with a column for each cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def head_comment(text: str) -> str:
    """The lines of comment with which a YAML file begins, without their signs."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in lines)


def first_sentence(text: str) -> str:
    """Of a description, without the full stop, in one line."""
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".:")


def size_text(size: float) -> str:
    """`512 B`, `2.1 kB`, `9.5 MB`, `1.3 GB`."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
