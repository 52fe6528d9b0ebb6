"""What takes seconds is told while it goes on, and what is quick is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

SLOW_S = 2.0
"""After so long a user wants to know what happens."""


@contextmanager
def told_if_slow(tell: Callable[[str], object], text: str) -> Iterator[None]:
    """Tell people the text if the block takes long, from another thread."""
    timer = Timer(SLOW_S, tell, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
