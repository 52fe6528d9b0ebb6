"""Any number of processes on one results directory: each piece of work is one process's at a time, whoever dies or comes late."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab, Outcomes, Said
from engine import InProcess

from kdbench.errors import KdbenchError
from kdbench.results import frames, store
from kdbench.results.claims import Claims
from kdbench.results.layout import RECORD
from kdbench.results.runs import Counts, find_runs
from kdbench.results.store import Store
from kdbench.runner import job_folder, run
from kdbench.runner.assignment import Assignment, News, Trained
from kdbench.runner.engines import Place
from kdbench.runner.plan import Rerun
from kdbench.runner.run import Options, execute
from kdbench.runner.teachers import usable
from kdbench.spec.record import PROTOCOL
from kdbench.suite.suite import Suite


@dataclass
class Clock:
    """What one process takes for the time."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["hard links", "none"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems with and without hard links."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links")

    if request.param == "none":
        monkeypatch.setattr(os, "link", refuse)


def begun(root: Path, clock: Clock, **process: Any) -> Claims:
    """Claims of one more process, by default of this host; they last 100 s."""
    claims = Claims(root, timeout_s=100, clock=clock)
    claims.begin()
    if process:
        sign = claims._sign
        sign.write_text(json.dumps({**json.loads(sign.read_text()), **process}))
    return claims


def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def look(claims: Claims, unit: str, clock: Clock, seconds: int) -> bool:
    """Try for a unit now and every 10 s."""
    for _ in range(0, seconds, 10):
        if claims.take(unit):
            return True
        clock.now += 10
    return claims.take(unit)


@pytest.mark.usefixtures("links")
def test_a_unit_is_one_processs_until_it_gives_it_back(tmp_path):
    one, two = begun(tmp_path, Clock()), begun(tmp_path, Clock())
    assert one.take("a") and one.holds("a") and not two.take("a")
    assert two.take("b") and not one.take("b")
    one.release("a")
    assert not one.holds("a") and two.take("a")
    one.end(), two.end()
    assert os.listdir(tmp_path / "claims") == []


@pytest.mark.usefixtures("links")
def test_a_process_that_died_here_is_taken_over_at_once(tmp_path):
    gone, other = begun(tmp_path, Clock(), pid=dead()), begun(tmp_path, Clock())
    assert gone.take("a") and other.take("a")
    assert not gone.holds("a") and not gone.take("b")


@pytest.mark.usefixtures("links")
def test_a_process_elsewhere_that_is_silent_is_taken_over_after_the_timeout_and_notices(tmp_path):
    theirs, ours = Clock(), Clock()
    late, other = begun(tmp_path, theirs, host="elsewhere"), begun(tmp_path, ours)
    assert late.take("a") and late.take("b")
    assert not look(other, "a", ours, 90)
    ours.now += 10
    assert other.take("a") and other.holds("a")
    theirs.now += 1000
    assert not late.holds("a")
    assert late.beat() == {"a"}  # and what nobody took stays its own
    assert late.holds("b") and not late.take("a")


def test_a_process_that_beats_is_never_taken_over_whatever_its_clock_says(tmp_path):
    theirs, ours = Clock(), Clock()
    owner, other = begun(tmp_path, theirs, host="elsewhere"), begun(tmp_path, ours)
    assert owner.take("a")
    for beat in range(100):
        ours.now += 40
        theirs.now += 40
        assert not owner.beat()
        os.utime(owner._sign, ns=(0, (1000 - beat) * 3600 * 10**9))  # the clock that it is set by goes back an hour each time
        assert not other.take("a")


def test_time_in_which_nobody_looked_does_not_count(tmp_path):
    ours = Clock()
    owner, other = begun(tmp_path, Clock(), host="elsewhere"), begun(tmp_path, ours)
    assert owner.take("a") and not other.take("a")
    ours.now += 10_000  # both were stopped, as on a machine that slept
    assert not other.take("a")
    assert not look(other, "a", ours, 60) and look(other, "a", ours, 20)


