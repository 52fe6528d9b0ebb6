"""Signals that ask a command to stop: which do, what a second one does, and what stays ignored."""

import os
import pty
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from kdbench import signals
from kdbench.signals import STOPS, Interrupted, Stop, on_stop


@pytest.fixture(autouse=True)
def _handlers_as_before(signals_heard: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(signals, "WAIT_MS", 0)
    monkeypatch.setattr("sys.unraisablehook", sys.unraisablehook)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def test_what_keyboards_terminals_and_schedulers_send():
    assert set(STOPS) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}


@pytest.fixture
def stop() -> Stop:
    """One that listens."""
    stop = Stop()
    stop.listen()
    return stop


@pytest.mark.parametrize("number", STOPS)
def test_it_stops_the_block_that_says_what_to_tell(number, stop):
    with pytest.raises(Interrupted, match="one can go on"), on_stop("one can go on"):
        signal.raise_signal(number)


@pytest.mark.parametrize("fault", [ValueError("a fault"), SystemExit(0)])
def test_what_a_library_makes_of_it_is_that_again(fault, stop):
    with pytest.raises(type(fault)), stop.heard():
        raise fault
    with pytest.raises(Interrupted, match="before the end"), stop.heard():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            raise fault from None


def test_what_a_library_drops_comes_in_the_end(stop):
    with pytest.raises(Interrupted, match="before the end"), stop.heard(), suppress(Interrupted):
        signal.raise_signal(signal.SIGTERM)


class InADestructor:
    """Something whose end a signal falls into."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def in_a_weak_reference() -> None:
    """A signal falls into the callback of a weak reference."""
    thing = threading.Event()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    assert reference() is None


@pytest.mark.parametrize("drop", [InADestructor, in_a_weak_reference])
def test_what_python_drops_is_raised_again_a_moment_later(drop, stop, capfd):
    with pytest.raises(Interrupted), stop.heard():
        drop()
        time.sleep(5)
        pytest.fail("nothing stopped it")
    assert stop.asked and capfd.readouterr().err == ""
    time.sleep(2 * signals.AGAIN_S)  # and once


def test_a_command_may_go_on_after_a_block_that_a_signal_ends(stop):
    with stop.heard():
        with stop.ends():
            signal.raise_signal(signal.SIGTERM)
        assert not stop.raised


def test_other_faults_in_destructors_are_told_as_ever(stop, capfd):
    class Faulty:
        def __del__(self) -> None:
            raise ValueError("a fault in a destructor")

    Faulty()
    assert "a fault in a destructor" in capfd.readouterr().err


def test_another_one_ends_the_process_but_a_terminal_may_close_with_several(stop):
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)
    assert {signal.getsignal(number) for number in set(STOPS) - {signal.SIGHUP}} == {signal.SIG_DFL}


@pytest.mark.parametrize("number", STOPS)
def test_what_is_ignored_from_the_start_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    stop = Stop()
    stop.listen()
    signal.raise_signal(number)
    assert not stop.asked
    with pytest.raises(Interrupted):
        signal.raise_signal(next(other for other in STOPS if other != number))
    signal.raise_signal(number)


@pytest.fixture
def training(stop) -> Iterator[None]:
    """While epochs are trained."""
    with stop.at_epochs("stopping soon") as asked:
        assert not asked()
        yield


@pytest.mark.usefixtures("training")
@pytest.mark.parametrize("number", STOPS)
def test_while_epochs_are_trained_the_first_is_told_and_the_second_stops_at_once(number, stop, capfd):
    signal.raise_signal(number)
    assert stop.asked
    assert capfd.readouterr().err == "stopping soon\n"
    if number == signal.SIGHUP:
        return
    with pytest.raises(Interrupted):
        signal.raise_signal(number)


@pytest.mark.usefixtures("training")
def test_a_schedulers_end_after_its_warning_stops_at_once():
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("training")
@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([signal.SIGHUP, signal.SIGHUP, signal.SIGHUP], 1),
        ([signal.SIGTERM, signal.SIGHUP, signal.SIGHUP], 1),
        ([signal.SIGHUP, signal.SIGTERM, signal.SIGHUP], 2),
    ],
)
def test_a_terminal_that_closes_lets_the_epoch_end_however_often_it_says_so(numbers, told, capfd):
    for number in numbers:
        signal.raise_signal(number)
    assert capfd.readouterr().err == told * "stopping soon\n"
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(Interrupted):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("number", STOPS)
def test_before_and_after_the_epochs_each_stops_at_once(before, number, stop):
    with stop.at_epochs("stopping soon") as asked:
        if before:
            with pytest.raises(Interrupted):
                signal.raise_signal(number)
            return
        asked()
    with pytest.raises(Interrupted):
        signal.raise_signal(number)


@pytest.mark.parametrize("opened", [pty.openpty, os.pipe])
def test_a_terminal_or_a_pipe_that_nobody_reads_raises_nothing_when_it_is_told(opened, stop):
    ours, terminal = opened()
    kept = [os.dup(stream) for stream in (1, 2)]
    try:
        os.dup2(terminal, 1), os.dup2(terminal, 2)
        with stop.at_epochs("stopping soon") as asked:
            asked()
            signal.raise_signal(signal.SIGINT)
            os.close(ours)
            signal.raise_signal(signal.SIGHUP)
        os.write(1, b"what is printed after it")
        os.write(2, b"what is told after it")
    finally:
        for stream, before in zip((1, 2), kept, strict=True):
            os.dup2(before, stream), os.close(before)
        os.close(terminal)
    assert stop.asked
