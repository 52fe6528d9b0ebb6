"""Where jobs run changes no result: whatever the engine, however many workers, and whichever of them die on the way."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest
from conftest import MIXED, Lab, Said
from engine import InProcess, Killed

from kdbench.errors import KdbenchError
from kdbench.runner import deaths, run
from kdbench.runner.assignment import Assignment, Died, News, Ready, Trained
from kdbench.runner.engines import Place
from kdbench.runner.run import Options, execute

DEADLY = """
import kdbench
from engine import Killed

@kdbench.register("deadly")
class Deadly(kdbench.Method):
    \"\"\"It ends its process in the second epoch, as a fault in compiled code does.\"\"\"

    reads = ()

    def losses(self, student, teacher, batch):
        if batch.epoch == 1:
            raise Killed
        return {"nothing": 0 * student.logits.sum()}
"""


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch):
    """Runs a suite on an engine."""

    def execute_on(lab: Lab, engine: InProcess, **changes) -> tuple[bool, list[str]]:
        said, suite = Said(), lab.suite(**{**MIXED, **changes})
        with monkeypatch.context() as patch:
            patch.setattr(run, "choose_engine", lambda name, device, **more: engine)
            return execute(suite, lab.store, options=Options(device="cpu"), progress=said), said.lines

    return execute_on


def test_two_processes_of_which_one_is_killed_give_the_records_of_one(lab, undisturbed, monkeypatch, tmp_path_factory):
    """Real processes; everything else is tried with `InProcess`. They import nothing of the working folder."""
    from kdbench.runner.engines import local

    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    for name in ("queue", "kdbench"):
        Path(f"{name}.py").write_text("raise SystemExit(7)")
    killed: list[int] = []
    hear = local.Local.news

    def news(engine, timeout_s):
        for place, told in hear(engine, timeout_s):
            if (
                isinstance(told, Trained)
                and told.report.main
                and told.report.lanes[0].trial
                and len(told.report.lanes) > 1
                and not killed
            ):
                killed.append(engine._processes[place].popen.pid)
                os.kill(killed[0], signal.SIGKILL)
            yield place, told

    monkeypatch.setattr(local.Local, "news", news)
    said = Said()
    assert execute(lab.suite(**MIXED), lab.store, options=Options(device="cpu:2"), progress=said)
    assert killed and any("was killed by SIGKILL" in line for line in said.lines)
    assert lab.outcomes() == undisturbed.outcomes()
    logs = [file.name for file in lab.store.jobs.rglob("*") if file.is_file()]
    assert logs == ["log.txt"] * 4  # the teacher's, and two parts of the students, of which one began twice


@pytest.mark.parametrize("seed", range(3))
def test_workers_that_die_at_random_change_no_bit(lab, undisturbed, on, seed):
    dice = random.Random(seed)
    deaths: dict[str, int] = {}

    def fate(place: Place, assignment: Assignment, news: News) -> None:
        if not isinstance(news, Ready) and not deaths.get(assignment.job.id) and dice.random() < 0.5:
            deaths[assignment.job.id] = 1
            raise Killed

    assert on(lab, InProcess("a", "b", cache=lab.store.cache, fate=fate))[0]
    assert deaths
    assert lab.outcomes() == undisturbed.outcomes()


def test_a_method_that_ends_its_process_is_recorded_as_failed_and_the_others_are_as_without_it(lab, undisturbed, on, tmp_path):
    plugin = tmp_path / "deadly.py"
    plugin.write_text(DEADLY)
    changes = {"methods": [*MIXED["methods"], "deadly"], "plugins": [str(plugin)]}
    assert on(lab, InProcess("a", cache=lab.store.cache), **changes)[0]
    students = lab.plan(lab.suite(**{**MIXED, **changes})).students
    (failed,) = (planned.record for planned in students if planned.spec.method == "deadly")
    assert failed and failed.reason == "its training ended 2 workers, the last time: killed by a test"
    assert "killed by a test" in (lab.store.folder(failed.trial) / "failure.txt").read_text()
    kept = {trial: outcome for trial, outcome in lab.outcomes().items() if trial != failed.trial}
    assert kept == undisturbed.outcomes()


def test_a_place_where_workers_die_is_left_out(lab, undisturbed, on):
    def fate(place: Place, assignment: Assignment, news: News) -> None:
        if place.name == "bad" and isinstance(news, Trained):
            raise Killed("its device is in a bad state")

    engine = InProcess("bad", "good", cache=lab.store.cache, fate=fate)
    methods = ["scratch", "kd"]
    finished, said = on(lab, engine, seeds=[0, 1], methods=methods)
    assert finished and any(line.startswith("bad is left out from here on, since 2 workers died there") for line in said)
    first_seed = lab.suite(**{**MIXED, "methods": methods})
    assert len(lab.outcomes(first_seed)) == 3
    assert lab.outcomes(first_seed) == undisturbed.outcomes(first_seed)


def test_a_job_may_lose_any_number_of_machines_as_long_as_it_comes_further(lab, undisturbed, on, monkeypatch):
    lost: list[str] = []

    def fate(place: Place, assignment: Assignment, news: News) -> None:
        epochs = assignment.job.trials[0].spec.recipe.epochs if isinstance(news, Trained) and news.report.main else 2
        if isinstance(news, Trained) and news.report.epoch < epochs:  # after the last one there is no checkpoint
            lost.append(assignment.job.id)
            raise Killed("its machine is lost")

    monkeypatch.setattr("engine.Died", partial(Died, blameless=True))
    monkeypatch.setattr(deaths, "MOST_LOSSES", 2)
    assert on(lab, InProcess("a", cache=lab.store.cache, fate=fate))[0]
    assert max(map(lost.count, lost)) > 2
    assert lab.outcomes() == undisturbed.outcomes()


def test_a_job_that_takes_its_machine_down_each_time_is_found(lab, undisturbed, on, monkeypatch):
    """As on a cluster: what was trained since the last checkpoint came home is lost with the machine."""

    class Apart(InProcess):
        def news(self, timeout_s: float):
            folder = self._jobs[0][2]
            for place, told in super().news(timeout_s):
                for checkpoint in folder.rglob("*.pt") if isinstance(told, Died) else ():
                    checkpoint.unlink()
                yield place, told

    def fate(place: Place, assignment: Assignment, news: News) -> None:
        if isinstance(news, Trained) and any(lane.trial == culprit for lane in news.report.lanes):
            lost.append(len(assignment.job.trials))
            raise Killed("its machine is lost")

    lost: list[int] = []
    culprit = next(trial.id for trial in lab.suite(**MIXED).trials if trial.method == "kd")
    monkeypatch.setattr("engine.Died", partial(Died, blameless=True))
    monkeypatch.setattr(deaths, "MOST_LOSSES", 3)
    assert on(lab, Apart("a", cache=lab.store.cache, fate=fate), methods=["scratch", "kd"])[0]
    assert lost == [2, 2, 2, 1, 1, 1]
    assert lab.store.record(culprit).reason == (
        "its machine was lost 3 times in a row, and its training came no further, the last time: its machine is lost"
    )
    others = {trial: outcome for trial, outcome in lab.outcomes().items() if trial != culprit}
    assert len(others) == 2 and others.items() <= undisturbed.outcomes().items()


def test_different_devices_are_told(lab, on, monkeypatch):
    def fate(place: Place, assignment: Assignment, news: News) -> None:
        if isinstance(news, Ready):
            object.__setattr__(news, "environment", news.environment.model_copy(update={"device": f"device {place.name}"}))

    _, said = on(lab, InProcess("a", "b", cache=lab.store.cache, fate=fate), seeds=[0, 1], methods=["scratch"])
    assert [line for line in said if "different devices" in line] == [
        "warning: jobs run on different devices (device a, device b): last bits may differ from one student to another."
    ]


def test_where_no_worker_can_begin_the_run_ends_and_no_trial_has_failed(lab, on):
    def fate(place: Place, assignment: Assignment, news: News) -> None:
        raise Killed("no such device")

    with pytest.raises(KdbenchError, match=r"no device is left to train on \(a: no such device; b: no such device\)"):
        on(lab, InProcess("a", "b", cache=lab.store.cache, fate=fate), methods=["kd"])
    assert lab.outcomes() == {}
    assert lab.run(lab.suite(**{**MIXED, "methods": ["kd"]}))


def test_a_run_waits_for_places_that_are_still_to_come(lab, undisturbed, on):
    class Growing(InProcess):
        """Its second place comes where nothing runs at the first one."""

        device, capacity = "cpu", 2

        def news(self, timeout_s: float):
            if not self._jobs:
                self._places += [Place("bad" if not self._places else "good", "this host", "cpu")]
            return super().news(timeout_s)

    def fate(place: Place, assignment: Assignment, news: News) -> None:
        if place.name == "bad":
            raise Killed("no such device")

    finished, said = on(lab, Growing(cache=lab.store.cache, fate=fate))
    assert finished and lab.outcomes() == undisturbed.outcomes()
    assert "every device that has come is left out. The run waits for another one; Ctrl-C stops it." in said
    assert not any("of other runs" in line for line in said)


def test_a_run_whose_process_is_killed_is_brought_home_by_the_next_one(lab, undisturbed, on):
    class PowerCut(BaseException):
        pass

    def fate(place: Place, assignment: Assignment, news: News) -> None:
        if isinstance(news, Trained) and news.report.main and len(assignment.job.trials) > 1 and news.report.epoch == 2:
            raise PowerCut

    engine = InProcess("a", cache=lab.store.cache, fate=fate)
    engine.close = lambda: (_ for _ in ()).throw(PowerCut)  # nor does anything after it happen
    with pytest.raises(PowerCut):
        on(lab, engine)
    (left,) = {file.parents[2] for file in lab.store.jobs.rglob("checkpoint.pt")}
    assert lab.run(lab.suite(**MIXED))  # in one process
    assert not left.exists()
    assert lab.outcomes() == undisturbed.outcomes()


def test_what_a_run_left_that_was_killed_in_its_last_moment_goes_when_nothing_is_left_to_train(finished):
    left = finished.store.jobs / "some-job"
    (left / "trials" / finished.suite(**MIXED).trials[0].id).mkdir(parents=True)
    (finished.store.jobs / ".DS_Store").touch()  # somebody else's
    with finished.store.writing():  # by another process
        assert finished.run(finished.suite(**MIXED))
    assert left.exists()
    assert finished.run(finished.suite(**MIXED))
    assert not left.exists()


def test_stages_that_two_jobs_need_are_trained_once_before_both(lab, on, another):
    engine = InProcess("a", cache=lab.store.cache)
    changes = {"methods": ["scratch", {"ft": {"paraphraser_epochs": 2}}], "seeds": [0, 1], "stages": "per-teacher"}
    assert on(lab, engine, **changes)[0]
    assert [label for _, label in engine.started][1:] == [
        "ft.paraphraser",
        "2 students, resnet8, seed 0",
        "2 students, resnet8, seed 1",
    ]
    assert another.run(another.suite(**{**MIXED, **changes}))
    assert lab.outcomes() == another.outcomes()


def test_engines_are_chosen_by_what_they_run_on():
    choose = partial(run.choose_engine, address="", cache=Path(), say=print)
    with pytest.raises(KdbenchError, match="'cpu:2' is several devices, and the engine here uses one"):
        choose("here", "cpu:2")
    with pytest.raises(KdbenchError, match="no number of workers"):
        choose("", "cpu:none")
    with pytest.raises(KdbenchError, match=r"unknown engine 'there'\. Choose here, local or ray"):
        Options(engine="there")
    assert choose("", "cpu") is None
