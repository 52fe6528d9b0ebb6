"""When a trial was first planned is written down before anything trains, and stays, however it comes to its end."""

from datetime import UTC, datetime

import pytest
from conftest import MIXED, Lab
from invariants.probes import statuses

import kdbench
from kdbench.report.command import print_and_write
from kdbench.report.compare import compare
from kdbench.report.contents import read_report
from kdbench.report.tables.results import result_table
from kdbench.runner.plan import Rerun


class Clock(datetime):
    """Tells what it is set to."""

    time = datetime(2026, 11, 25, 12, tzinfo=UTC)

    @classmethod
    def now(cls, tz=None):
        return cls.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    for module in ("phase", "recorder"):
        monkeypatch.setattr(f"kdbench.runner.{module}.datetime", Clock)
    monkeypatch.setattr(Clock, "time", Clock.time)
    return Clock


FIRST, SECOND = "2026-11-25T12:00:00+00:00", "2026-11-26T12:00:00+00:00"


def test_what_a_run_takes_up_was_planned_when_it_began_and_ever_after(lab: Lab, clock: type[Clock]) -> None:
    suite = lab.suite(seeds=[0, 1])
    trials = (*suite.trials, *suite.teachers)
    assert not lab.run(suite, stop_after_s=0)
    assert {lab.file(trial, "planned.txt").read_text() for trial in trials} == {FIRST}
    assert set(statuses(lab, suite).values()) == {"missing"}
    assert {planned.status for planned in lab.plan(suite).teachers} == {"missing"}

    clock.time = clock.time.replace(day=26)
    more = lab.suite(seeds=[0, 1, 2])
    assert lab.run(more)
    found = {lab.record(trial).seed: lab.record(trial).planned for trial in more.trials}
    assert found == {0: FIRST, 1: FIRST, 2: SECOND}
    frame = kdbench.load_results(lab.store.root, suite=lab.root / "tiny.yaml")
    assert dict(zip(frame["seed"], frame["planned"], strict=True)) == found
    assert set(frame["finished"]) == {SECOND}

    assert not [note for note in notes(lab) if "planned" in note]

    clock.time = clock.time.replace(day=27)
    assert lab.run(more, rerun=Rerun.ALL)
    again = {lab.record(trial).seed: lab.record(trial).planned for trial in more.trials}
    assert again == found
    assert {lab.record(trial).first_finished for trial in more.trials} == {SECOND}
    assert {lab.record(trial).planned_again for trial in more.trials} == {Clock.time.isoformat(timespec="seconds")}
    assert lab.record(more.teachers[0]).planned_again is None, "it was not trained again"
    lab.store.discard(more.trials[0].id)
    assert lab.store.first_finished(more.trials[0].id) == SECOND, "and not when it was done again"


def notes(lab: Lab) -> tuple[str, ...]:
    """Under the first table of the suite that was run last."""
    frame = kdbench.load_results(lab.store.root, suite=lab.root / "tiny.yaml")
    return result_table(compare(frame, pairs=[("wrn_10_1", "resnet8")])).notes


def test_a_report_tells_seeds_that_were_planned_after_a_look_and_those_that_it_leaves_out(
    lab: Lab, clock: type[Clock], capsys: pytest.CaptureFixture[str]
) -> None:
    lab.run(lab.suite(seeds=[0]))
    clock.time = clock.time.replace(day=26)
    lab.run(lab.suite(seeds=[0, 1]))
    assert "Seed 1 was planned on 2026-11-26, when seed 0 was done." in notes(lab)
    clock.time = clock.time.replace(day=27)
    lab.run(lab.suite(seeds=[0], methods=["scratch", "kd", "at"]))
    assert not [note for note in notes(lab) if "planned" in note]
    for seeds, further in (([0], [1]), ([0, 1], [])):
        file = lab.suite(seeds=seeds).file
        report = read_report([str(file)], lab.store.root, seeds=[], changes={}, plugins=[])
        assert report.further_seeds == further
        print_and_write(report, formats=["md"])
        told = "not shown: the folder also has seed 1 of these trials, which the suite does not list under `seeds`."
        assert (told in capsys.readouterr().out) == bool(further)
    assert not read_report([str(file)], lab.store.root, seeds=[0], changes={}, plugins=[]).further_seeds, "it was chosen so"
    other = lab.suite(seeds=[0], teacher={"seed": 5}).file
    assert not read_report([str(other)], lab.store.root, seeds=[], changes={}, plugins=[]).further_seeds, "of another teacher"


