"""An engine of a Ray cluster: an actor for each GPU, or for some CPUs, on whatever machine has them free."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from kdbench import signals
from kdbench.errors import KdbenchError, first_line
from kdbench.models.weights import METHOD, WEIGHTS
from kdbench.runner.assignment import Assignment, Died, Ended, News
from kdbench.runner.engines.engine import Engine, Place
from kdbench.runner.engines.parcel import contents, unpack
from kdbench.runner.engines.wish import wished
from kdbench.runner.job_folder import add_to_log
from kdbench.suite.plugins import OwnFiles
from kdbench.wording import counted

os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # Ray prints the logs of nodes that are lost, whatever `init` is told
try:
    import ray
except ImportError:
    raise KdbenchError("the engine ray needs Ray. Install it with pip install 'kdbench[ray]'.") from None

from ray.exceptions import OutOfMemoryError, RayError

from kdbench.runner.engines.ray_worker import RayWorker, Told, Where, own_code

CHECKPOINT_EVERY_S = 600.0
"""How often the checkpoints of a running job are brought here: so much of its training the loss of a node costs at most."""

LOOK_EVERY_S = 5.0
"""How often the engine looks for nodes that have joined."""

NEWS_WITHIN_S = 20.0
"""How long a worker waits for news before it answers that there are none."""

SAY_AFTER_S = 30.0
"""Without a worker for so long, the engine says what it waits for."""

MOST_FAILURES = 3
"""So many workers in a row may fail to start before the run says so, or ends where there are no others."""

END_WITHIN_S = 10.0
"""How long workers that end have to send what they made."""


@dataclass(eq=False)
class _Worker:
    """An actor.

    Attributes:
        answer: what it was asked last and has not answered.
        place: where it is, once it is there.
        folder: of its job on this machine.
    """

    actor: Any
    answer: ray.ObjectRef[Any]
    place: Place | None = None
    folder: Path | None = None


class Ray(Engine):
    """Places of a cluster. They come when a worker is there, and go when it is lost. No file system is shared.

    Args:
        device: `auto` for GPUs, or CPUs where the cluster has no GPU; `cuda`; `cpu`; or `cpu:NUMBER` for so many workers.
        address: `auto`, or that of the cluster; empty for this machine alone.
        say: is told what a user must know.

    Raises:
        KdbenchError: there is no such cluster, or no such device.
    """

    def __init__(self, device: str, *, address: str, say: Callable[[str], None]) -> None:
        wished(device, [])  # a mistake is told before anything is started
        self._mine = not ray.is_initialized()
        if self._mine:
            if not address:
                say("Ray starts on this machine alone, since no --address was given.")
            _connect(address)
        nodes = _nodes()
        self._wish = wished(device, nodes)
        self._wanted = self._wish.workers(nodes)
        self._workers: list[_Worker] = []
        self._refused: dict[Place, str] = {}
        self._stored: dict[tuple[int, int], ray.ObjectRef[bytes]] = {}
        self._failures = 0
        self._stopping = False
        self._looked = -LOOK_EVERY_S
        self._say, self._waits_since = say, time.monotonic()
        options: dict[str, Any] = {"num_cpus": self._wish.threads} if self._wish.threads else {"num_cpus": 1, "num_gpus": 1}
        self._actor: Any = ray.remote(RayWorker).options(max_concurrency=4, max_restarts=0, scheduling_strategy="SPREAD", **options)
        self._plugins = ray.put(OwnFiles.loaded())

    @property
    def places(self) -> Sequence[Place]:
        return [worker.place for worker in self._workers if worker.place]

    @property
    def device(self) -> str:
        return "cpu" if self._wish.threads else "cuda"

    @property
    def capacity(self) -> int:
        return max(self._wanted, len(self._workers))

    @property
    def at_once(self) -> int:
        available: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        free = self._wish.room([available])
        return max(1, min(self.capacity, len(self.places) + free))

    def start(self, place: Place, assignment: Assignment, folder: Path) -> None:
        worker = self._at(place)
        worker.folder = folder
        if place in self._refused:
            return  # `news` tells
        packed, named = assignment.packed_to_travel()
        files = {**contents(folder), **named}
        worker.actor.start.remote(place, packed, list(files), *map(self._put, files.values()))

    def news(self, timeout_s: float) -> Iterator[tuple[Place, News]]:
        self._recruit()
        for worker in self._workers:
            if worker.place in self._refused and worker.folder:
                worker.folder = None
                yield worker.place, Died(self._refused[worker.place])
        self._say_what_is_waited_for()
        by_answer = {worker.answer: worker for worker in self._workers}
        if not by_answer:
            return
        answered, _ = ray.wait([*by_answer], timeout=timeout_s)
        if answered:
            answered, _ = ray.wait([*by_answer], num_returns=len(by_answer), timeout=0)
        for answer in answered:
            yield from self._hear(by_answer[answer])

    def stop(self) -> None:
        self._stopping = True
        for worker in self._workers:
            worker.actor.stop.remote()

    def close(self) -> None:
        workers, self._workers = self._workers, []
        ends = {worker.actor.end.remote(): worker for worker in workers if worker.place}
        if ends:
            answers = [*ends, *(worker.answer for worker in ends.values())]
            ray.wait(answers, num_returns=len(answers), timeout=END_WITHIN_S)
        for end, worker in ends.items():
            with suppress(RayError):  # it is lost, or takes longer
                for answer in (worker.answer, end):
                    for told in ray.get(answer, timeout=0):
                        _keep(told, worker)
        for worker in workers:
            ray.kill(worker.actor)
        if self._mine:
            ray.shutdown()

    def _hear(self, worker: _Worker) -> Iterator[tuple[Place, News]]:
        try:
            found = ray.get(worker.answer)
        except RayError as problem:
            self._give_up(worker)
            if worker.place:
                self._looked = -LOOK_EVERY_S  # another one at once
                # Its process, which trains, is another one, but Ray takes both for one where memory is full.
                blameless = not isinstance(problem, OutOfMemoryError)
                yield worker.place, Died(f"the worker on {worker.place.name} was lost", log=str(problem), blameless=blameless)
            else:
                self._could_not_start(problem)
            return
        if isinstance(found, Where):
            self._arrived(worker, found)
            found = []
        assert worker.place
        for told in found:
            _keep(told, worker)
            for news in told.news:
                if isinstance(news, Ended | Died):
                    worker.folder = None
                yield worker.place, news
        worker.answer = worker.actor.news.remote(NEWS_WITHIN_S)  # last: where the run ends in between, `close` hears all this again

    def _arrived(self, worker: _Worker, where: Where) -> None:
        self._failures = 0
        taken = {other.place for other in self._workers}
        device = self.device
        again = (f"{where.gpu} ({i})" for i in count(2))  # of another machine of that name
        numbers = chain([where.gpu], again) if where.gpu else map(str, count())
        names = (f"{where.host} {device}:{number}" for number in numbers)
        worker.place = next(
            place for place in (Place(name, where.host, device, self._wish.threads) for name in names) if place not in taken
        )
        self._refused.pop(worker.place, None)
        if where.code != own_code():
            self._refused[worker.place] = (
                f"{where.host} has kdbench {where.code[0]} (code {where.code[1]}), and this machine {own_code()[0]} (code "
                f"{own_code()[1]}): install the same on both"
            )
        if self._stopping:
            worker.actor.stop.remote()

    def _give_up(self, worker: _Worker) -> None:
        """Whatever it still tells is not heard, and another one is asked for."""
        self._workers.remove(worker)
        ray.kill(worker.actor)

    def _could_not_start(self, problem: RayError) -> None:
        """The run ends where no other worker is there or may still come."""
        self._failures += 1
        mend = f"{_cause(problem)}. Install the same kdbench on every node of it."
        if self._failures >= MOST_FAILURES and not self._workers:
            raise KdbenchError(f"no worker can start on the Ray cluster: {mend}")
        if self._failures == MOST_FAILURES:
            self._say(f"{MOST_FAILURES} workers in a row could not start: {mend} The run continues with the others.")

    def _recruit(self) -> None:
        """Ask the cluster for the workers that are wanted and not there."""
        if self._stopping or time.monotonic() - self._looked < LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        self._wanted = self._wish.workers(_nodes())
        for _ in range(self._wanted - len(self._workers)):
            actor = self._actor.remote(self._plugins, CHECKPOINT_EVERY_S)
            self._workers.append(_Worker(actor, actor.where.remote()))

    def _say_what_is_waited_for(self) -> None:
        if not self.places and time.monotonic() - self._waits_since > SAY_AFTER_S:
            self._waits_since = math.inf
            unit = counted(self._wish.threads, "CPU") if self._wish.threads else "1 GPU"
            self._say(f"waiting for a worker with {unit} on the Ray cluster. `ray status` shows what is in use.")

    def _at(self, place: Place) -> _Worker:
        return next(worker for worker in self._workers if worker.place == place)

    def _put(self, file: Path) -> ray.ObjectRef[bytes]:
        """The contents of a file, in the object store: of weights once for all jobs."""
        state = file.stat()
        key = (state.st_ino, state.st_mtime_ns)
        if key in self._stored:
            return self._stored[key]
        stored = ray.put(file.read_bytes())
        if file.name in (WEIGHTS, METHOD) and state.st_nlink > 1:  # without links each job has a copy of its own
            self._stored[key] = stored
        return stored


def _keep(told: Told, worker: _Worker) -> None:
    """Write the files that a worker tells of into the folder of its job."""
    if worker.folder:
        unpack(told.files, worker.folder)
        add_to_log(worker.folder, told.log)


def _nodes() -> list[Mapping[str, float]]:
    """What each node of the cluster has."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _connect(address: str) -> None:
    """Join a cluster, or start one on this machine.

    Raises:
        KdbenchError: it cannot be.
    """
    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        with _handlers_kept():
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as problem:
        place = f"at the address {address}" if address else "on this machine"
        raise KdbenchError(
            f"no Ray cluster can be used {place} ({first_line(problem).rstrip('.')}). Start one with `ray start --head`, and give "
            "the address that it prints."
        ) from problem


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """The block may not change what signals do, as Ray does."""
    before = {number: signal.getsignal(number) for number in signals.STOPS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _cause(problem: RayError) -> str:
    """The last line of what Ray says of a worker that could not start: the exception itself."""
    return ([line.strip() for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__])[-1].rstrip(".")