def test_heartbeats_are_a_tenth_of_the_timeout_apart_and_ten_seconds_at_most(tmp_path):
    for timeout_s, every_s in ((50, 5), (1000, 10)):
        clock = Clock()
        claims = Claims(tmp_path, timeout_s=timeout_s, clock=clock)
        claims.begin()
        os.utime(claims._sign, ns=(0, 0))
        clock.now += every_s - 0.1
        claims.beat()
        assert claims._sign.stat().st_mtime_ns == 0
        clock.now += 0.2
        claims.beat()
        assert claims._sign.stat().st_mtime_ns > 0


def test_a_claim_that_somebody_deleted_is_lost(tmp_path):
    clock = Clock()
    claims = begun(tmp_path, clock)
    assert claims.take("a") and claims.take("b")
    (tmp_path / "claims" / "a.1").unlink()
    assert not claims.holds("a")
    clock.now += 10
    assert claims.beat() == {"a"} and claims.holds("b")


def test_a_claim_whose_maker_died_before_it_wrote_into_it_is_taken_over(tmp_path):
    clock = Clock()
    claims = begun(tmp_path, clock)
    (tmp_path / "claims" / "a.1").touch()
    assert not look(claims, "a", clock, 90)
    clock.now += 10
    assert claims.take("a") and sorted(file.name for file in (tmp_path / "claims").glob("a.*")) == ["a.2"]


def test_a_claim_made_by_a_call_that_the_server_answered_twice_is_had(tmp_path, monkeypatch):
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert begun(tmp_path, Clock()).take("a")


def test_a_disk_that_is_full_leaves_no_claim(tmp_path, monkeypatch):
    claims = begun(tmp_path, Clock())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(Path, "read_text", full)
        with pytest.raises(OSError, match="No space"):
            claims.take("a")
    assert [name for name in os.listdir(tmp_path / "claims") if name.startswith("a.")] == []
    assert claims.take("a")


@pytest.mark.usefixtures("links")
def test_of_several_that_take_over_at_once_one_has_it(tmp_path):
    number, pid = 6, dead()
    with ThreadPoolExecutor(number) as pool:
        for turn in range(8):
            gone = begun(tmp_path, Clock(), pid=pid)
            unit = f"unit{turn}"
            assert gone.take(unit)
            start, others = threading.Barrier(number, timeout=5), [begun(tmp_path, Clock()) for _ in range(number)]

            def attempt(claims: Claims, start=start, unit=unit) -> bool:
                start.wait()
                return claims.take(unit)

            had = [claims for claims, taken in zip(others, pool.map(attempt, others), strict=True) if taken]
            assert len(had) <= 1  # two that see each other may both step back, and try again
            assert sum(claims.holds(unit) for claims in others) == len(had)
            for claims in others:
                claims.end()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_order_no_two_hold_a_unit(tmp_path, seed, monkeypatch):
    """Processes take, beat, give back, freeze and come back in any order, and do all of it while one of them takes a unit."""
    dice, clock = random.Random(seed), Clock()
    runs = [begun(tmp_path, clock, host=f"host{i}") for i in range(4)]
    frozen: set[Claims] = set()
    taken, make, busy = 0, Claims._make, []

    def interrupted(claims: Claims, file: Path) -> bool:
        others = [other for other in runs if other is not claims and other not in busy]
        busy.append(claims)
        for _ in range(dice.randrange(3) if others else 0):
            dice.choice((lambda other: other.take(file.stem), lambda other: other.release(file.stem)))(dice.choice(others))
        busy.remove(claims)
        return make(claims, file)

    monkeypatch.setattr(Claims, "_make", interrupted)
    for _ in range(400):
        run, unit = dice.choice(runs), dice.choice("abc")
        match dice.randrange(12):
            case 0 | 1 | 2 | 3 if run not in frozen and not run.holds(unit):
                taken += run.take(unit)
            case 4 | 5 | 6 | 7 if run not in frozen:
                run.release(unit)
            case 8:
                frozen.symmetric_difference_update([run])
            case 9 | 10 | 11:
                clock.now += dice.choice([1, 10, 20])
                for other in runs:
                    if other not in frozen:
                        other.beat()
        for name in "abc":
            assert sum(name in other._held and other._sign.exists() for other in runs) <= 1
            assert sum(other.holds(name) for other in runs if other not in frozen) <= 1
    assert taken > 3


