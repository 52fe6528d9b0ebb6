"""Signals that ask a command to stop: from the keyboard, from a terminal that closes, from a scheduler."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

HANGUP, WARNING = (getattr(signal, name, None) for name in ("SIGHUP", "SIGUSR1"))
"""Windows has neither."""

STOPS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP, WARNING) if number is not None)
"""Schedulers send SIGUSR1 as a warning, a while before the end; nohup ignores SIGHUP."""

WAIT_MS = 100
"""In which a program that reads what this one prints, and is sent the same signal, ends."""


BEFORE_THE_END = "stopped before the end."


class Interrupted(BaseException):
    """A signal asked this process to stop; no handler of exceptions in between takes it for something else.

    Its text is what to tell the user.
    """


class Stop:
    """Listens for `STOPS`, each of which raises `Interrupted`, except in a block of `at_epochs`.

    Attributes:
        asked: whether one has come. Python drops exceptions in some places, such as destructors: what can stop asks this, too.
        raised: whether `Interrupted` was raised.
    """

    def __init__(self) -> None:
        self.asked = self.raised = False
        self._text = ""
        self._deferred = False

    def listen(self) -> None:
        """Begin; what whoever started this process has it ignore stays ignored."""
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)

    @contextmanager
    def at_epochs(self, text: str) -> Iterator[Callable[[], bool]]:
        """What to ask at the start of every epoch: whether to stop there.

        From the first time that it is asked, the first signal raises nothing: it is told, in `text`, and the epoch ends first. The
        second one raises. A SIGHUP never does: a terminal that closes sends several, and the end of a session SIGTERM with them.
        """

        def stop() -> bool:
            self._text = text
            return self.asked

        try:
            yield stop
        finally:
            self._text = ""

    @contextmanager
    def unwrapped(self) -> Iterator[None]:
        """Raises `Interrupted` for what a library has made of it: pydantic takes it for a fault of what it calls."""
        try:
            yield
        except Exception:
            if self.raised:
                raise Interrupted(BEFORE_THE_END) from None
            raise

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        hangup = number == HANGUP
        _let_go_of_what_nobody_reads()
        if self._text and (hangup or not self._deferred):
            self._deferred = self._deferred or not hangup
            if not (hangup and again):
                _tell(self._text)
            return
        for other in STOPS:  # another one ends the process, but for the SIGHUP of a terminal that closes
            if signal.getsignal(other) == self._hear:
                signal.signal(other, signal.SIG_IGN if other == HANGUP else signal.SIG_DFL)
        self.raised = True
        raise Interrupted(BEFORE_THE_END)


def _tell(text: str) -> None:
    """Write a line; print may be in the middle of something, and a bar of progress in the middle of a line."""
    begin = "\n" if os.isatty(2) else ""
    with suppress(OSError):  # it may be full, and it is only told
        os.write(2, f"{begin}{text}\n".encode())


def _let_go_of_what_nobody_reads() -> None:
    """Send nowhere what is printed to a terminal that has closed, or to a program that the signal ends, too, such as `tee`."""
    if not hasattr(select, "poll"):  # Windows
        return
    watch = select.poll()
    for stream in (1, 2):
        watch.register(stream, 0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream, event in watch.poll(WAIT_MS):
        if event & (select.POLLHUP | select.POLLERR):
            os.dup2(nowhere, stream)
    os.close(nowhere)


@contextmanager
def on_stop(text: str) -> Iterator[None]:
    """What to tell where a signal stops the block."""
    try:
        yield
    except Interrupted:
        raise Interrupted(text) from None
