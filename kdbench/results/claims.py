"""Claims: any number of processes work on one results directory, and each piece of work is one process's at a time.

No `flock` is needed. A file system must let one of several that make a hard link, or else a new file, of the same name have it, and
the others fail.

`claims/RUN.run` is the sign of a process that works with claims: who it is, and by the time of the file that it lives. RUN is the
process's `owner` and a number, since one that comes back late puts up another.
`claims/UNIT.N` is a claim, a hard link to the sign of its owner. It holds as long as that sign stands. Whoever finds that a process
is over takes its sign down, and with it all of its claims, and puts a claim with the next number in the place of one that it takes
over. A late owner finds its sign gone before it does anything else in the directory.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.files import write_bytes
from kdbench.results.lock import refuse_being_written
from kdbench.results.processes import is_over, read_process, seen_from_here, this_process
from kdbench.wording import counted

CLAIMS, SIGN = "claims", ".run"

HEARTBEAT_S = 10.0
"""A process shows at least so often that it lives."""

LOOKS = 4
"""A process is not taken to be over before it was looked at more often than this, however long nobody looked: this process may have
been stopped as well."""


@contextmanager
def claiming(root: Path, *, timeout_s: float) -> Iterator[Claims]:
    """Work with claims until the block ends. What is still claimed then is given back.

    Args:
        root: the results directory.
        timeout_s: a process that has shown no sign of life for so long is taken to be over.

    Raises:
        KdbenchError: a process holds the whole directory.
    """
    claims = Claims(root, timeout_s=timeout_s)
    claims.begin()
    try:
        claims.take_down_signs()
        yield claims
    finally:
        claims.end()


@dataclass(frozen=True)
class _Seen:
    """A sign as it was seen last: its time, when that was by the clock of this process, and for how long it had not changed."""

    beat: int
    at_s: float
    silent_s: float


class Claims:
    """The claims of this process, each on a unit of work that has a name.

    Args:
        root: the results directory.
        timeout_s: as `claiming` takes it.
        clock: seconds that only this process sees: whatever clocks hosts have, and whoever sets them, does not matter.

    Attributes:
        owner: 16 hexadecimal characters for this process.
    """

    def __init__(self, root: Path, *, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._folder = root, root / CLAIMS
        self.timeout_s, self._clock = timeout_s, clock
        self._held: dict[str, Path] = {}
        self._seen: dict[Path, _Seen] = {}
        self.owner, self._signs = secrets.token_hex(8), itertools.count(1)
        self._run, self._beaten_s = "", 0.0

    @property
    def _sign(self) -> Path:
        return self._folder / f"{self._run}{SIGN}"

    def begin(self) -> None:
        """Put up the sign of this process.

        Raises:
            KdbenchError: a process holds the whole directory.
        """
        self._run, self._beaten_s = f"{self.owner}-{next(self._signs)}", self._clock()
        since = datetime.now().astimezone().isoformat(" ", "minutes")
        write_bytes(self._sign, json.dumps({"run": self._run, **this_process(), "since": since}).encode())
        try:
            refuse_being_written(self._root)  # that one puts up its own sign, and then looks for ours
        except BaseException:
            self._sign.unlink(missing_ok=True)
            raise

    def end(self) -> None:
        """Give all claims back, and take the sign down."""
        for unit in [*self._held]:
            self.release(unit)
        self._sign.unlink(missing_ok=True)

    def take(self, unit: str) -> bool:
        """Claim a unit; False where another process has it."""
        found = self._of(unit)
        if not all(map(self._is_void, found.values())):
            return False
        file = self._folder / f"{unit}.{max(found, default=0) + 1}"
        if not self._make(file):
            return False
        others = [other for other in self._of(unit).values() if other != file]
        if not all(map(self._is_void, others)):  # one came in between, and the two must not stand side by side
            file.unlink(missing_ok=True)
            return False
        for other in others:
            other.unlink(missing_ok=True)
        self._held[unit] = file
        return True

    def release(self, unit: str) -> None:
        """Give a claim back; nothing where it was lost."""
        file = self._held.pop(unit, None)
        if file and read_process(file).get("run") == self._run:
            file.unlink(missing_ok=True)

    def holds(self, unit: str) -> bool:
        """Whether this process has the claim still. Ask it before anything is put into the directory."""
        return unit in self._held and self._touch() and self._held[unit].exists()

    def beat(self) -> frozenset[str]:
        """Show that this process lives, if it is time to; which claims it has lost meanwhile.

        Where its sign was taken down it puts up another. What nobody has taken over since stays its own.

        Raises:
            KdbenchError: a process holds the whole directory by now.
        """
        if self._clock() - self._beaten_s < min(HEARTBEAT_S, self.timeout_s / 10):
            return frozenset()
        before, run = dict(self._held), self._run
        if self._touch():
            there = set(os.listdir(self._folder))
            self._held = {unit: file for unit, file in before.items() if file.name in there}
        else:
            self._held.clear()
            self.begin()
            for unit, file in before.items():
                if read_process(file).get("run") == run:
                    self.take(unit)
        return frozenset(before.keys() - self._held.keys())

    def take_down_signs(self) -> None:
        """Take down the signs of processes that are seen to be over."""
        for sign in self._folder.glob(f"*{SIGN}"):
            with suppress(PermissionError):  # another user's, who does it
                self._is_over(sign)

    def owners(self) -> set[str]:
        """The processes whose signs stand."""
        return {name.partition("-")[0] for name in os.listdir(self._folder) if name.endswith(SIGN)}

    def _touch(self) -> bool:
        """Show that this process lives; False where its sign is gone. It asks the file server itself, and no cache."""
        try:
            os.utime(self._sign)
        except OSError as problem:
            if problem.errno in (errno.ENOENT, errno.ESTALE):
                return False
            raise
        self._beaten_s = self._clock()
        return True

    def _of(self, unit: str) -> dict[int, Path]:
        """The claims on a unit by their number; more than one only while one is taken over."""
        names = (name.rpartition(".") for name in os.listdir(self._folder))
        return {int(number): self._folder / f"{unit}.{number}" for name, _, number in names if name == unit and number.isdecimal()}

    def _make(self, file: Path) -> bool:
        """Make a claim, which one of several can; its owner stands in it from the beginning."""
        try:
            os.link(self._sign, file)
        except FileExistsError:
            return read_process(file).get("run") == self._run  # a server's answer may be lost, and the call be repeated
        except FileNotFoundError:  # this process's own sign is gone: the next beat tells
            return False
        except OSError:  # a file system without hard links
            try:
                with file.open("x") as claim:
                    claim.write(self._sign.read_text())
            except FileExistsError:
                return False
            except OSError as problem:
                file.unlink(missing_ok=True)
                if isinstance(problem, FileNotFoundError):
                    return False
                raise
        return True

    def _is_void(self, file: Path) -> bool:
        """Whether a claim holds no more."""
        owner = read_process(file)
        return self._is_over(file.with_name(f"{owner['run']}{SIGN}") if owner else file)

    def _is_over(self, sign: Path) -> bool:
        """Whether the process of a sign is over; then its sign is gone."""
        try:
            with sign.open("rb") as file:  # what is opened is asked for anew, where a network keeps times for a while
                beat = os.fstat(file.fileno()).st_mtime_ns
            process = read_process(sign)
        except FileNotFoundError:
            self._seen.pop(sign, None)
            return True
        if not (is_over(process) or self._is_silent(sign, beat)):
            return False
        sign.unlink(missing_ok=True)
        return True

    def _is_silent(self, sign: Path, beat: int) -> bool:
        """Whether the time of a sign has not changed for long enough while this process looked."""
        now, seen = self._clock(), self._seen.get(sign)
        if seen is None or seen.beat != beat:
            self._seen[sign] = _Seen(beat, now, 0.0)
            return False
        silent_s = seen.silent_s + min(now - seen.at_s, self.timeout_s / LOOKS)
        self._seen[sign] = _Seen(beat, now, silent_s)
        return silent_s >= self.timeout_s


def refuse_claims(root: Path) -> None:
    """See that no process works with claims, and take away what those have left that are over. Hold the directory.

    Raises:
        KdbenchError: one does, or nobody can tell.
    """
    folder = root / CLAIMS
    if not folder.is_dir():
        return
    signs = {sign: read_process(sign) for sign in sorted(folder.glob(f"*{SIGN}"))}
    if live := {sign: run for sign, run in signs.items() if run and not is_over(run)}:
        raise _refused(root, live)
    for file in folder.iterdir():
        file.unlink(missing_ok=True)


def _refused(root: Path, live: Mapping[Path, Mapping[str, Any]]) -> KdbenchError:
    runs = "; ".join("process {pid} on {host}, since {since}".format(**run) for run in live.values())
    text = (
        f"{counted(len(live), 'run')} with --claim {'works' if len(live) == 1 else 'work'} on {root}: {runs}. Wait for the end, "
        "stop them there, or join with `kdbench run --claim`."
    )
    if unseen := [str(sign) for sign, run in live.items() if not seen_from_here(run)]:
        text += (
            " Whether a run on another host still lives cannot be seen from here: list its file twice, two minutes apart, with "
            f"`ls -l --full-time`. If the time stays the same, delete the file: {', '.join(unseen)}."
        )
    return KdbenchError(text)