def test_who_judged_a_claim_that_others_gave_back_meanwhile_takes_nothing_from_whom_has_it_now(tmp_path, monkeypatch):
    slow, between, owner = (begun(tmp_path, Clock()) for _ in range(3))
    assert begun(tmp_path, Clock(), pid=dead()).take("a")
    make = Claims._make

    def late(claims: Claims, file: Path) -> bool:
        monkeypatch.setattr(Claims, "_make", make)
        assert between.take("a")
        between.release("a")
        assert owner.take("a")
        return make(claims, file)

    monkeypatch.setattr(Claims, "_make", late)
    assert not slow.take("a")
    assert owner.holds("a") and not between.take("a")
    assert sorted(file.name for file in (tmp_path / "claims").glob("a.*")) == ["a.1"]


def test_a_process_alone_and_processes_that_share_refuse_each_other(tmp_path):
    store = Store(tmp_path, protocol=PROTOCOL)
    with store.sharing(timeout_s=100) as claims:
        assert claims.take("a")
        with store.sharing(timeout_s=100) as others, pytest.raises(KdbenchError) as error, store.writing():
            assert not others.take("a")
        who = rf"process {os.getpid()} on {os.uname().nodename}, since [-+:0-9 ]+"
        assert re.fullmatch(
            rf"2 runs with --claim work on {tmp_path}: {who}; {who}\. Wait for the end, stop them there, or join with "
            r"`kdbench run --claim`\.",
            str(error.value),
        )
    with store.writing(), pytest.raises(KdbenchError, match="another kdbench is writing"), store.sharing(timeout_s=100):
        pass
    assert os.listdir(tmp_path / "claims") == []


def test_what_dead_runs_left_is_taken_away_and_what_others_may_hold_is_told_with_the_way_out(tmp_path):
    store = Store(tmp_path, protocol=PROTOCOL)
    assert begun(tmp_path, Clock(), pid=dead()).take("a")
    with store.writing():
        assert os.listdir(tmp_path / "claims") == []
    begun(tmp_path, Clock(), host="elsewhere", pid=7)
    (sign,) = (tmp_path / "claims").iterdir()
    with pytest.raises(KdbenchError, match=r"1 run with --claim works on .*process 7 on elsewhere") as error, store.writing():
        pass
    assert str(error.value).endswith(f"If the time stays the same, delete the file: {sign}.")
    sign.unlink()
    with store.writing():
        pass


SMALL: dict[str, Any] = {"methods": ["scratch", "kd"], "seeds": [0, 1]}
"""A teacher, and two jobs of students."""


@pytest.fixture(scope="module")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What one process makes of `SMALL`."""
    lab = Lab(tmp_path_factory.mktemp("alone"), images)
    assert lab.run(lab.suite(**SMALL))
    return lab.outcomes()


class Hooked(InProcess):
    """Calls a hook when a job was trained and nothing of it is told yet."""

    def __init__(self, lab: Lab, hook: Callable[[Assignment], None] = lambda assignment: None) -> None:
        super().__init__("a", cache=lab.store.cache)
        self._hook = hook

    def news(self, timeout_s: float) -> Iterator[tuple[Place, News]]:
        assignments = [Assignment.unpacked(packed, folder) for _, packed, folder in self._jobs[:1]]
        told = [*super().news(timeout_s)]
        for assignment in assignments:
            self._hook(assignment)
        yield from told


@pytest.fixture
def claiming(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Runs a suite to its end with claims on an engine; gives what was said."""

    def execute_on(lab: Lab, engine: InProcess, **changes: Any) -> list[str]:
        said, suite = Said(), lab.suite(**{**SMALL, **changes})
        with monkeypatch.context() as patch:
            patch.setattr(run, "choose_engine", lambda name, device, **options: engine)
            options = Options(device="cpu", claim=True, claim_timeout_s=2)
            assert execute(suite, lab.store, options=options, progress=said)
        return said.lines

    return execute_on


def take_down_signs(lab: Lab) -> None:
    """What others do who have not heard of a run for long."""
    for sign in (lab.store.root / "claims").glob("*.run"):
        sign.unlink()


