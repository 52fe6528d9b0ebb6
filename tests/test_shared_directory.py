"""A directory of several people: what each may read and write there is left to the umask, and who may only read can report."""

import ctypes
import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Lab

import kdbench
from kdbench import cli
from kdbench.errors import system_error
from kdbench.files import set_aside, write_bytes, written
from kdbench.results.store import Store
from kdbench.spec.record import PROTOCOL

FT = {"ft": {"paraphraser_epochs": 1}}


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def command(*arguments: str | Path) -> None:
    cli.app([*map(str, arguments)], standalone_mode=False)


def refuse_what_is_not_for_the_group(folder: Path) -> None:
    modes = {file: file.stat().st_mode for file in folder.rglob("*")}
    wrong = {file: oct(mode) for file, mode in modes.items() if mode & 0o7777 != (0o2775 if stat.S_ISDIR(mode) else 0o664)}
    assert modes and not wrong


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Lab:
    """A lab for a group, in which a suite with kept students is done. Read it, copy it, leave it as it is."""
    root = tmp_path_factory.mktemp("group")
    root.chmod(0o2775)
    with umask(0o002):
        lab = Lab(root, images)
        suite = lab.suite(methods=["scratch", FT], keep_students=True)
        answers = iter([False])
        assert not lab.run(suite, stop=lambda: next(answers, True))  # after one epoch, with a checkpoint
        refuse_what_is_not_for_the_group(root)
        assert lab.run(suite)
    return lab


def test_a_group_may_read_and_write_all_that_is_written(ours, tmp_path):
    tmp_path.chmod(0o2775)
    trial = next(ours.store.root.glob("trials/*/outcomes.npz")).parent.name
    with umask(0o002):
        shutil.copytree(ours.store.root, tmp_path / "results", copy_function=shutil.copyfile)
        for made in (
            ("report", ours.root / "tiny.yaml", "--results", tmp_path / "results", "--format", "md,csv"),
            ("export", tmp_path / "results", tmp_path / "all.csv"),
            ("merge", tmp_path / "merged", ours.store.root),
            ("deploy", trial, "--format", "safetensors", "--results", tmp_path / "results", "--output", tmp_path / "deployed"),
        ):
            command(*made)
    assert [*ours.store.root.glob("cache/*.safetensors")]
    refuse_what_is_not_for_the_group(ours.root)
    refuse_what_is_not_for_the_group(tmp_path)


def test_a_library_that_hides_what_it_writes_is_overruled(tmp_path):
    with umask(0o027), written(tmp_path / "new" / "file") as partial:
        partial.unlink()
        os.close(os.open(partial, os.O_CREAT, 0o600))
    assert (tmp_path / "new" / "file").stat().st_mode & 0o777 == 0o640


def test_what_is_not_written_to_its_end_leaves_the_file_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "file", b"before")
    with pytest.raises(KeyboardInterrupt), written(tmp_path / "file") as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"file": b"before"}


