"""Runs a suite: teachers first, then cohorts in lockstep, every finished trial recorded at once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from kdbench.errors import KdbenchError
from kdbench.method.specs import teacher_label
from kdbench.models.measure import macs
from kdbench.results.store import Store
from kdbench.runner.group_trainer import GroupTrainer
from kdbench.runner.job import JobRunner
from kdbench.runner.other_environments import refuse_other_teachers, trained_elsewhere
from kdbench.runner.plan import Plan, Planned, Rerun, Status, jobs, make_plan
from kdbench.runner.preflight import preflight
from kdbench.runner.progress import Progress
from kdbench.runner.recorder import Recorder
from kdbench.runner.teachers import Teachers
from kdbench.spec.trial import TrialSpec
from kdbench.suite.resolve import Suite
from kdbench.training.builder import Builder
from kdbench.training.device import choose_device
from kdbench.training.fatal_errors import fatal_errors_explained

EXPECTED_WITHIN_PCT = 0.5
"""Points by which a teacher's test error may differ from the one that is expected of it before a run says so."""


@dataclass(frozen=True)
class Options:
    """How a suite is run. Of these only the device changes the last bits of a result.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`.
        lanes: how many students train at once, 0 for all of a cohort.
        stop_after_s: seconds after which the run stops at the end of the epoch; None for never.
        stop: asked at the end of each epoch whether to stop.
        rerun: which trials are taken up.

    Raises:
        KdbenchError: fewer than 0 lanes, or a time that is no number of seconds from 0 up.
    """

    device: str = "auto"
    lanes: int = 0
    stop_after_s: float | None = None
    stop: Callable[[], bool] = lambda: False
    rerun: Rerun = Rerun.MISSING

    def __post_init__(self) -> None:
        if not isinstance(self.lanes, int) or self.lanes < 0:
            raise KdbenchError(f"lanes: {self.lanes!r} students cannot train at once. Give a number, or 0 for all of a cohort.")
        if self.stop_after_s is not None and not (isinstance(self.stop_after_s, int | float) and self.stop_after_s >= 0):
            raise KdbenchError(f"stop_after_s: {self.stop_after_s!r} is no number of seconds. Give one, such as 540.")


def execute(suite: Suite, store: Store, *, options: Options, progress: Progress) -> bool:
    """Run what the suite still needs.

    Returns:
        Whether it came to the end; False when it was stopped before.

    Raises:
        KdbenchError: the suite cannot run as it stands; nothing was started.
    """
    device = choose_device(options.device)
    plan = make_plan(suite, store)
    if results := [record for part in (plan.tuning, plan) if part for record in part.tuned_elsewhere]:
        with store.writing():
            for record in results:
                store.mark_as_result(record.trial)
    if not (phases := plan.phases(options.rerun)):
        progress.say("nothing to train: every trial of the suite has ended.")
        return True
    loaded = [preflight(plan, todo, cache=store.cache, device=device, download=True) for plan, todo in phases]
    deadline = math.inf if options.stop_after_s is None else time.monotonic() + options.stop_after_s
    groups = GroupTrainer(device, options.lanes or sys.maxsize, progress.say)

    def stop() -> bool:
        return options.stop() or time.monotonic() >= deadline

    with store.writing(), fatal_errors_explained():
        dataset = next(filter(None, loaded), None)
        for part in (suite.tuning.suite, suite) if suite.tuning else (suite,):
            plan = make_plan(part, store)  # again, now that nobody else can change what is done, and settings are chosen
            if not (todo := plan.todo(options.rerun)):
                continue  # another process has done it meanwhile
            kind, params = part.source
            dataset = dataset or kind(params, cache=store.cache).load()
            run = _prepared(plan, todo, store, Builder(dataset, params, device), progress, groups, stop)
            if not run.run(todo, rerun=options.rerun):
                return False
        return True


def _prepared(
    plan: Plan,
    todo: Sequence[Planned],
    store: Store,
    builder: Builder,
    progress: Progress,
    groups: GroupTrainer,
    stop: Callable[[], bool],
) -> _Run:
    """All that trains the students of one plan."""
    store.refuse_other_data(plan.suite.trials[0].dataset.label, fingerprint=builder.dataset.fingerprint)
    _note_macs(store, builder, [planned.spec for planned in (*plan.teachers, *todo)])
    records = {planned.spec.id: planned.record for planned in plan.teachers if planned.record}
    recorder = Recorder(plan.suite, store, builder, progress, records)
    teachers = Teachers(store, records, builder, progress, groups, stop)
    runner = JobRunner(store, builder, groups, progress, stop, teachers, recorder)
    return _Run(plan, store, builder, progress, teachers, recorder, runner)


