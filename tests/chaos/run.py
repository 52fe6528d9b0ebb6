"""Runs of a small suite that are disturbed at random: `python tests/chaos/run.py --runs 200 --seed 0 --engine forked`.

Each run begins a suite in an empty directory, does harm to it a few times, and then lets it go on until the suite is done. Nothing
may be lost, nothing done twice with other bits, nothing broken, and nothing left over. A run that fails prints its seed and keeps
its directory. Drivers and workers are real processes. They are forked from this one, which has imported torch already (`forked`),
or the workers are started as a user's are (`local`), which takes some seconds for each.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from conftest import MIXED, Lab, Outcomes, Said, write_images

from kdbench import signals
from kdbench.errors import KdbenchError
from kdbench.results.claims import SIGN
from kdbench.runner.engines import local, process
from kdbench.runner.run import Options, execute

SUITE: dict[str, Any] = {**MIXED, "methods": ["scratch", {"fitnets": {"hint_epochs": 2}}, {"ft": {"paraphraser_epochs": 2}}]}
"""A student without a stage, one with a stage of its own, and one with a stage that learns from the teacher alone."""

CLAIMS = "claim" in {field.name for field in fields(Options)}

Harm = Callable[["Run", random.Random], None]


class Broken(Exception):
    """A run did not come out as it must."""


class Forked:
    """Stands for `subprocess.Popen` where a worker is started: forks this process in place of a new one that imports torch."""

    def __init__(self, args: Sequence[str], *, pass_fds: Sequence[int], env: dict[str, str], stdout: Any, **rest: Any) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            in_child(lambda: self._become(args, pass_fds, env, stdout))
        self.returncode: int | None = None

    @staticmethod
    def _become(args: Sequence[str], pass_fds: Sequence[int], env: dict[str, str], stdout: Any) -> None:
        os.setsid()
        os.dup2(stdout.fileno(), 1)
        os.dup2(stdout.fileno(), 2)
        for descriptor in range(3, 1024):
            if descriptor not in pass_fds:
                with suppress(OSError):
                    os.close(descriptor)
        os.environ.update(env)
        sys.argv = list(args[-2:])
        process.main()

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def in_child(work: Callable[[], object]) -> None:
    """Do something and end the process, as Python ends one."""
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are there still."""
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def adopt_orphans() -> None:
    """Let this process be the parent of what a driver leaves behind, so that it is seen."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(eq=False)
class Run:
    """One directory, and what happens to it.

    Attributes:
        mode: `forked` or `local`.
        span_s: about how long it takes undisturbed.
        claim: whether drivers share the directory by claims.
        told: what happened, for whoever looks into a failure.
        seeds: how many the suite has.
        slowest_s: after this a driver hangs.
    """

    lab: Lab
    mode: str
    span_s: float
    claim: bool
    told: list[str]
    seeds: int = 2
    slowest_s: float = 240.0

    def drive(self, harm: Callable[[], None] = lambda: None) -> int:
        """Start a driver, as `kdbench run --device cpu:2` does; the number of its process."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            in_child(lambda: self._drive(harm))
        return pid

    def _drive(self, harm: Callable[[], None]) -> None:
        os.setsid()
        log = os.open(self.lab.root / "driver.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        logging.basicConfig()
        stop, said = signals.Stop(), Said()
        stop.listen()
        if self.mode == "forked":
            patch.object(local.subprocess, "Popen", Forked).start()
        harm()
        options = Options(device="cpu:2", **({"claim": True, "claim_timeout_s": 2.0} if self.claim else {}))
        with stop.at_epochs("stopping") as asked:
            try:
                with stop.heard():
                    suite = self.lab.suite(**SUITE, seeds=[*range(self.seeds)])
                    done = execute(suite, self.lab.store, options=replace(options, stop=asked), progress=said)
            except KdbenchError as problem:
                print(f"error: {problem}")
                raise SystemExit(2) from None
            except signals.Interrupted:
                raise SystemExit(3) from None
            finally:
                print("\n".join(said.lines))
        raise SystemExit(0 if done else 3)

    def ended(self, *drivers: int) -> list[int]:
        """Wait for drivers; how each ended."""
        found = []
        for pid in drivers:
            until = time.monotonic() + self.slowest_s
            while True:
                gone, status = os.waitpid(pid, os.WNOHANG)
                if gone:
                    break
                if time.monotonic() > until:
                    raise Broken(f"the driver {pid} hangs")
                time.sleep(0.02)
            found.append(os.waitstatus_to_exitcode(status))
            self.told.append(f"driver {pid} ended with {found[-1]}")
            if found[-1] == 1:
                raise Broken("the driver met an exception that it does not explain")
        return found

    def sleep(self, dice: random.Random) -> None:
        """Until some moment of the run."""
        time.sleep(dice.uniform(0, self.span_s))

    def see(self, expected: Outcomes) -> None:
        """See that all is as without any harm.

        Raises:
            Broken: it is not.
        """
        found = self.lab.outcomes()
        if lost := expected.keys() - found.keys():
            raise Broken(f"lost: {sorted(lost)}")
        if other := [trial for trial in found if found[trial] != expected.get(trial)]:
            raise Broken(f"other bits: {other}")
        root = self.lab.store.root
        if broken := [*root.rglob("*.broken")]:
            raise Broken(f"broken: {broken}")
        if left := [
            *self.lab.store.jobs.glob("*/trials"),
            *(file for file in root.glob("claims/*") if file.suffix != SIGN),  # that of a killed driver goes with the next run
            *root.rglob("checkpoint.pt"),
        ]:
            raise Broken(f"left over: {left}")
        self.see_no_process()

    def abandon(self) -> None:
        """Kill what is left of it."""
        for pid in children(os.getpid()):
            for child in children(pid):
                kill(child)
            kill(pid)

    def see_no_process(self) -> None:
        """See that nothing runs any more that a driver has started."""
        until = time.monotonic() + 20
        while children(os.getpid()):
            with suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            if time.monotonic() > until:
                raise Broken(f"processes are left over: {children(os.getpid())}")
            time.sleep(0.01)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def kills(find: Callable[[int], list[int]]) -> Harm:
    """Kills one of the processes that are found for a driver while it is at work."""

    def harm(run: Run, dice: random.Random) -> None:
        driver = run.drive()
        run.sleep(dice)
        for pid in dice.sample(found := find(driver), min(1, len(found))):
            kill(pid)
        run.ended(driver)

    return harm


def kills_the_driver(run: Run, dice: random.Random) -> None:
    driver = run.drive()
    run.sleep(dice)
    kill(driver)
    run.ended(driver)


def kills_both(run: Run, dice: random.Random) -> None:
    driver = run.drive()
    run.sleep(dice)
    for worker in children(driver):
        if dice.random() < 0.7:
            kill(worker)
    time.sleep(dice.choice((0, 0.01, 0.1)))
    kill(driver)
    run.ended(driver)


def _signals(number: int, times: int) -> Harm:
    def harm(run: Run, dice: random.Random) -> None:
        driver = run.drive()
        run.sleep(dice)
        for _ in range(times):
            kill(driver, number)
            time.sleep(dice.uniform(0, 0.1))
        run.ended(driver)

    return harm


def starts_two(run: Run, dice: random.Random) -> None:
    """The second is refused, or shares by claims."""
    first = run.drive()
    time.sleep(dice.uniform(0, run.span_s / 2))
    second = run.drive()
    ended = run.ended(first, second)
    if 0 not in ended:
        raise Broken(f"of two drivers none came to the end: {ended}")


def fails_a_write(run: Run, dice: random.Random) -> None:
    """The disk is full at one write of the driver's process, and at one of each worker's."""
    at, again = dice.randrange(1, 60), dice.random() < 0.3

    def harm() -> None:
        written, fsync = 0, os.fsync

        def failing(descriptor: int) -> None:
            nonlocal written
            written += 1
            if written == at or (again and written > at):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")
            fsync(descriptor)

        os.fsync = failing

    run.ended(run.drive(harm))


def fills_the_disk(run: Run, dice: random.Random) -> None:
    """A file system of little space, which has more in the end."""
    root, kib = run.lab.store.root, dice.randrange(100, 4000)
    root.mkdir(exist_ok=True)
    if any(root.iterdir()) or os.geteuid() or mount("-t", "tmpfs", "-o", f"size={kib}k", "chaos", str(root)):
        return fails_a_write(run, dice)  # there is something already, or this is not root
    try:
        run.ended(run.drive())
        if dice.random() < 0.5:
            mount("-o", "remount,size=64m", str(root))
            driver = run.drive()
            run.sleep(dice)
            kill(driver)
            run.ended(driver)
        for worker in children(os.getpid()):
            with suppress(ChildProcessError):
                os.waitpid(worker, 0)
        copy = root.with_name("copy")
        shutil.copytree(root, copy)
    finally:
        while subprocess.run(["umount", str(root)], check=False, capture_output=True).returncode:
            time.sleep(0.1)
    root.rmdir()
    copy.rename(root)
    return None


def mount(*options: str) -> int:
    return subprocess.run(["mount", *options], check=False, capture_output=True).returncode


def steps_the_clock(run: Run, dice: random.Random) -> None:
    """By an hour, now and then, back and forth; and the driver is killed in half of the cases."""
    seed = dice.random()

    def harm() -> None:
        own, real, utime = random.Random(seed), time.time, os.utime

        def step() -> float:
            return own.choice((-3600.0, 0.0, 0.0, 3600.0))

        class Stepping(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime.now(tz) + timedelta(seconds=step())

        time.time = lambda: real() + step()
        os.utime = lambda path, *rest, **options: utime(path, (time.time(),) * 2) if not rest else utime(path, *rest, **options)
        for module in [module for module in sys.modules.values() if getattr(module, "datetime", None) is datetime]:
            if module.__name__.startswith("kdbench"):
                module.datetime = Stepping

    driver = run.drive(harm)
    if dice.random() < 0.5:
        run.sleep(dice)
        kill(driver)
    run.ended(driver)


def stops_and_continues(run: Run, dice: random.Random) -> None:
    """A driver is suspended for longer than claims hold, and its workers with it or not; others take over meanwhile."""
    drivers = [run.drive() for _ in range(dice.choice((2, 3)))]
    run.sleep(dice)
    late = dice.choice(drivers)
    stopped = [late, *(children(late) if dice.random() < 0.5 else ())]
    for pid in stopped:
        kill(pid, signal.SIGSTOP)
    time.sleep(dice.uniform(1, 6))
    for pid in stopped:
        kill(pid, signal.SIGCONT)
    if dice.random() < 0.3:
        kill(dice.choice(drivers))
    run.ended(*drivers)


HARMS: dict[str, Harm] = {
    "a worker killed": kills(children),
    "the driver killed": kills_the_driver,
    "workers and driver killed": kills_both,
    "SIGTERM": _signals(signal.SIGTERM, 1),
    "SIGUSR1": _signals(signal.SIGUSR1, 1),
    "SIGTERM twice": _signals(signal.SIGTERM, 2),
    "two drivers": starts_two,
    "a write fails": fails_a_write,
    "the disk is full": fills_the_disk,
    "clock steps": steps_the_clock,
}
OF_CLAIMS: dict[str, Harm] = {"claims expire": stops_and_continues}


def one_run(run: Run, seed: int, expected: Outcomes) -> list[str]:
    """Disturb a run up to three times, and let it end; the harms that were done.

    Raises:
        Broken: it did not come out as it must.
    """
    dice = random.Random(seed)
    harms = {**HARMS, **(OF_CLAIMS if run.claim else {})}
    names = [dice.choice(list(harms)) for _ in range(dice.choice((1, 2, 3)))]
    if run.claim and dice.random() < 0.5:
        names[0] = next(iter(OF_CLAIMS))
    return disturb(run, names, harms, dice, expected)


def disturb(run: Run, names: list[str], harms: Mapping[str, Harm], dice: random.Random, expected: Outcomes) -> list[str]:
    """Do these harms to a run, and let it end; their names.

    Raises:
        Broken: it did not come out as it must.
    """
    try:
        for name in names:
            run.told.append(name)
            harms[name](run, dice)
        run.told.append("undisturbed")
        status = run.ended(run.drive())
        if status != [0]:
            raise Broken(f"left alone, the driver ended with {status}")
        run.see(expected)
    except Broken as problem:
        run.abandon()
        (run.lab.root / "told.txt").write_text("\n".join([*run.told, str(problem)]))
        raise
    return names


def undisturbed(images: Path, root: Path, mode: str, seeds: int) -> tuple[Outcomes, float]:
    """What must come out, trained in one process as ever; and about how long a run takes here and now."""
    lab = Lab(root / "alone", images)
    lab.root.mkdir()
    assert lab.run(lab.suite(**SUITE, seeds=[*range(seeds)]))  # and all is imported for the processes that are forked
    other = Run(Lab(root / "two", images), mode, 0.0, False, [], seeds)
    other.lab.root.mkdir()
    began = time.monotonic()
    assert other.ended(other.drive()) == [0]
    return lab.outcomes(), time.monotonic() - began


def add_options(parser: argparse.ArgumentParser, *, runs: int) -> None:
    """How many runs, and which."""
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next run has the next one")
    parser.add_argument("--minutes", type=float, default=1e9, help="after which no further run begins")


def repeat(given: argparse.Namespace, root: Path, one: Callable[[Path, int], list[str]], *, engine: str, trials: int) -> None:
    """Do the runs, tell of each and of all, and end the process: with status 1 where one did not come out as it must."""
    counts: Counter[str] = Counter()
    failed, runs, until = [], 0, time.monotonic() + 60 * given.minutes
    for seed in range(given.seed, given.seed + given.runs):
        if time.monotonic() > until:
            break
        folder = root / f"run{seed}"
        folder.mkdir()
        runs += 1
        began = time.monotonic()
        try:
            names = one(folder, seed)
        except Broken as problem:
            failed.append(seed)
            print(f"FAILED, seed {seed}: {problem}. See {folder}.", flush=True)
            continue
        counts.update(names)
        shutil.rmtree(folder)
        print(f"seed {seed}: {', '.join(names)}: as undisturbed ({time.monotonic() - began:.1f} s)", flush=True)
    print(json.dumps({"runs": runs, "engine": engine, "failed": failed, "harms": counts, "trials of a run": trials}))
    if not failed:
        shutil.rmtree(root)
    sys.exit(bool(failed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, runs=20)
    parser.add_argument("--engine", choices=("forked", "local"), default="forked")
    parser.add_argument("--claim", action="store_true", help="several drivers share a directory")
    parser.add_argument("--short", action="store_true", help="one seed of each student in place of two")
    given = parser.parse_args()
    if given.claim and not CLAIMS:
        parser.error("this kdbench has no claims")
    torch.set_num_threads(1)
    adopt_orphans()
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    images = write_images(root / "stripes")
    expected, span_s = undisturbed(images, root, given.engine, seeds := 1 if given.short else 2)
    print(f"undisturbed: {len(expected)} trials, {span_s:.1f} s with two workers; in {root}", flush=True)

    def one(folder: Path, seed: int) -> list[str]:
        return one_run(Run(Lab(folder, images), given.engine, span_s, given.claim, [], seeds), seed, expected)

    repeat(given, root, one, engine=f"{given.engine}{', with claims' if given.claim else ''}", trials=len(expected))


if __name__ == "__main__":
    main()