def test_a_full_disk_is_told_with_the_file(tmp_path):
    """The system names a file that it cannot open, but not one that it cannot write to its end."""
    with pytest.raises(OSError, match="No space") as caught, written(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert system_error(caught.value) == f"{tmp_path / 'file'}: No space left on device. Make room there."


def test_what_another_users_killed_process_left_is_in_nobodys_way(tmp_path, _not_almighty):
    (tmp_path / ".file.partial").touch(mode=0)
    write_bytes(tmp_path / "file", b"whole")
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


# A directory that one may read and not write

DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2
"""What lets root read and write everything."""


@pytest.fixture
def _not_almighty() -> Iterator[None]:
    """Root is kept from what it may not do by the modes of files alone; others are, anyway."""
    if os.geteuid():
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may do everything here")
    libc, version = ctypes.CDLL(None, use_errno=True), 0x20080522  # of capget(2)
    head, sets = (ctypes.c_uint32 * 2)(version, 0), (ctypes.c_uint32 * 6)()
    assert not libc.capget(head, sets)
    before = sets[0]
    sets[0] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    assert not libc.capset(head, sets)
    yield
    sets[0] = before
    assert not libc.capset(head, sets)


@pytest.fixture
def theirs(ours: Lab, tmp_path: Path, _not_almighty: None) -> Iterator[Path]:
    """A copy of the directory, in which nothing can be written once `close` is called."""
    shutil.copytree(ours.store.root, tmp_path / "theirs", copy_function=shutil.copyfile)
    yield tmp_path / "theirs"
    for folder, _, _ in os.walk(tmp_path / "theirs"):
        os.chmod(folder, 0o755)


def close(root: Path) -> None:
    """Take the right to write from everything in a folder."""
    for path in (root, *root.rglob("*")):
        path.chmod(path.stat().st_mode & 0o555)


def test_what_may_be_read_can_be_planned_reported_listed_and_taken_along(ours, theirs, tmp_path):
    close(theirs)
    suite, trial = ours.root / "tiny.yaml", next(theirs.glob("trials/*/outcomes.npz")).parent.name
    with pytest.raises(PermissionError):
        (theirs / "file").touch()
    for read in (
        ("plan", suite, "--results", theirs),
        ("list", "trials", suite, "--results", theirs),
        ("trials", "list", "--results", theirs),
        ("trials", "show", trial, "--results", theirs),
        ("report", suite, "--results", theirs, "--format", "md", "--output", tmp_path / "report"),
        ("export", suite, tmp_path / "all.csv", "--results", theirs),
        ("deploy", trial, "--format", "safetensors", "--results", theirs, "--suite", suite, "--output", tmp_path / "deployed"),
        ("merge", tmp_path / "merged", theirs),
    ):
        command(*read)
    assert len(kdbench.load_results(theirs)) == len(kdbench.load_results(tmp_path / "merged")) == 3


def test_a_report_while_a_run_goes_on_says_what_is_missing_and_leaves_the_lock_alone(ours, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kdbench.report.command.FORMATS", ("md",))
    root = tmp_path / "busy"
    shutil.copytree(ours.store.root, root)
    next(file for file in root.glob("trials/*/record.json") if '"method": "ft"' in file.read_text()).unlink()
    with Store(root, protocol=PROTOCOL).writing():
        writer = (root / ".writer").read_bytes()
        command("report", ours.root / "tiny.yaml", "--results", root)
        assert (root / ".writer").read_bytes() == writer
    told = capsys.readouterr().out
    assert "n = 1 seed" in told and re.search(r"[Mm]issing.*FT", told)


def test_a_report_that_cannot_be_written_beside_the_results_is_told_with_what_to_do(ours, theirs, capsys, monkeypatch):
    monkeypatch.setattr("kdbench.report.command.FORMATS", ("md",))
    close(theirs)
    told = rf"cannot be written to {theirs}/reports/tiny \(Permission denied\). Choose another folder with `kdbench report --output"
    for name in ("report", "run"):
        with pytest.raises(kdbench.KdbenchError, match=told):
            command(name, ours.root / "tiny.yaml", "--results", theirs)
        assert "Test error (%, ↓) of the last epoch" in capsys.readouterr().out


def test_what_is_broken_there_is_named_and_stays(ours, theirs, caplog):
    record = next(theirs.glob("trials/*/record.json"))
    record.write_text("{")
    close(theirs)
    command("plan", ours.root / "tiny.yaml", "--results", theirs)
    command("trials", "list", "--results", theirs)
    assert f"{record} cannot be used" in caplog.text
    set_aside(record, "it is broken")  # as weights are that do not match their record
    assert "It stays there, since it cannot be renamed" in caplog.text
    assert record.read_text() == "{"


@pytest.mark.parametrize("name", ["record.json", "weights.safetensors", "curves.jsonl"])
def test_what_may_not_be_read_is_not_told_as_missing(name, ours, theirs):
    for file in theirs.glob(f"trials/*/{name}"):
        file.chmod(0)
    act = {"curves.jsonl": ("report", "--format", "md")}.get(name, ("plan",))
    with pytest.raises(PermissionError, match=re.escape(name)):
        command(act[0], ours.root / "tiny.yaml", "--results", theirs, *act[1:])
