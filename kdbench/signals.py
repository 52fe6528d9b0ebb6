"""Signals that ask a command to stop: from the keyboard, from a terminal that closes, from a scheduler."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

HANGUP, WARNING = (getattr(signal, name, None) for name in ("SIGHUP", "SIGUSR1"))
"""Windows has neither."""

STOPS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP, WARNING) if number is not None)
"""Schedulers send SIGUSR1 as a warning, a while before the end; nohup ignores SIGHUP."""

WAIT_MS = 100
"""In which a program that reads what this one prints, and is sent the same signal, ends."""

AGAIN_S = 0.02
"""So long after it was lost an interruption is raised again."""

BEFORE_THE_END = "stopped before the end."


class Interrupted(BaseException):
    """A signal asked this process to stop; no handler of exceptions in between takes it for something else.

    Its text is what to tell the user.
    """


class Stop:
    """Listens for `STOPS`, each of which raises `Interrupted`, except in a block of `at_epochs`.

    What raises it may be in a destructor or in the callback of a weak reference, where Python drops it: then it is raised again, a
    moment later. A library may take it for a fault of its own, or drop it, too: `heard` raises it in the end.

    Attributes:
        asked: whether one has come.
        raised: whether `Interrupted` was raised, and the command has not gone on after a block of `ends`.
    """

    def __init__(self) -> None:
        self.asked = self.raised = False
        self._text = ""
        self._deferred = self._dropped = False

    def listen(self) -> None:
        """Begin; what whoever started this process has it ignore stays ignored."""
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)
        sys.unraisablehook = self._drop

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
    def heard(self) -> Iterator[None]:
        """Raises `Interrupted` in the end where a signal raised it in the block, whether it came through or not."""
        try:
            yield
        except Interrupted:
            self._arrived()
            raise
        except BaseException:
            if not self.raised:
                raise
        if self.raised:
            self._arrived()
            raise Interrupted(BEFORE_THE_END)

    @contextmanager
    def ends(self) -> Iterator[None]:
        """A block that a signal may end, as is meant: the command goes on after it."""
        with suppress(Interrupted), self.heard():
            yield
        self.raised = False

    def _drop(self, what: sys.UnraisableHookArgs) -> None:
        """Python drops an exception: where it is `Interrupted`, it comes again, else it is told as usual."""
        if not isinstance(what.exc_value, Interrupted):
            sys.__unraisablehook__(what)
        elif hasattr(signal, "setitimer"):  # Windows lacks it: there the command ends when `heard` does
            self._dropped = True
            signal.signal(signal.SIGALRM, self._again)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    def _arrived(self) -> None:
        """It need not come again."""
        if self._dropped:
            self._dropped = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _again(self, number: int, frame: FrameType | None) -> None:
        if self._dropped:
            self._dropped = False
            raise Interrupted(BEFORE_THE_END)

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
