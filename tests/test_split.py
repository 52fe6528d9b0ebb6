"""How jobs are split where places would be idle: sums whose answer is known by arithmetic, and a run that is split."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MIXED, Said
from engine import InProcess
from hypothesis import given, settings
from hypothesis import strategies as st

import kdbench
from kdbench.runner import run
from kdbench.runner.cost import costs
from kdbench.runner.durations import JOB_S, Durations, LaneSeconds, StageSeconds, durations
from kdbench.runner.job import Job, jobs, with_stages
from kdbench.runner.plan import Planned, Status
from kdbench.runner.run import Options, execute
from kdbench.runner.schedule import Task, end_s
from kdbench.runner.split import in_parts, split
from kdbench.runner.timings import timings_by_device
from kdbench.spec.trial import TrialSpec
from kdbench.suite.resolve import load_suite

SUITE = """
title: Split
dataset: {{name: digits, label: split}}
recipe: {{epochs: 10, batch_size: 64, optimiser: {{lr: 0.1}}}}
seeds: {seeds}
methods: {methods}
pairs: [{{teacher: resnet20, student: resnet8}}]
"""


@pytest.fixture
def cohorts(tmp_path: Path):
    """The jobs of a suite's students."""

    def make(methods: str, seeds: int = 1, more: str = "") -> list[Job]:
        file = tmp_path / "split.yaml"
        file.write_text(SUITE.format(seeds=[*range(seeds)], methods=methods) + more)
        return jobs(planned(trial) for trial in load_suite(file).trials)

    return make


def planned(trial: TrialSpec) -> Planned:
    return Planned(trial, Status.MISSING, None, Path(trial.id), keeps_weights=False, teaches=False)


KD = "[{}]".format(", ".join(f"kd: {{temperature: {t}}}" for t in range(1, 9)))
FT = "[{}]".format(", ".join(f"ft: {{beta: {t}}}" for t in range(1, 9)))
FT_OF_TWO_KINDS = "[{}]".format(", ".join(f"ft: {{beta: {t}, k: {k}}}" for t in (1, 2) for k in (0.5, 2)))


def taking(
    own: float, *, data: float = 0.0, teacher: float = 0.0, stage: float = 0.0, lanes: int = 0, **others: float
) -> Durations:
    """Durations where every trial takes as long, but for the methods in `others`."""
    return Durations(
        lambda planned: LaneSeconds(others.get(planned.spec.method, own), data, teacher),
        lambda found: StageSeconds(stage, 0.0),
        lanes,
    )


def sizes(found: list[Job]) -> list[int]:
    return [len(job.trials) for job in found]


def seconds_of(job: Job, known: Durations, *, learnt: frozenset[str] = frozenset()) -> float:
    """What a job takes before which some stages, by their ids, were trained."""
    if job.stages is not None:
        return known.stage_job(job.stages)
    left = {stage.id: stage for stage in job.learnt if stage.id not in learnt}
    return known.stages(left.values()) + known.students(list(map(known.lane, job.trials)))


def end_of(found: list[Job], known: Durations, places: int) -> float:
    """When a driver would have trained them all."""
    every = with_stages(found)
    learnt = frozenset(stage.id for job in every if job.stages for stage in job.stages)
    return end_s([Task(seconds_of(job, known, learnt=learnt), job.needs, job.gives) for job in every], places)


@pytest.mark.parametrize(
    ("methods", "seeds", "places", "known", "expected"),
    [
        (KD, 1, 1, taking(10), [8]),
        (KD, 1, 2, taking(10), [4, 4]),
        (KD, 1, 3, taking(10), [3, 3, 2]),
        (KD, 1, 8, taking(10), [1] * 8),
        (KD, 1, 50, taking(10), [1] * 8),
        (KD, 2, 2, taking(10), [8, 8]),
        (KD, 2, 4, taking(10), [4, 4, 4, 4]),
        (KD, 8, 2, taking(10), [8] * 8),
        (KD, 3, 2, taking(10), [4] * 6),  # two places would wait for the third cohort
        (KD, 1, 2, taking(0.001), [8]),  # less than a job takes to begin
        (KD, 1, 2, taking(1, data=5, teacher=300), [8]),  # 310 s for 314, and twice the work
        (KD, 1, 7, taking(10), [2, 2, 2, 2]),  # seven parts end no sooner
        (KD, 1, 2, taking(1, teacher=100, lanes=4), [4, 4]),  # which train apart anyway
        ("[scratch, kd, fitnets]", 1, 2, taking(10, fitnets=25), [1, 2]),  # a stage before makes it longer
        ("[scratch, kd, fitnets]", 1, 3, taking(10, fitnets=25), [1, 2]),  # nor do three end sooner
    ],
)
def test_jobs_are_split_where_all_ends_sooner(cohorts, methods, seeds, places, known, expected):
    assert sizes(split(cohorts(methods, seeds), places=places, durations=known)) == expected