def test_several_runs_train_each_trial_once_and_end_when_all_have_ended(lab, alone, monkeypatch):
    """They take turns: one goes on wherever another one waits for news."""
    turn, engines, said = threading.Lock(), [Hooked(lab) for _ in range(3)], [Said() for _ in range(3)]

    def choose(name: str, device: str, **options: Any) -> InProcess:
        engine = engines[int(threading.current_thread().name)]
        news = engine.news

        def after_others(timeout_s: float) -> Iterator[tuple[Place, News]]:
            turn.release()
            time.sleep(0.01)
            turn.acquire()
            return news(timeout_s)

        engine.news = after_others  # type: ignore[method-assign]
        return engine

    def work(suite: Suite, number: int) -> None:
        with turn:
            options = Options(device="cpu", claim=True, claim_timeout_s=2)
            finished[number] = execute(suite, lab.store, options=options, progress=said[number])

    monkeypatch.setattr(run, "choose_engine", choose)
    finished = [False] * 3
    suites = [lab.suite(**SMALL), lab.suite(**SMALL), lab.suite(**{**SMALL, "methods": ["kd"]})]  # the last one shares trials
    threads = [threading.Thread(target=work, args=(suite, i), name=str(i)) for i, suite in enumerate(suites)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert finished == [True] * 3
    assert lab.outcomes() == alone
    started = [label for engine in engines for _, label in engine.started]
    assert len(started) == len(set(started))
    assert sum("waiting for" in line for lines in said for line in lines.lines) >= 1
    assert os.listdir(lab.store.root / "claims") == []


@pytest.mark.parametrize("others_code", ["the same", "other"])
def test_a_run_that_waits_says_for_how_many_jobs_and_counts_as_done_what_others_train(lab, claiming, monkeypatch, others_code):
    class Waiting(Said):
        def say(self, text: str) -> None:
            super().say(text)
            if text.startswith("waiting"):
                other.end()
                claiming(lab, Hooked(lab), methods=["kd"], seeds=[0])
                (record,) = (record for record in lab.store.records() if record.method == "kd")
                if others_code == "other":
                    file = lab.store.folder(record.trial) / RECORD
                    file.write_text(record.model_copy(update={"method_code": "other"}).model_dump_json())

    suite, other, said = lab.suite(**SMALL), begun(lab.store.root, Clock()), Waiting()
    assert other.take(suite.teachers[0].id)  # which all students wait for
    monkeypatch.setattr(run, "choose_engine", lambda name, device, **options: Hooked(lab))
    assert execute(suite, lab.store, options=Options(device="cpu", claim=True, claim_timeout_s=2), progress=said)
    assert [line for line in said.lines if line.startswith("waiting")] == ["waiting for 1 job of other runs."]
    assert said.pace.done == said.pace.total
    assert not lab.plan(suite).todo(Rerun.MISSING)
    (found,) = (found for found in find_runs(lab.store.root) if found.now.trials == Counts(done=4))
    assert found.now.epochs == found.now.of_epochs


def test_what_others_take_away_while_one_reads_stops_nobody(lab, alone, claiming, monkeypatch):
    claiming(lab, Hooked(lab))
    gone = lab.store.folder("gone") / RECORD  # its trial is trained again since the folders were listed
    for module in (store, frames):
        listed = module.record_files
        monkeypatch.setattr(module, "record_files", lambda root, listed=listed: [gone, *listed(root)])
    assert not lab.plan(lab.suite(**SMALL)).todo(Rerun.MISSING)
    assert len(list(lab.store.records())) == len(frames.read_records(lab.store.root)) == len(alone)
    link, source, target = os.link, lab.root / "source", lab.root / "target"

    def late(file: Path, to: Path) -> None:
        file.unlink()
        link(file, to)

    source.mkdir()
    (source / RECORD).touch()
    monkeypatch.setattr(os, "link", late)
    job_folder._link(source, target, [RECORD])
    assert os.listdir(target) == []

    def ended(folder: Path, pattern: str) -> Iterator[Path]:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "glob", ended)
    assert os.listdir(lab.store.jobs) and not lab.store.checkpoints_of_jobs()


