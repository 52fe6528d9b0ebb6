"""Signals that ask a command to stop: from the keyboard, from a terminal that closes, from a scheduler."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANGUP, WARNING = (getattr(signal, name, None) for name in ("SIGHUP", "SIGUSR1"))
"""Windows has neither."""

STOPS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP, WARNING) if number is not None)
"""Schedulers send SIGUSR1 as a warning, a while before the end; nohup ignores SIGHUP."""


class Interrupted(BaseException):
    """A signal asked this process to stop; no handler of exceptions in between takes it for something else.

    Its text is what to tell the user.
    """


class Stop:
    """Listens for `STOPS`, each of which raises `Interrupted`.

    Attributes:
        asked: whether one has come. Python drops exceptions in some places, such as destructors: what can stop asks this, too.
    """

    def __init__(self) -> None:
        self.asked = False
        self._warning = ""

    def listen(self) -> None:
        """Begin; what whoever started this process has it ignore stays ignored."""
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)

    @contextmanager
    def warned(self, text: str) -> Iterator[None]:
        """In the block, a SIGUSR1 that comes first raises nothing: it is told, and the block is to ask."""
        self._warning = text
        try:
            yield
        finally:
            self._warning = ""

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if number == WARNING and first and self._warning:
            os.write(2, f"{self._warning}\n".encode())  # print may be in the middle of something
            return
        for other in STOPS:  # another one ends the process; a terminal that closes sends several, and a session TERM with them
            if signal.getsignal(other) == self._hear:
                signal.signal(other, signal.SIG_IGN if other == HANGUP else signal.SIG_DFL)
        raise Interrupted("stopped before the end.")


@contextmanager
def on_stop(text: str) -> Iterator[None]:
    """What to tell where a signal stops the block."""
    try:
        yield
    except Interrupted:
        raise Interrupted(text) from None