def test_the_longest_job_starts_first(cohorts):
    one, other = cohorts(KD, 2)
    short = replace(one, trials=one.trials[:3])
    assert split([short, other], places=2, durations=taking(10))[0].trials[0] in other.trials
    assert sizes(split([short, other], places=1, durations=taking(10))) == [8, 3]


def test_jobs_with_begun_trials_start_before_the_longest_job(cohorts):
    whole, other = cohorts(KD, 2)
    begun = replace(other, trials=tuple(replace(trial, status=Status.STARTED) for trial in other.trials[:3]))
    for places in range(1, 6):
        found = split([whole, begun], places=places, durations=taking(10))
        status = [job.trials[0].status for job in found]
        assert status == sorted(status, reverse=True) and {*status} == {Status.STARTED, Status.MISSING}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_that_goes_on_starts_with_jobs_that_were_begun_and_has_counted_them(lab, monkeypatch, one_epoch_a_run, elsewhere):
    assert not lab.run(lab.suite(methods=["scratch"], seeds=[1]), **one_epoch_a_run)
    engine = InProcess("a", cache=lab.store.cache) if elsewhere else None
    monkeypatch.setattr(run, "choose_engine", lambda name, device, **more: engine)
    told, seen = Said(), []
    told.job_started = lambda place, job, **more: seen.append((job.label, told.pace.done, told.pace.total))
    assert execute(lab.suite(methods=["scratch"], seeds=[0, 1]), lab.store, options=Options(device="cpu"), progress=told)
    assert seen == [("scratch, resnet8, seed 1", 1, 4), ("scratch, resnet8, seed 0", 2, 4)]
    assert (told.pace.done, told.pace.resumed) == (4, 1)


def test_a_checkpoint_that_is_of_no_use_is_not_counted(lab, one_epoch_a_run):
    suite, told = lab.suite(methods=["scratch"], seeds=[1]), Said()
    assert not lab.run(suite, **one_epoch_a_run)
    lab.file(suite.trials[0], "checkpoint.pt").write_bytes(b"broken")
    seen = []
    told.show = lambda text: seen.append((told.pace.done, told.pace.resumed))
    assert execute(suite, lab.store, options=Options(device="cpu"), progress=told)
    assert seen == [(1, 0), (2, 0)]


def test_trials_that_share_a_stage_stay_together_where_that_holds_nothing_up(cohorts):
    """Of two kinds of FT, two trials share a stage each."""
    found = split(cohorts(FT_OF_TWO_KINDS), places=2, durations=taking(10, stage=5))
    assert [{planned.spec.methods[0].params["k"] for planned in job.trials} for job in found] == [{0.5}, {2.0}]
    assert len(with_stages(found)) == 2


def test_a_stage_that_parts_share_becomes_a_job_before_them(cohorts):
    found = with_stages(split(cohorts(FT), places=4, durations=taking(100, stage=5)))
    assert found[0].stages and sizes(found[1:]) == [2] * 4
    assert all(job.needs >= found[0].gives for job in found[1:])
    assert sizes(split(cohorts(FT), places=2, durations=taking(1, stage=500))) == [8], "the stage takes nearly all"


def test_stages_of_several_seeds_are_jobs_of_their_own(cohorts):
    found = in_parts([], cohorts(FT, 2), places=8, durations=taking(100, stage=5))
    assert [[stage.seed for stage in job.stages] for job in found if job.stages] == [[0], [1]]
    found = in_parts([], cohorts(FT, 2, "stages: per-teacher\n"), places=8, durations=taking(100, stage=5))
    assert [[stage.seed for stage in job.stages] for job in found if job.stages] == [[None]]