def test_a_late_run_notices_and_what_it_made_is_thrown_away(lab, alone, claiming):
    def overtaken(assignment: Assignment) -> None:
        if len(assignment.job.trials) > 1 and not others:
            take_down_signs(lab)
            other = Hooked(lab)
            claiming(lab, other)
            others.extend(label for _, label in other.started)
            records.update({file: file.read_bytes() for file in lab.store.root.glob("trials/*/record.json")})

    others: list[str] = []
    records: dict[Path, bytes] = {}
    late = Hooked(lab, overtaken)
    said = claiming(lab, late)
    assert others == ["2 students, resnet8, seed 1"] and len(records) == 5  # what the late one had finished was brought home
    assert any("another run has taken over 2 students, resnet8, seed 0" in line for line in said)
    assert {file: file.read_bytes() for file in records} == records
    assert lab.outcomes() == alone
    assert not [*lab.store.jobs.glob("*/trials")]


@pytest.mark.parametrize("moment", [0, 4, 9])
def test_a_late_run_that_stood_still_while_it_brought_a_trial_home_mixes_nothing(lab, alone, claiming, monkeypatch, moment):
    moves = itertools.count()
    move = job_folder._move

    def slow(file: Path, target: Path) -> None:
        if next(moves) == moment:
            take_down_signs(lab)
            claiming(lab, Hooked(lab))
        move(file, target)

    monkeypatch.setattr(job_folder, "_move", slow)
    claiming(lab, Hooked(lab))
    assert next(moves) > moment
    assert lab.outcomes() == alone
    teacher = next(planned for planned in lab.plan(lab.suite(**SMALL)).teachers)
    assert usable(lab.store, teacher.record)


class PowerCut(BaseException):
    """Ends a process at once."""


def test_a_record_that_another_run_takes_away_while_one_reads_it_is_not_told_here(undisturbed, tmp_path, monkeypatch):
    done = next(undisturbed.store.root.glob("trials/*/record.json")).parent
    shutil.copytree(done, tmp_path / "job" / "trials" / done.name)
    monkeypatch.setattr(job_folder, "_files", lambda folder: [])  # it is gone by now
    assert job_folder.bring_trial_home(Store(tmp_path, protocol=PROTOCOL), tmp_path / "job", done.name) is None


def test_what_a_killed_run_left_is_brought_home_with_its_stages_and_its_folders_go(lab, claiming):
    main: list[bool] = []
    before: set[str] = set()

    def fate(place: Place, assignment: Assignment, news: News) -> None:
        if isinstance(news, Trained):
            main.append(news.report.main)
            if news.report.main and len(assignment.job.trials) > 1 and not before:
                raise PowerCut

    def cut() -> None:
        raise PowerCut  # nor is anything brought home

    changes = {"methods": ["scratch", {"ft": {"paraphraser_epochs": 2}}], "seeds": [0]}
    engine = InProcess("a", cache=lab.store.cache, fate=fate)
    engine.close = cut  # type: ignore[method-assign]
    with pytest.raises(PowerCut):
        claiming(lab, engine, **changes)
    before.update(os.listdir(lab.store.jobs))
    assert main.count(False) == 2 and len(before) == 2
    main.clear()
    claiming(lab, InProcess("a", cache=lab.store.cache, fate=fate), **changes)
    assert main == [True]  # the second epoch
    assert not before.intersection(os.listdir(lab.store.jobs))


@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_between_any_two_operations_on_files_loses_nothing(lab, alone, claiming, monkeypatch, seed):
    before_it, number = random.Random(seed).randrange(10, 110), dead()
    done = itertools.count()

    def cut(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def mortal(*arguments: Any, **options: Any) -> Any:
            if next(done) >= before_it:
                raise PowerCut
            return original(*arguments, **options)

        return mortal

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "link", "unlink", "utime"):
            patch.setattr(os, name, cut(name))
        with pytest.raises(PowerCut):
            claiming(lab, Hooked(lab))
    for sign in (lab.store.root / "claims").glob("*.run"):
        sign.write_text(json.dumps({**json.loads(sign.read_text()), "pid": number}))
    claiming(lab, Hooked(lab))
    assert lab.outcomes() == alone
