"""The worker's side of the engine `local`."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from kdbench import signals
from kdbench.errors import KdbenchError, first_line
from kdbench.runner.assignment import Assignment, Died, Ended, Ready, Said
from kdbench.runner.job_folder import LOG


class _Forward(logging.Handler):
    """Warnings go to the process that shows them."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(logging.WARNING)
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self._connection.send(Said(record.getMessage()))


def main() -> None:
    """Run jobs until the process that started this one is gone; the last argument is the descriptor of the connection to it."""
    for number in signals.STOPS:
        signal.signal(number, signal.SIG_IGN)  # that process hears them, and tells
    connection = Connection(int(sys.argv[-1]))
    os.register_at_fork(after_in_child=connection.close)  # a process that reads images must not outlive this one for the other side
    setup = connection.recv()
    import torch

    try:
        from kdbench.runner.worker import Worker
        from kdbench.training.device import choose_device, environment, try_out

        logging.getLogger("kdbench").addHandler(_Forward(connection))
        setup.plugins.load()
        device = choose_device(setup.device)
        if setup.threads:
            torch.set_num_threads(setup.threads)
        try_out(device)
        connection.send(Ready(environment(device)))
        jobs: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        stop = threading.Event()
        threading.Thread(target=_listen, args=(connection, jobs, stop), daemon=True).start()

        def give_up(text: str) -> None:
            connection.send(Died(text.rstrip(".")))
            os._exit(1)

        worker = Worker(device, setup.cache, connection.send, stop.is_set, give_up)
        while True:
            folder, packed = jobs.get()
            with (Path(folder) / LOG).open("ab") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            connection.send(Ended(_run(worker, Assignment.unpacked(packed, Path(folder)), Path(folder))))
    except Exception as problem:  # whatever it is, another worker may do better: the process that started this one decides
        text = str(problem) if isinstance(problem, KdbenchError) else f"{type(problem).__name__}: {first_line(problem)}"
        ends_run = isinstance(problem, KdbenchError) and not isinstance(problem.__cause__, torch.AcceleratorError)
        connection.send(Died(text.rstrip("."), log=traceback.format_exc(), ends_run=ends_run))
        os._exit(1)


def _run(worker: object, assignment: Assignment, folder: Path) -> bool:
    from kdbench.runner.worker import Worker
    from kdbench.training.fatal_errors import fatal_errors_explained

    assert isinstance(worker, Worker)
    with fatal_errors_explained():
        return worker.run(assignment, folder)


def _listen(connection: Connection, jobs: queue.SimpleQueue[tuple[str, bytes]], stop: threading.Event) -> None:
    """Take jobs and requests to stop from the process that started this one, and end with it."""
    from multiprocessing.reduction import ForkingPickler

    try:
        while True:
            data = connection.recv_bytes()
            if data:
                jobs.put(ForkingPickler.loads(data))
            else:
                stop.set()
    except (EOFError, OSError):
        os._exit(1)
