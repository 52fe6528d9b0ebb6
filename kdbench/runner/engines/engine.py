"""The interface of an engine: it runs jobs at its places, and knows nothing of suites, plans and results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.runner.assignment import Assignment, News


@dataclass(frozen=True)
class Place:
    """Where one job runs at a time.

    Attributes:
        name: for people, such as `cuda:1` or `node7 cuda:1`.
        host: the machine.
        device: a torch device.
        threads: of a worker on the CPU; None for as many as torch takes.
    """

    name: str
    host: str
    device: str
    threads: int | None = None


class Engine(ABC):
    """Runs jobs. All calls come from one thread.

    `start` gives a job to a place, and `news` tells what came of it: `Ready` once a worker has its device, then of each job any
    number of `Said`, `Resumed`, `Trained` and `Recorded`, and in the end `Ended` or `Died`. A job's folder is as its worker left it
    when `Recorded`, `Ended` or `Died` is told, wherever it ran. After `Died` the next `start` at the place makes another worker.
    """

    @property
    @abstractmethod
    def places(self) -> Sequence[Place]:
        """The places that there are now."""

    @property
    def device(self) -> str:
        """What jobs run on, as torch calls it. This machine may lack it."""
        return self.places[0].device

    @property
    def capacity(self) -> int:
        """How many places there are to be; some may still come."""
        return len(self.places)

    @property
    def at_once(self) -> int:
        """How many jobs could run at once as things are; what others use of the places to come does not count."""
        return self.capacity

    @abstractmethod
    def start(self, place: Place, assignment: Assignment, folder: Path) -> None:
        """Let the place run a job in a folder that is laid out. The place must be free."""

    @abstractmethod
    def news(self, timeout_s: float) -> Iterable[tuple[Place, News]]:
        """What has happened since the last call, in order; waits for something, no longer than the time given."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all workers to stop at the end of their epoch; each then tells `Ended`."""

    def cancel(self, place: Place) -> None:
        """End the job at a place, since nobody wants what it makes; `Died` or `Ended` is told. Here it may run to its end."""
        return

    @abstractmethod
    def close(self) -> None:
        """End all workers at once."""