def test_a_report_tells_other_settings_of_its_methods_in_the_folder(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    hot = {"kd": {"temperature": 9}}
    for seed in (0, 1):
        lab.run(lab.suite(seeds=[seed], methods=["kd", hot, "at"]))
    for methods, further in ((["kd"], ["kd (temperature=9)"]), ([hot], ["kd"]), (["kd", hot], []), (["scratch"], [])):
        report = read_report([str(lab.suite(seeds=[0], methods=methods).file)], lab.store.root, seeds=[], changes={}, plugins=[])
        assert report.further_settings == further
    file = lab.suite(seeds=[0], methods=["kd"]).file
    print_and_write(read_report([str(file)], lab.store.root, seeds=[], changes={}, plugins=[]), formats=["md"])
    told = "not shown: the folder also has 1 other setting of these methods, kd (temperature=9), which the suite does not list"
    assert f"{told} under `methods`.\n" in capsys.readouterr().out


def test_of_a_trial_of_an_earlier_version_nobody_knows(finished: Lab, clock: type[Clock]) -> None:
    suite = finished.suite(**{**MIXED, "methods": ["kd"]})
    finished.file(suite.trials[0], "planned.txt").unlink()
    finished.run(suite, rerun=Rerun.ALL, stop_after_s=0)
    assert statuses(finished, suite) == {"kd": "missing"}
    finished.run(suite)
    assert finished.record(suite.trials[0]).planned is None


def test_roles_are_marked(finished: Lab) -> None:
    """A teacher has the method of a student from scratch; one that is used as it is has no students here."""
    suite = finished.suite(**MIXED)
    weights = str(finished.file(suite.teachers[0], "weights.safetensors"))
    adopted = {"teacher": {"model": "wrn_10_1", "weights": weights}, "student": "resnet8"}
    finished.run(finished.suite(pairs=[adopted], methods=["kd"]), stop_after_s=0)
    frame = kdbench.load_results(finished.store.root)
    assert dict(zip(frame["student"] + " " + frame["method"], frame["role"], strict=True)) == {
        "wrn_10_1 scratch": "teacher",
        "wrn_10_1 (weights " + frame["student"].str.extract(r"\(weights (\w+)\)")[0].dropna().iloc[0] + ") pretrained": "teacher",
        **{f"resnet8 {method}": "student" for method in ("scratch", "kd", "fitnets", "ft", "crd+kd")},
    }
    assert [*frame.loc[frame["student"] == "resnet8", "label"].sort_values()] == ["CRD+KD", "FT", "FitNets", "KD", "scratch"]
    students = kdbench.load_results(finished.store.root, suite=finished.write(**MIXED))
    assert set(students["role"]) == {"student"}
    assert students["teacher_trial"].dropna().unique().tolist() == [suite.teachers[0].id]


@pytest.mark.parametrize(("recorded", "anew", "kept"), [(False, False, True), (False, True, False), (True, False, False)])
def test_a_trial_goes_on_from_its_checkpoint_unless_it_has_a_record(finished: Lab, recorded, anew, kept):
    trial = finished.suite(**MIXED).trials[0]
    record, checkpoint = finished.file(trial), finished.file(trial, "checkpoint.pt")
    checkpoint.touch()
    if not recorded:
        record.unlink()
    finished.store.make_ready(trial.id, SECOND, anew=anew)
    assert checkpoint.exists() is kept and not record.exists()
    assert finished.file(trial, "record.json.replaced").exists() is recorded
