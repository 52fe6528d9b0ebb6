"""An engine that runs jobs in this process, one epoch or more at a time, and whose workers die when a test wants it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from kdbench.runner.assignment import Assignment, Died, Ended, News, Ready
from kdbench.runner.engines import Engine, Place
from kdbench.runner.worker import Worker
from kdbench.training.device import environment


class Killed(BaseException):
    """Ends a worker as a signal would: nothing in between may catch it."""


Fate = Callable[[Place, Assignment, News], None]
"""Is asked at each news of a worker, and may raise `Killed`."""


class InProcess(Engine):
    """Places whose jobs run one after the other, each when its news are asked for.

    Args:
        names: of the places.
        cache: of decoded images.
        fate: what becomes of workers.
    """

    def __init__(self, *names: str, cache: Path, fate: Fate = lambda place, assignment, news: None) -> None:
        self._places = [Place(name, "this host", "cpu") for name in names]
        self._cache, self._fate = cache, fate
        self._jobs: list[tuple[Place, bytes, Path]] = []
        self._stopped = False
        self.closed = False
        self.started: list[tuple[str, str]] = []

    @property
    def places(self) -> Sequence[Place]:
        return self._places

    def start(self, place: Place, assignment: Assignment, folder: Path) -> None:
        assert all(place is not other for other, _, _ in self._jobs), "a place runs one job at a time"
        self.started.append((place.name, assignment.job.label))
        self._jobs.append((place, assignment.packed(), folder))

    def news(self, timeout_s: float) -> Iterator[tuple[Place, News]]:
        if not self._jobs:
            time.sleep(min(timeout_s, 0.02))
            return
        place, packed, folder = self._jobs.pop(0)
        told: list[News] = []
        assignment = Assignment.unpacked(packed, folder)

        def tell(news: News) -> None:
            self._fate(place, assignment, news)
            told.append(news)

        try:
            tell(Ready(environment(torch.device("cpu"))))
            worker = Worker(torch.device("cpu"), self._cache, tell, lambda: self._stopped)
            told.append(Ended(worker.run(assignment, folder)))
        except Killed as end:
            told.append(Died(str(end) or "killed by a test"))
        yield from ((place, news) for news in told)

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self.closed = True
