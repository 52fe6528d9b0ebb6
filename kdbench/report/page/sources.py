"""What a page tells that no frame holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sources:
    """What lies on disk beside the frame. All of it may be missing: a page of a frame alone lacks those parts.

    Attributes:
        specs: by trial, all that determines it.
        environments: by trial, what it ran on.
        suite_files: the text of each suite's file, by its path as it was given.
        suite_pages: of several suites, by name, the address of the page of each that has one.
        commands: what to type to get these results again.
    """

    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    suite_files: Mapping[str, str] = field(default_factory=dict)
    suite_pages: Mapping[str, str] = field(default_factory=dict)
    commands: str = ""


NO_SOURCES = Sources()
"""Of a frame that comes from no directory."""
