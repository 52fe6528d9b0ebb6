"""Whether the host waits for the device, for whoever watches over that: a call that waits for a device that hangs never ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Waiting:
    """Is told when the host begins to wait for the device, and when it has answered. That costs nothing of the device's time.

    Attributes:
        count: of the changes so far; odd while the host gives the device work, which waits where it has much, or reads numbers.
        lanes: whose work it is.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lanes: tuple[str, ...] = ()

    @contextmanager
    def for_device(self, lanes: Iterable[str]) -> Iterator[None]:
        """The host waits for the device in the block, but for blocks of `on_host` in it."""
        self.lanes = tuple(lanes)
        with self._changed():
            yield

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """In the block, inside one of `for_device`, the host waits for itself: it compiles, or reads files."""
        with self._changed():
            yield

    def items(self, items: Iterable[T]) -> Iterator[T]:
        """The items; the host makes each."""
        iterator = iter(items)
        while True:
            with self.on_host():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def _changed(self) -> Iterator[None]:
        self.count += 1
        try:
            yield
        finally:
            self.count += 1
