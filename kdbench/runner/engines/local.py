"""An engine of this machine: a process for each device."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from kdbench.runner.assignment import Assignment, Died, News
from kdbench.runner.engines.engine import Engine, Place
from kdbench.runner.job_folder import LOG
from kdbench.suite.plugins import OwnFiles

CPU = "cpu:"
"""Begins the name of a worker that shares the processor with others."""

STOP = b""
"""Asks a worker to stop at the end of its epoch."""


@dataclass(frozen=True)
class Setup:
    """What a worker is told when it starts."""

    device: str
    threads: int | None
    cache: Path
    plugins: OwnFiles


@dataclass(eq=False)
class _Process:
    popen: subprocess.Popen[bytes]
    connection: Connection
    folder: Path

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self.connection.close()


class Local(Engine):
    """A process for each place, which is used for one job after the other. It ends with this one, however that ends.

    Args:
        places: where.
        cache: where data sets keep what is slow to compute.
        plugins: the user's own files.
    """

    def __init__(self, places: Sequence[Place], *, cache: Path, plugins: OwnFiles) -> None:
        self._places = tuple(places)
        self._cache = cache
        self._plugins = plugins
        self._processes: dict[Place, _Process] = {}

    @property
    def places(self) -> Sequence[Place]:
        return self._places

    def start(self, place: Place, assignment: Assignment, folder: Path) -> None:
        self.start_packed(place, assignment.packed(), folder)

    def start_packed(self, place: Place, packed: bytes, folder: Path) -> None:
        """`start`, with an assignment that another process has packed."""
        process = self._processes.get(place) or self._begin(place, folder)
        process.folder = folder
        try:
            process.connection.send((str(folder), packed))
        except OSError:  # it has died since its last job: `news` tells
            return

    def news(self, timeout_s: float) -> Iterator[tuple[Place, News]]:
        by_connection = {process.connection: place for place, process in self._processes.items()}
        for connection in wait([*by_connection], timeout_s):
            assert isinstance(connection, Connection)
            place = by_connection[connection]
            try:
                while connection.poll():
                    news = connection.recv()
                    if isinstance(news, Died):
                        self._processes.pop(place).end()
                    yield place, news
                    if isinstance(news, Died):
                        break
            except (EOFError, OSError):
                yield place, self._died(place)

    def stop(self) -> None:
        for process in self._processes.values():
            try:
                process.connection.send_bytes(STOP)
            except OSError:  # it has died: `news` tells
                continue

    def cancel(self, place: Place) -> None:
        if process := self._processes.get(place):
            process.popen.kill()

    def close(self) -> None:
        for process in self._processes.values():
            process.end()
        self._processes.clear()

    def _begin(self, place: Place, folder: Path) -> _Process:
        ours, theirs = Pipe()
        environment = dict(os.environ)
        if place.threads:
            environment |= {name: str(place.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        # It finds what this one finds. With -m it would begin in the working folder, where a user's queue.py may lie.
        code = f"import sys; sys.path[:] = {sys.path!r}; from kdbench.runner.engines import process; process.main()"
        with (folder / LOG).open("ab") as log:
            popen = subprocess.Popen(
                [sys.executable, "-c", code, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a signal from the keyboard is for this process, which tells the others
            )
        theirs.close()
        setup = Setup(place.device, place.threads, self._cache.absolute(), self._plugins)
        ours.send(setup)
        self._processes[place] = found = _Process(popen, ours, folder)
        return found

    def _died(self, place: Place) -> Died:
        process = self._processes.pop(place)
        process.connection.close()
        status = process.popen.wait()
        how = f"was killed by {_name_of(-status)}" if status < 0 else f"ended with status {status}"
        return Died(f"its process on {place.name} {how}")


def _name_of(number: int) -> str:
    """Of a signal; those for programs' own use have none."""
    return signal.Signals(number).name if number in [*signal.Signals] else f"signal {number}"


def local_places(text: str) -> list[Place]:
    """The places of `all`, `cuda:0,cuda:1`, `cpu:2` or one device."""
    import torch

    from kdbench.training.device import choose_device

    host, names = socket.gethostname(), place_names(text)
    if names[0].startswith(CPU):
        threads = max(1, torch.get_num_threads() // len(names))
        return [Place(name, host, "cpu", threads) for name in names]
    return [Place(str(device), host, str(device)) for device in map(choose_device, names)]


def place_names(text: str) -> list[str]:
    """Their names alone: the devices need not be there.

    Raises:
        KdbenchError: a word names no device, a device is named twice, or what should be a number of workers is none.
    """
    from kdbench.errors import KdbenchError
    from kdbench.training.device import named_device

    if text == "all":
        import torch

        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) < len(names):
        raise KdbenchError(f"--device: '{text}' names a device twice. Name each once.")
    if not any(name.startswith(CPU) for name in names):
        for name in names:
            if name != "auto":
                named_device(name)
        return names
    workers = text.strip().removeprefix(CPU)
    if not workers.isdecimal() or not int(workers):
        raise KdbenchError(f"--device: '{text}' is no number of workers on the CPU. Write cpu:2 alone for two of them.")
    return [f"{CPU}{i}" for i in range(int(workers))]
