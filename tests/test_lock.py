"""One writer for a results directory, with and without `flock`, and the sentence for everybody else."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kdbench.errors import KdbenchError
from kdbench.results.lock import _this_process, held


@pytest.fixture(params=["flock", "ENOSYS", "ENOLCK", "EOPNOTSUPP", "no fcntl"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system says when it is asked for `flock`."""
    if request.param == "no fcntl":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    elif request.param != "flock":
        _refuse_flock(monkeypatch, getattr(errno, request.param))
    return str(request.param)


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_flock(monkeypatch, errno.ENOSYS)


def _refuse_flock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def refusal(folder: Path) -> str:
    with pytest.raises(KdbenchError) as error, held(folder):
        pass
    return str(error.value)


def marked(folder: Path, **changes: Any) -> Path:
    """The marker of a process as this one, with changes."""
    marker = folder / ".writer"
    marker.write_text(json.dumps({**_this_process(flock=False), **changes}))
    return marker


def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_second_writer_is_told_who_the_first_is_and_comes_after_it(system, tmp_path):
    with held(tmp_path):
        told = refusal(tmp_path)
    assert re.fullmatch(
        rf"another kdbench is writing to {tmp_path}: process {os.getpid()} on {os.uname().nodename}, since "
        r"20\d\d-\d\d-\d\d \d\d:\d\d[+-]\d\d:\d\d\. Wait for it, or choose another directory with --results\.",
        told,
    )
    with held(tmp_path):
        pass
    assert not (tmp_path / ".writer").exists()


def test_a_writer_that_died_here_is_no_writer(system, tmp_path):
    marked(tmp_path, pid=dead())
    with held(tmp_path):
        assert f"process {os.getpid()} " in refusal(tmp_path)
    assert os.listdir(tmp_path) == [".lock"]


def test_the_number_of_a_dead_writer_may_be_another_processs_by_now(system, tmp_path):
    marked(tmp_path, started="1")
    with held(tmp_path):
        pass


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"namespace": "of another container"}])
def test_a_writer_of_another_host_is_told_with_the_way_out(changes, system, tmp_path):
    marker = marked(tmp_path, pid=dead(), **changes)
    told = refusal(tmp_path)
    assert told.endswith(f" Whether it still runs cannot be seen from here: if it does not, delete {marker}.")
    marker.unlink()
    with held(tmp_path):
        pass


def test_flock_ends_with_its_process_wherever_that_was(tmp_path):
    marked(tmp_path, host="elsewhere", flock=True)
    with held(tmp_path):
        pass
    (tmp_path / ".writer").write_text("")  # it died before it had written who it was
    with held(tmp_path):
        pass


def test_a_host_without_flock_sees_one_with_it(tmp_path, monkeypatch):
    with held(tmp_path):
        _refuse_flock(monkeypatch, errno.ENOLCK)
        assert f"process {os.getpid()} " in refusal(tmp_path)


@pytest.mark.usefixtures("no_flock")
def test_of_several_that_find_a_dead_writer_one_takes_over(tmp_path):
    number = 8

    def attempt(folder: Path, start: threading.Barrier, end: threading.Barrier) -> int:
        start.wait()
        try:
            with held(folder):
                end.wait()
                return 1
        except KdbenchError:
            end.wait()
            return 0

    pid = dead()
    with ThreadPoolExecutor(number) as pool:
        for turn in range(20):
            folder = tmp_path / str(turn)
            folder.mkdir()
            marked(folder, pid=pid)
            start, end = (threading.Barrier(number, timeout=5) for _ in range(2))
            assert sum(pool.map(lambda _: attempt(folder, start, end), range(number))) == 1  # noqa: B023  # the map ends in its turn


@pytest.mark.usefixtures("no_flock")
def test_a_dead_writer_may_be_replaced_while_it_is_looked_at(tmp_path, monkeypatch):
    def slow(*_: object, **__: object) -> bool:
        marked(tmp_path, pid=os.getppid())
        return True

    marked(tmp_path, pid=dead())
    monkeypatch.setattr("kdbench.results.lock._over", slow)
    assert f"process {os.getppid()} " in refusal(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", ".writer"]


def test_other_troubles_are_not_taken_for_a_missing_flock(tmp_path, monkeypatch):
    _refuse_flock(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), held(tmp_path):
        pass