@settings(max_examples=40, deadline=None)
@given(
    own=st.lists(st.floats(0.1, 1000), min_size=1, max_size=12),
    data=st.floats(0, 100),
    teacher=st.floats(0, 500),
    stage=st.floats(0, 300),
    lanes=st.integers(0, 4),
    seeds=st.integers(1, 3),
    places=st.integers(1, 9),
)
def test_a_split_run_ends_no_later_and_trains_the_same(tmp_path_factory, own, data, teacher, stage, lanes, seeds, places):
    methods = "[{}]".format(", ".join(f"{('ft', 'at')[i % 2]}: {{beta: {i + 1}}}" for i in range(len(own))))
    file = tmp_path_factory.mktemp("suite") / "split.yaml"
    file.write_text(SUITE.format(seeds=[*range(seeds)], methods=methods))
    whole = jobs(planned(trial) for trial in load_suite(file).trials)
    known = Durations(
        lambda planned: LaneSeconds(own[int(planned.spec.methods[0].params["beta"]) - 1], data, teacher),
        lambda found: StageSeconds(stage, teacher),
        lanes,
    )
    found = split(whole, places=places, durations=known)
    order = {planned.spec.id: i for i, planned in enumerate(planned for job in whole for planned in job.trials)}
    numbers = [[order[planned.spec.id] for planned in job.trials] for job in found]
    assert sorted(number for part in numbers for number in part) == [*range(len(order))]
    assert all(part == sorted(part) for part in numbers)
    assert all(len({planned.spec.seed for planned in job.trials}) == 1 for job in found)
    assert found == split(whole, places=places, durations=known)
    seconds = [seconds_of(job, known) for job in found]
    longest_first = sorted(whole, key=lambda job: -seconds_of(job, known))
    if places == 1:
        assert seconds == sorted(seconds, reverse=True)
    assert end_of(found, known, places) <= end_of(longest_first, known, places) * (1 + 1e-9)


def test_a_run_in_parts_gives_the_records_of_a_whole_one(lab, undisturbed, monkeypatch):
    engine, suite = InProcess("a", "b", "c", cache=lab.store.cache), lab.suite(**MIXED)
    monkeypatch.setattr(run, "choose_engine", lambda name, device, **more: engine)
    assert execute(suite, lab.store, options=Options(device="cpu"), progress=Said())
    _, *parts = engine.started
    assert len(parts) == 3 and {place for place, _ in parts} == {"a", "b", "c"}
    assert lab.outcomes() == undisturbed.outcomes()
    frame = kdbench.load_results(lab.store.root).set_index("role")
    assert frame.loc["teacher", "jobs_on_machine"] == 1 and set(frame.loc["student", "jobs_on_machine"]) == {3}
    (cost,) = costs(lab.plan(lab.suite(**{**MIXED, "seeds": [1]})), lab.store)
    assert (cost.measured, cost.beside_others) == (6, 5)


def test_where_nothing_was_measured_trials_are_taken_for_equal_and_stages_for_longer(lab):
    """Of FitNets' hints it is known how many epochs they are trained."""
    suite = lab.suite(methods=["scratch", "kd", {"fitnets": {"hint_epochs": 2}}])
    known = durations(lab.plan(suite), lab.store, by_device=timings_by_device(lab.store), device="Abacus")
    scratch, kd, fitnets = map(known.lane, lab.plan(suite).students)
    assert scratch.own == kd.own == fitnets.own / 2
    assert (scratch.teacher, kd.teacher) == (0, fitnets.teacher / 2)


def test_what_was_measured_is_taken_from_any_device_where_this_one_has_seen_nothing(finished):
    plan = finished.plan(finished.suite(**{**MIXED, "seeds": [1]}))
    here = finished.record(plan.teachers[0].spec).environment.device
    by_device = timings_by_device(finished.store)
    known, elsewhere = (durations(plan, finished.store, by_device=by_device, device=device) for device in (here, "Abacus"))
    for trial in plan.students:
        assert known.lane(trial) == elsewhere.lane(trial)
        assert 0 < known.lane(trial).own < 60
    assert seconds_of(Job(plan.students), known) > JOB_S


def test_ten_thousand_trials_on_512_places_are_split_in_a_second(cohorts):
    """The bound leaves room for a busy machine."""
    (one,) = cohorts("[kd]")
    trials = [replace(one.trials[0]) for _ in range(10_000)]
    for planned_ in trials:
        planned_.__dict__["stages"] = ()
    own = {id(planned_): 10 + i % 7 for i, planned_ in enumerate(trials)}
    known = Durations(lambda found: LaneSeconds(own[id(found)], 1, 5), lambda stage: StageSeconds(0, 0))
    many = [Job(tuple(trials[i : i + 20])) for i in range(0, len(trials), 20)]
    began = time.process_time()
    split(many, places=512, durations=known)
    assert time.process_time() - began < 2
