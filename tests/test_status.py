"""`kdbench status`: how far runs are, as somebody else sees it while they go on."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import Lab, Said
from engine import InProcess
from test_public import modules_after
from typer.testing import CliRunner

from kdbench.catalogue import status
from kdbench.catalogue.status import Status, status_as_json, status_as_line, status_as_text
from kdbench.cli import app
from kdbench.errors import KdbenchError
from kdbench.method.interface import Method
from kdbench.results.layout import FAILURE
from kdbench.results.processes import this_process
from kdbench.results.runs import Counts, Ended, Failure, JobNow, LaneNow, RunFile, RunNow, find_runs
from kdbench.runner import run
from kdbench.runner.assignment import Assignment, News, Trained
from kdbench.runner.engines import Place
from kdbench.runner.job import Job, jobs
from kdbench.runner.plan import Plan, Rerun
from kdbench.runner.progress import EpochReport, LaneReport, Part, Silent
from kdbench.runner.run import Options, execute
from kdbench.runner.watched import Watched

AN_HOUR_AGO = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def job(place: str, **changes) -> JobNow:
    lanes = (LaneNow("kd", "a", 12, 0.8123, 31.26, None), LaneNow("ft", "b", 12, 1.25, 40.12, None))
    standing = JobNow(
        place, "node7", "2 students, wrn_40_2 -> wrn_16_2, seed 0", AN_HOUR_AGO, 2, 12, True, 240, 4000.0, lanes=lanes
    )
    return replace(standing, **changes)


def write(root: Path, *running: JobNow, host: str = "node7", since: datetime = AN_HOUR_AGO, **changes) -> RunFile:
    """The file of a run elsewhere, as a process on another host writes it."""
    file = RunFile(root, {"host": host, "namespace": "", "pid": 4711, "started": "1"})
    now = RunNow("tiny", "/home/ann/tiny.yaml", file.process, "ann", since, "local", "all", running=running)
    file.write(replace(now, **changes))
    return file


def seen(root: Path) -> Status:
    return Status.of("tiny", root, find_runs(root))


def lines(root: Path) -> list[str]:
    text = status_as_text(seen(root))
    assert max(map(len, text.splitlines())) <= 100
    return text.splitlines()


def test_a_run_elsewhere_as_a_person_sees_it(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "datetime", SimpleNamespace(now=lambda: AN_HOUR_AGO.astimezone()))  # on the same day
    log = "jobs/1-2/log.txt"
    write(
        tmp_path,
        job("cuda:0", log=log),
        job("cuda:1", label="scratch, wrn_40_2, seed 1", trials=1, epoch=3, main=False, left_s=None, lanes=()),
        jobs=Counts(waiting=4, running=2, done=1),
        trials=Counts(waiting=8, running=3, done=5, failed=1),
        epochs=24,
        of_epochs=2400,
        left_s=4210.0,
        failures=(Failure("c", "at, wrn_40_2 -> wrn_16_2, seed 0", "ValueError: no maps (own.py:12)", log),),
    )
    since = f"{AN_HOUR_AGO.astimezone():%H:%M}"
    assert [" ".join(line.split()) for line in lines(tmp_path)] == [
        "tiny: 5 of 17 trials done, 1 failed, 3 running, 8 waiting, 24 of 2400 epochs, 1:10:10 left",
        f"running since {since}: process 4711 on node7, user ann, engine local; jobs: 2 running, 4 waiting",
        "",
        "where trains since epoch loss error % left",
        f"cuda:0 2 students, wrn_40_2 -> wrn_16_2, seed 0 {since} 12/240 0.812-1.25 31.3-40.1 1:06:40",
        f"cuda:1 scratch, wrn_40_2, seed 1 {since} stage 3 ? ? ?",
        "",
        "failed:",
        "at, wrn_40_2 -> wrn_16_2, seed 0: ValueError: no maps (own.py:12)",
        f"{tmp_path / log}",
    ]
    monkeypatch.setattr(status, "datetime", SimpleNamespace(now=lambda: AN_HOUR_AGO.astimezone() + timedelta(days=1)))
    assert f"running since {AN_HOUR_AGO.astimezone():%b %d %H:%M}: process" in lines(tmp_path)[1]


def begin(root: Path, trial: str, *, folder: str = "trials") -> None:
    (root / folder / trial).mkdir(parents=True, exist_ok=True)
    (root / folder / trial / "checkpoint.pt").touch()


STOPPED = {"ended": Ended("stopped", AN_HOUR_AGO)}


@pytest.mark.parametrize("changes", [STOPPED, {"process": {"host": "node7", "namespace": "", "pid": 4711, "started": "1"}}])
def test_students_that_were_begun_are_told_with_their_epoch_when_no_run_goes_on(tmp_path, changes):
    teacher = job("cpu", label="teacher wrn_40_2, seed 0", trials=0, lanes=(LaneNow("teacher", "t", 3),))
    file = write(tmp_path, job("cpu"), job("cpu", lanes=(LaneNow("at", "c", 7),)), teacher, trials=Counts(waiting=8), **changes)
    os.utime(file.path, (time.time() - 600, time.time() - 600))
    for trial in "at":  # b is done by now, and c is at a worker's
        begin(tmp_path, trial)
    begin(tmp_path, "c", folder="jobs/1-2/trials")
    first, *told = lines(tmp_path)
    where = "(2 students, wrn_40_2 -> wrn_16_2, seed 0)"
    assert first == "tiny: 0 of 8 trials done, 8 waiting, of them 2 started"
    assert told[:2] == [f"  started, at epoch 12 of 240: kd {where}", f"  started, at epoch 7 of 240: at {where}"]
    started = status_as_json(seen(tmp_path))["started"]
    assert [(each["trial"], each["name"], each["epochs"], each["of_epochs"]) for each in started] == [
        ("a", "kd", 12, 240),
        ("c", "at", 7, 240),
    ]
    write(tmp_path, job("cpu"), host="node8")
    assert not seen(tmp_path).started, "what goes on has its own table"


def test_sixty_jobs_stay_readable_and_the_longest_stand_first(tmp_path):
    write(tmp_path, *(job(f"cuda:{i}", left_s=60.0 * i) for i in range(60)), trials=Counts(0, 120, 0, 0))
    shown = lines(tmp_path)
    assert [line.split()[0] for line in shown if "students" in line][:2] == ["cuda:59", "cuda:58"]
    assert shown[-1] == "  and 40 jobs more; --json has all"


def test_runs_that_share_a_directory_are_added_up(tmp_path):
    failures = (Failure("c", "at, seed 0", "no maps", None),)  # both tell of a trial that one of them trained
    write(tmp_path, job("cuda:0"), trials=Counts(10, 2, 4, 0), left_s=100.0, failures=failures)
    write(tmp_path, job("cuda:0", host="node8"), host="node8", trials=Counts(8, 2, 6, 0), left_s=300.0, failures=failures)
    shown = seen(tmp_path)
    assert (shown.trials, shown.left_s) == (Counts(waiting=6, running=4, done=6), pytest.approx(75.0))
    assert {"node7 cuda:0", "node8 cuda:0"} <= {line.strip()[:12] for line in lines(tmp_path)}
    assert lines(tmp_path)[-2:] == ["failed:", "  at, seed 0: no maps"]


def test_a_run_that_starts_knows_no_trials_yet(tmp_path):
    write(tmp_path, host="node8", ended=Ended("finished", AN_HOUR_AGO), trials=Counts(done=3))
    write(tmp_path)
    assert lines(tmp_path)[0] == "tiny: starting"


def test_a_run_that_only_waits_hides_no_epochs_of_another(tmp_path):
    write(tmp_path, job("cuda:0"), trials=Counts(2, 2, 0, 0), epochs=24, of_epochs=100)
    write(tmp_path, host="node8", trials=Counts(4, 0, 0, 0), since=datetime.now(UTC), of_epochs=100)
    assert status_as_line(seen(tmp_path)) == "tiny: 0 of 4 trials done, 2 running, 2 waiting, 24 of 100 epochs"


def test_json_has_everything_in_units(tmp_path):
    write(tmp_path, job("cuda:0"), trials=Counts(1, 2, 3, 4), left_s=5.0, ended=Ended("stopped", AN_HOUR_AGO))
    (found,) = status_as_json(seen(tmp_path))["runs"]
    json.dumps(found)
    assert (found["state"], found["trials"]) == ("ended", {"waiting": 1, "running": 2, "done": 3, "failed": 4})
    times = [found["since"], found["running"][0]["since"], found["ended"]["when"], found["last_word"]]
    assert [datetime.fromisoformat(time) for time in times[:3]] == [AN_HOUR_AGO] * 3
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times)
    lane = found["running"][0]["lanes"][0]
    known = {"train_loss": 0.8123, "test_error_pct": 31.26, "validation_error_pct": None}
    assert lane == {"name": "kd", "trial": "a", "epochs": 12, **known}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ended": Ended("finished", AN_HOUR_AGO)}, "every trial has ended (process 4711 on node7, user ann"),
        ({"ended": Ended("stopped", AN_HOUR_AGO)}, "stopped before the end; the same `kdbench run` continues it, and is seen"),
        ({"ended": Ended("error", AN_HOUR_AGO, "the disk is full")}, "ended by an error: the disk is full"),
    ],
)
def test_how_a_run_ended(tmp_path, changes, text):
    write(tmp_path, **changes)
    assert text in " ".join(line.strip() for line in lines(tmp_path))
    assert not seen(tmp_path).going_on


def test_a_run_elsewhere_that_tells_nothing_for_long_does_not_count(tmp_path):
    file = write(tmp_path, job("cuda:0"))
    os.utime(file.path, (time.time() - 600, time.time() - 600))
    assert "silent: process 4711 on node7, user ann, has written nothing for 10:00." in lines(tmp_path)[1]
    assert not seen(tmp_path).jobs


def test_a_killed_run_is_seen_at_once_on_its_host(tmp_path):
    over = subprocess.Popen([sys.executable, "-c", ""])
    over.wait()
    file = RunFile(tmp_path, {**this_process(), "pid": over.pid})
    file.write(RunNow("tiny", "tiny.yaml", file.process, "ann", AN_HOUR_AGO, "here", "cpu"))
    assert "ended without a word" in " ".join(lines(tmp_path))


def test_ten_thousand_trials_on_512_workers_are_read_in_under_a_second(tmp_path):
    lanes = tuple(LaneNow(f"method {i}", f"{i:016}", 12, 0.8, 31.2, 30.1) for i in range(20))
    running = [job(f"cuda:{i}", lanes=lanes) for i in range(512)]
    write(tmp_path, *running[:256], trials=Counts(5000, 5000, 240, 0))
    for one in running[256:]:
        write(tmp_path, one, host=f"node{one.place}", trials=Counts(9980, 20, 240, 0))
    began = time.process_time()
    status_as_text(seen(tmp_path))
    assert time.process_time() - began < 0.7


def test_it_imports_no_torch(tmp_path):
    write(tmp_path, job("cuda:0"))
    code = f"from kdbench.cli import app\napp(['status', 'tiny.yaml', '--results', {str(tmp_path)!r}], standalone_mode=False)"
    loaded = modules_after(code)
    assert "kdbench.results.runs" in loaded
    assert not {"torch", "pandas", "numpy", "matplotlib", "kdbench.suite.resolve"} & loaded


def call(*words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["status", *words])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.output


def test_where_nothing_is_known_it_says_so(tmp_path):
    assert call("quick", "--results", str(tmp_path)) == (
        0,
        f"No run of quick is known in {tmp_path}. One that has just started is seen in a moment. `kdbench plan`, with the same "
        "suite and --results, says what is done.\n",
    )
    with pytest.raises(KdbenchError, match="unknown suite 'quik'"):
        call("quik", "--results", str(tmp_path))
    with pytest.raises(KdbenchError, match="--watch shows text"):
        call("quick", "--watch", "--json")


def test_without_a_suite_it_tells_of_all_that_have_runs(tmp_path):
    where = ("--results", str(tmp_path))
    assert call(*where) == (0, f"No run is known in {tmp_path}. One that has just started is seen in a moment.\n")
    write(tmp_path, trials=Counts(done=3), **STOPPED)
    assert call(*where) == call("tiny.yaml", *where)
    write(tmp_path, suite="other", trials=Counts(waiting=1), since=AN_HOUR_AGO - timedelta(hours=1), host="node8", **STOPPED)
    assert call(*where)[1].splitlines()[:2] == ["other: 0 of 1 trials done, 1 waiting", "tiny: 3 of 3 trials done"]
    assert [found["suite"] for found in json.loads(call(*where, "--json")[1])] == ["other", "tiny"]
    with pytest.raises(KdbenchError, match="Name it"):
        call(*where, "--watch")


def test_watching_through_a_pipe_tells_of_changes_and_ends_with_the_run(tmp_path, monkeypatch):
    file = write(tmp_path, job("cuda:0"), trials=Counts(1, 2, 0, 0))
    (now,) = (found.now for found in find_runs(tmp_path))
    then = iter([now, replace(now, trials=Counts(0, 2, 1, 0)), replace(now, ended=Ended("finished", AN_HOUR_AGO))])
    monkeypatch.setattr("kdbench.cli.status.time.sleep", lambda s: file.write(next(then)))
    status, output = call("tiny.yaml", "--results", str(tmp_path), "--watch")
    assert status == 0
    assert [line.split(",")[0] for line in output.splitlines()[:2]] == ["tiny: 0 of 3 trials done", "tiny: 1 of 3 trials done"]
    assert "every trial has ended" in output.splitlines()[-1]


def test_watching_waits_for_the_first_run(tmp_path, monkeypatch):
    file = write(tmp_path / "elsewhere", suite="quick")
    (now,) = (found.now for found in find_runs(tmp_path / "elsewhere"))
    file = RunFile(tmp_path, file.process)
    then = iter([None, now, replace(now, ended=Ended("finished", AN_HOUR_AGO))])
    monkeypatch.setattr("kdbench.cli.status.time.sleep", lambda s: (told := next(then)) and file.write(told))
    status, output = call("quick", "--results", str(tmp_path), "--watch")
    assert status == 0
    first, *others = output.splitlines()
    assert first == f"waiting for a run of quick in {tmp_path} (Ctrl-C ends)"
    assert others[0].startswith("quick: ") and "every trial has ended" in others[-1]


def test_a_run_on_an_engine_tells_what_it_does(lab: Lab, monkeypatch):
    looks: list[RunNow] = []
    before = [0]
    plans: list[Plan] = []

    def fate(place: Place, assignment: Assignment, news: News) -> None:
        if isinstance(news, Trained) and len(assignment.job.trials) > 1 and not plans:
            plans.append(lab.plan(suite))

    suite = lab.suite(methods=["scratch", "kd"], seeds=[0, 1])
    engine = InProcess("a", "b", cache=lab.store.cache, fate=fate)
    monkeypatch.setattr(run, "choose_engine", lambda name, device, **more: engine)
    monkeypatch.setattr("kdbench.runner.watched.EVERY_S", 0.001)

    class Looking(Said):
        def show(self, text: str) -> None:
            while (now := find_runs(lab.store.root)[0].now).epochs < before[0]:
                time.sleep(0.005)
            looks.append(now)
            before[0] = self.pace.done  # what is told now is in the file afterwards
            self.lines.append(text)

    said = Looking()
    write(lab.store.root, ended=Ended("finished", AN_HOUR_AGO))
    assert execute(suite, lab.store, options=Options(), progress=said)
    assert plans[0].counts(plans[0].students) == {"started": 2, "missing": 2}  # what trains in a job's folder is no missing trial
    assert "a: epoch 1: teacher wrn_10_1" in said.lines
    assert engine.started[0] == ("a", "teacher wrn_10_1, seed 0")
    by_epoch = [now for now in looks if now.running and now.running[0].lanes and now.trials.running == 4]
    last = by_epoch[0].running[0]
    assert (last.place, last.host, last.epochs, last.main) == ("a", "this host", 2, True)
    assert all(lane.train_loss and lane.test_error_pct is not None for lane in last.lanes)
    assert last.log and (lab.store.root / last.log).exists()
    (found,) = find_runs(lab.store.root)  # that of the earlier run is gone
    assert found.now.ended and found.now.ended.how == "finished"
    assert found.now.trials == Counts(done=4) and found.now.host == socket.gethostname()
    assert (found.now.epochs, found.now.of_epochs) == (10, 10)
    assert status_as_line(seen(lab.store.root)) == "tiny: 4 of 4 trials done"


def test_of_trials_that_choose_settings_nobody_sees_the_test_error(lab: Lab, monkeypatch):
    monkeypatch.setattr("kdbench.runner.watched.EVERY_S", 0.001)
    suite, place = lab.suite(), Place("a", "node7", "cpu")
    one = Job((lab.plan(suite).students[0],))
    for tries, test in ((True, None), (False, 30.0)):
        with Watched(Silent(), suite, lab.store, engine="local", device="cpu") as told:
            told.begin(Part(trials=one.gives, tries_settings=tries))
            told.job_started(place, one)
            for epoch, errors in ((1, {"test_error_pct": 30.0, "validation_error_pct": 40.0}), (2, {})):  # tested in the first one
                lane = LaneReport("kd", one.trials[0].spec.id, epoch, 0.5 / epoch, errors)
                told.epoch(EpochReport(epoch, True, (lane,)), place)
            while not (now := find_runs(lab.store.root)[0].now).running or now.running[0].epoch < 2:
                time.sleep(0.01)
        (seen_lane,) = now.running[0].lanes
        assert (seen_lane.train_loss, seen_lane.test_error_pct, seen_lane.validation_error_pct) == (0.25, test, 40.0)
        assert now.tries_settings is tries


def test_a_run_that_stops_leaves_its_jobs_in_its_file(lab: Lab):
    """Also those of workers, whose jobs have ended by then; what was taken up again is not told twice."""
    suite = lab.suite(methods=["scratch", "kd"], seeds=[0, 1])
    here, *others = jobs(lab.plan(suite).students)
    a, b = Place("a", "node7", "cpu"), Place("b", "node7", "cpu")
    with Watched(Silent(), suite, lab.store, engine="local", device="cpu") as told:
        told.begin(Part(trials=here.gives.union(*(other.gives for other in others))))
        for place in (a, b):  # the worker at a has died, and b goes on
            told.job_started(place, here, log=None)
            told.epoch(EpochReport(1, True, (LaneReport("kd", here.trials[1].spec.id, 1, 0.5, {}),)), place)
            told.job_ended(place, done=False)
        assert told._now().running == ()
        told.stopped()
    (found,) = find_runs(lab.store.root)
    assert [(left.place, left.label, left.epoch) for left in found.now.running] == [("b", "2 students, resnet8, seed 0", 1)]
    assert (found.now.trials, found.now.jobs.running) == (Counts(waiting=4), 0)


def test_the_label_of_a_job_names_its_students():
    def label(*students: str) -> str:
        specs = [SimpleNamespace(method="kd", seed=3, label=student) for student in students]
        return Job(tuple(cast(Any, SimpleNamespace(spec=spec, teaches=False)) for spec in specs)).label

    assert label("a") == "kd, a, seed 3"
    assert label("a", "b", "b") == "3 students, a, b, seed 3"
    assert label("a", "b", "c", "d") == "4 students, a, b, and 2 more, seed 3"


def test_a_trial_that_has_ended_runs_no_more_while_its_job_goes_on(lab: Lab):
    two = Job(lab.plan(lab.suite(methods=["scratch", "kd"])).students)
    words = {"status": "done", "teacher": None, "student": "s", "setting": "kd", "seed": 0, "tuning": False, "test_error_pct": 1.0}
    record: Any = SimpleNamespace(trial=two.trials[0].spec.id, epochs=2, reason=None, **words)
    with Watched(Silent(), lab.suite(), lab.store, engine="local", device="cpu") as told:
        told.begin(Part(dict.fromkeys(two.gives, 2), trials=two.gives))
        told.job_started(Place("a", "node7", "cpu"), two)
        told.recorded(record)
        now = told._now()
    assert (now.trials, now.running[0].trials, now.epochs) == (Counts(running=1, done=1), 1, 2)


class Broken(Method):
    """It raises in its second epoch."""

    reads = ()
    mended = False

    def losses(self, student, teacher, batch):
        if batch.epoch == 1 and not Broken.mended:
            raise ValueError("no such maps")
        return {"nothing": 0 * student.logits.sum()}


def test_a_failure_keeps_its_traceback_until_the_trial_is_trained_again(lab: Lab, register, monkeypatch):
    register("broken", Broken)
    suite = lab.suite(methods=["scratch", "broken"])
    assert lab.run(suite)
    (failed,) = (planned for planned in lab.plan(suite).students if planned.status == "failed")
    file = failed.folder / FAILURE
    text = file.read_text()
    assert text.startswith("Traceback") and 'raise ValueError("no such maps")' in text
    assert f"    {file}" in status_as_text(seen(lab.store.root)).splitlines()
    assert [found.name for found in lab.store.root.rglob(FAILURE)] == [FAILURE]  # the others have none
    monkeypatch.setattr(Broken, "mended", True)
    assert lab.run(suite, rerun=Rerun.FAILED)
    assert not file.exists()


def test_a_real_run_is_looked_at_and_killed(lab: Lab, monkeypatch):
    monkeypatch.chdir(lab.root)
    file = lab.write(recipe={"epochs": 100_000, "schedule": {"milestones": []}}, methods=["scratch"])
    command = [sys.executable, "-m", "kdbench", "run", str(file), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not any(found.now.epochs for found in find_runs(lab.store.root)):
            assert process.poll() is None
            time.sleep(0.1)
        text = call(str(file))[1]
        process.kill()
    assert f"process {process.pid} on {socket.gethostname()}" in text and "scratch, resnet8, seed 0" in text
    status, text = call(str(file))
    assert status == 0 and f"killed: process {process.pid}" in text
