"""Signals that ask a command to stop: which do, what a second one does, and what stays ignored."""

import signal
from collections.abc import Iterator

import pytest

from kdbench.signals import STOPS, Interrupted, Stop, on_stop


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


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


def test_a_schedulers_warning_is_told_and_the_second_stops_at_once(stop, capfd):
    with stop.warned("stopping soon"):
        assert not stop.asked
        signal.raise_signal(signal.SIGUSR1)
        assert stop.asked
        assert capfd.readouterr().err == "stopping soon\n"
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGUSR1)


def test_after_the_block_a_warning_stops_as_any_other_signal(stop):
    with stop.warned("stopping soon"):
        pass
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGUSR1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_python_drops_is_still_known(stop):
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    Dying()
    assert stop.asked