def _note_macs(store: Store, builder: Builder, trials: Sequence[TrialSpec]) -> None:
    """Write down the work of networks that are new to the directory, so that planning can compare them without building any."""
    label = trials[0].dataset.label
    wanted = {spec.architecture: spec.network for spec in trials}
    found = {}
    for name in sorted(wanted.keys() - store.macs().get(label, {}).keys()):
        try:
            found[name] = macs(builder.blank(*wanted[name]), builder.dataset.image_shape)
        except Exception:  # a mistake in a network fails its trials when they start
            continue
    if found:
        store.note_macs(label, found)


@dataclass(frozen=True, eq=False)
class _Run:
    plan: Plan
    store: Store
    builder: Builder
    progress: Progress
    teachers: Teachers
    recorder: Recorder
    runner: JobRunner

    def run(self, todo: Sequence[Planned], *, rerun: Rerun) -> bool:
        students = {planned.spec.id for planned in todo}  # one may be another one's teacher
        by_id = {planned.spec.id: planned for planned in self.plan.teachers}
        kept = cache(lambda trial: trial not in students and self.teachers.usable(by_id[trial]))
        needed = self.plan.teachers_of(todo, trained=lambda planned: kept(planned.spec.id))
        teachers = [
            planned
            for planned in needed
            if not kept(planned.spec.id) and (planned.status is not Status.FAILED or rerun.takes_up(planned.status))
        ]
        self.runner.expected = [planned.spec for planned in (*teachers, *todo)]
        refuse_other_teachers(teachers, todo, store=self.store, builder=self.builder)
        self.recorder.describe_data()
        if rerun is Rerun.WEIGHTS and (elsewhere := trained_elsewhere(todo, builder=self.builder)):
            self.progress.say(
                f"warning: of the students that are trained again for their weights, {elsewhere} were trained elsewhere or with "
                "other versions: here they end in other bits, and their records say so."
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for planned in (*teachers, *todo):
            self.store.note_planned(planned.spec.id, now)
            if planned.status is not Status.STARTED or rerun is Rerun.ALL:
                self.store.discard(planned.spec.id)
        first = {planned.spec.id: planned for planned in teachers if planned.spec.methods}
        then = [planned for planned in todo if planned.spec.id not in first]
        self.progress.begin(sum(planned.spec.recipe.epochs for planned in (*first.values(), *then)))
        for planned in teachers:
            if not planned.spec.methods:
                self.builder.start(planned.spec)  # weights that cannot be had are the user's to mend and no failed trial
                with self.recorder.isolated(planned):
                    self.recorder.record_pretrained(planned)
        for depth in sorted({planned.spec.depth for planned in first.values()}):  # each after its own teachers
            if not all(map(self.runner.run, jobs(planned for planned in first.values() if planned.spec.depth == depth))):
                return False
        self._announce(needed, then)
        return all(map(self.runner.run, jobs(then)))

    def _announce(self, teachers: Iterable[Planned], students: Iterable[Planned]) -> None:
        """Say, before any student starts, which teachers are not as they ought to be, and what students start with."""
        for spec in (planned.spec for planned in teachers):
            record, expected = self.recorder.records.get(spec.id), self.plan.suite.expected_error_pct.get(spec.id)
            measured = record.test_error_pct if record else None
            within = max(EXPECTED_WITHIN_PCT, 150 / len(self.builder.dataset.test))  # one image and a half of a small test set
            if expected is not None and measured is not None and abs(measured - expected) > within:
                self.progress.say(
                    f"warning: the teacher {teacher_label(spec)} has a test error of {measured:.2f} %, and {expected:g} % is "
                    "expected; see that its images are normalised, resized and numbered by class as in its training."
                )
        for note in dict.fromkeys(note for planned in students for note in self.builder.weight_notes(planned.spec)):
            self.progress.say(f"note: {note}.")
