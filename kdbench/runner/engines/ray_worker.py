"""The side of the engine `ray` that runs on the nodes of the cluster: an actor that runs jobs with the engine `local`."""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import ray

import kdbench
from kdbench.errors import first_line
from kdbench.results.processes import is_over, this_process
from kdbench.runner.assignment import Died, Ended, News, Recorded
from kdbench.runner.engines.engine import Place
from kdbench.runner.engines.local import Local
from kdbench.runner.engines.parcel import Files, Watch, unpack
from kdbench.runner.job_folder import LOG
from kdbench.suite.code_hash import core_code
from kdbench.suite.plugins import OwnFiles

PREFIX, PROCESS = "kdbench-ray-", "process.json"
"""Of the folders of workers, and in each the process that it belongs to."""

STEP_S = 0.2
"""How long the worker waits for its process before it looks for requests."""


@dataclass(frozen=True)
class Where:
    """What a worker is, as it tells when it is there.

    Attributes:
        gpu: the number of its GPU on the host; empty where it has none.
        code: the version and the code of its kdbench.
    """

    host: str
    gpu: str
    code: tuple[str, str]


@dataclass(frozen=True)
class Told:
    """News, and the files that are to lie in the job's folder before they are told.

    Attributes:
        log: what is new in the log of the worker.
    """

    news: tuple[News, ...] = ()
    files: Files = field(default_factory=dict)
    log: bytes = b""


def own_code() -> tuple[str, str]:
    """The version and the hash of the code of this kdbench."""
    return kdbench.__version__, core_code()


class _Job:
    """A job's folder on this machine."""

    def __init__(self, folder: Path, files: Files) -> None:
        (folder / "trials").mkdir(parents=True)
        (folder / LOG).touch()
        unpack(files, folder)
        self.folder = folder
        self._watch = Watch(folder)
        self._log_sent = 0
        self.sent = time.monotonic()

    def told(self, *news: News, trial: str = "") -> Told:
        """With all that is new of one trial or, unless one is named, of all."""
        if trial:
            return Told(news, self._watch.changes(trial))
        self.sent = time.monotonic()
        with (self.folder / LOG).open("rb") as log:
            log.seek(self._log_sent)
            text = log.read()
        self._log_sent += len(text)
        return Told(news, self._watch.changes(), text)


class RayWorker:
    """An actor. A thread of its own runs its jobs, so that it can be asked for news and to stop at any time.

    Args:
        plugins: the user's own files.
        checkpoint_every_s: how often the checkpoints of a running job are sent, in seconds.
    """

    def __init__(self, plugins: OwnFiles, checkpoint_every_s: float) -> None:
        _remove_leftovers()
        self._folder = _new_folder()
        self._checkpoint_every_s = checkpoint_every_s
        self._local = Local((), cache=_cache(), plugins=plugins.copied(self._folder / "code"))
        self._requests: queue.SimpleQueue[tuple[Place, bytes, Files] | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._job: _Job | None = None
        self._stopped = self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def where(self) -> Where:
        """Where it is."""
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        return Where(socket.gethostname(), str(gpus[0]) if gpus else "", own_code())

    def start(self, place: Place, packed: bytes, names: list[str], *contents: bytes) -> None:
        """Run a job, given what it is and the files of its folder."""
        self._requests.put((place, packed, dict(zip(names, contents, strict=True))))

    def stop(self) -> None:
        """Stop the job at the end of its epoch, and one that comes later at its first."""
        self._requests.put(None)

    def news(self, timeout_s: float) -> list[Told]:
        """What has happened since the last call; waits for something, no longer than the time given."""
        found = []
        with suppress(queue.Empty):
            found.append(self._told.get(timeout=timeout_s))
            while True:
                found.append(self._told.get_nowait())
        return found

    def end(self) -> list[Told]:
        """End the job at once, and remove its folder; what has not been told, with the files that the job leaves."""
        self._ending = True
        self._thread.join()
        self._local.close()
        left = [*self.news(0), *([self._job.told()] if self._job else [])]
        shutil.rmtree(self._folder, ignore_errors=True)
        self._told.put(Told())  # for a call that waits
        return left

    def _run(self) -> None:
        while not self._ending:
            try:
                while not self._requests.empty():
                    self._do(self._requests.get())
                for _, news in self._local.news(STEP_S):
                    self._tell(news)
                if self._job and time.monotonic() - self._job.sent >= self._checkpoint_every_s:
                    self._told.put(self._job.told())
            except Exception as problem:  # such as a full disk: the other side decides, and another machine may do better
                self._local.close()
                self._remove_job()
                self._told.put(Told((Died(f"{type(problem).__name__}: {first_line(problem)}", log=traceback.format_exc()),)))

    def _do(self, request: tuple[Place, bytes, Files] | None) -> None:
        if request:
            place, packed, files = request
            self._job = _Job(Path(tempfile.mkdtemp(dir=self._folder)), files)
            self._local.start_packed(place, packed, self._job.folder)
        self._stopped = self._stopped or not request
        if self._stopped:
            self._local.stop()

    def _tell(self, news: News) -> None:
        if not self._job:
            self._told.put(Told((news,)))
        elif isinstance(news, Ended | Died):
            self._told.put(self._job.told(news))
            self._remove_job()
        elif isinstance(news, Recorded):
            self._told.put(self._job.told(news, trial=news.trial))
        else:
            self._told.put(Told((news,)))

    def _remove_job(self) -> None:
        if self._job:
            shutil.rmtree(self._job.folder, ignore_errors=True)
        self._job = None


def _cache() -> Path:
    """Where this machine keeps decoded images."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdbench"


def _new_folder() -> Path:
    """A folder for this worker, in which it stands whose it is."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    (folder / PROCESS).write_text(json.dumps(this_process()))
    return folder


def _remove_leftovers() -> None:
    """Remove the folders of workers that were killed, as far as that can be seen from here."""
    for file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{PROCESS}"):
        with suppress(OSError, ValueError):  # another user's, or just made
            if is_over(json.loads(file.read_text())):
                shutil.rmtree(file.parent, ignore_errors=True)
