"""Runs a suite: teachers first, then cohorts in lockstep, every finished trial recorded at once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdbench.data import Feed
from kdbench.errors import KdbenchError
from kdbench.files import set_aside
from kdbench.method.interface import Composition
from kdbench.method.specs import setting
from kdbench.models.measure import macs
from kdbench.models.weights import read_checkpoint, write_checkpoint
from kdbench.results.store import Store
from kdbench.runner.elsewhere import refuse_other_teachers, trained_elsewhere
from kdbench.runner.fitting import Fitting, Work
from kdbench.runner.plan import Plan, Planned, Rerun, Status, cohorts, make_plan
from kdbench.runner.preflight import preflight
from kdbench.runner.progress import Progress
from kdbench.runner.recorder import Recorder
from kdbench.runner.teachers import Teacher, Teachers
from kdbench.spec.trial import TrialSpec
from kdbench.suite.code import core_code, trial_code
from kdbench.suite.resolve import Suite
from kdbench.training.balance import imbalance
from kdbench.training.bench import Bench
from kdbench.training.cohort import Stream, train_in_lockstep
from kdbench.training.device import choose_device, environment, exact
from kdbench.training.faults import faults_told
from kdbench.training.lane import Lane, Row
from kdbench.training.segments import Position, segments

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
    if not (todo := plan.todo(options.rerun)):
        return True
    loaded = preflight(plan, todo, cache=store.cache, device=device, download=True)
    kind, params = suite.source
    with store.writing(), faults_told():
        plan = make_plan(suite, store)  # again, now that nobody else can change what is done
        if not (todo := plan.todo(options.rerun)):
            return True  # another process has done it meanwhile
        dataset = loaded or kind(params, cache=store.cache).load()
        bench = Bench(dataset, params, device)
        store.refuse_other_data(suite.trials[0].dataset.label, fingerprint=dataset.fingerprint)
        deadline = math.inf if options.stop_after_s is None else time.monotonic() + options.stop_after_s
        fitting = Fitting(device, options.lanes or sys.maxsize, progress.say)

        def stop() -> bool:
            return options.stop() or time.monotonic() >= deadline

        teachers, recorder = Teachers(store, bench, progress, fitting, stop), Recorder(suite, store, bench, progress)
        run = _Run(suite, store, bench, fitting, progress, stop, teachers, recorder)
        _note_macs(store, bench, [planned.spec for planned in todo])
        return run.run(plan, todo, rerun=options.rerun)


def _note_macs(store: Store, bench: Bench, trials: Sequence[TrialSpec]) -> None:
    """Write down the work of networks that are new to the directory, so that planning can compare them without building any."""
    label = trials[0].dataset.label
    wanted = {spec.student: spec.hooks for trial in trials for spec in (trial, trial.teacher) if spec}
    found = {}
    for name in sorted(wanted.keys() - store.macs().get(label, {}).keys()):
        try:
            found[name] = macs(bench.blank(name, wanted[name]), bench.dataset.image_shape)
        except Exception:  # a mistake in a network fails its trials when they start
            continue
    if found:
        store.note_macs(label, found)


@dataclass(eq=False)
class _Run:
    suite: Suite
    store: Store
    bench: Bench
    fitting: Fitting
    progress: Progress
    stop: Callable[[], bool]
    teachers: Teachers
    recorder: Recorder
    ungraphed: set[str] = field(default_factory=set)
    """The methods of which it was said that they run without CUDA graphs."""
    noted: set[str] = field(default_factory=set)
    """What was said of how methods handle pairs: other seeds of a trial need not repeat it."""
    begun: set[str] = field(default_factory=set)
    """The trials whose epochs `progress` counts."""
    remaining: list[TrialSpec] = field(default_factory=list)
    """All trials of this run: what they need of one teacher is trained together."""

    def run(self, plan: Plan, todo: Sequence[Planned], *, rerun: Rerun) -> bool:
        students = {planned.spec.id for planned in todo}  # one may be another one's teacher
        teachers = [
            planned
            for planned in plan.teachers_of(todo)
            if (planned.spec.id in students or not self.teachers.usable(planned))
            and (planned.status is not Status.FAILED or rerun.takes_up(planned.status))
        ]
        refuse_other_teachers(teachers, todo, store=self.store, bench=self.bench)
        self.recorder.describe_data()
        if rerun is Rerun.WEIGHTS and (elsewhere := trained_elsewhere(todo, bench=self.bench)):
            self.progress.say(
                f"warning: of the students that are trained again for their weights, {elsewhere} were trained elsewhere or with "
                "other versions: here they end in other bits, and their records say so."
            )
        for planned in (*teachers, *todo):
            if planned.status is not Status.STARTED or rerun is Rerun.ALL:
                self.store.discard(planned.spec.id)
        first = {planned.spec.id: planned.spec for planned in teachers if planned.spec.methods}
        then = [planned.spec for planned in todo if planned.spec.id not in first]
        self.remaining = [*first.values(), *then]
        self.progress.begin(sum(spec.recipe.epochs for spec in self.remaining))
        for planned in teachers:
            if not planned.spec.methods:
                self.bench.start(planned.spec)  # weights that cannot be had are the user's to mend and no failed trial
                with self.recorder.isolated(planned.spec, None):
                    self.recorder.adopt(planned.spec)
        if not all(self._cohort(cohort) for cohort in cohorts(first.values())):
            return False
        self._foretell(plan.teachers_of(todo), then)
        return all(self._cohort(cohort) for cohort in cohorts(then))

    def _foretell(self, teachers: Iterable[Planned], students: Iterable[TrialSpec]) -> None:
        """Say, before any student starts, which teachers are not as they ought to be, and what students start with."""
        for spec in (planned.spec for planned in teachers):
            record, expected = self.store.record(spec.id), self.suite.expected_error_pct.get(spec.id)
            measured = record.test_error_pct if record else None
            within = max(EXPECTED_WITHIN_PCT, 150 / len(self.bench.dataset.test))  # one image and a half of a small test set
            if expected is not None and measured is not None and abs(measured - expected) > within:
                self.progress.say(
                    f"warning: the teacher {spec.label} has a test error of {measured:.2f} %, and {expected:g} % is expected; "
                    "see that its images are normalised, resized and numbered by class as in its training."
                )
        for note in dict.fromkeys(note for spec in students for note in self.bench.weight_notes(spec)):
            self.progress.say(f"note: {note}.")

    def _cohort(self, trials: Sequence[TrialSpec]) -> bool:
        """Train trials that share data set, recipe and seed, and the teacher where they have one; False when stopped."""
        recipe = trials[0].recipe
        teacher_spec = next((trial.teacher for trial in trials if trial.teacher), None)
        with exact(self.bench.device, precision=recipe.precision, image_shape=self.bench.dataset.image_shape):
            teacher = self.teachers.get(teacher_spec, recipe) if teacher_spec else None
            if teacher_spec and teacher is None:
                trials = [trial for trial in trials if trial.teacher is None]
                self.progress.say(f"the teacher {teacher_spec.label} has failed: its students are left for another run.")
            if teacher and not self.teachers.train_stages(teacher, self.remaining):
                return False
            students = Work[TrialSpec](
                train=lambda group, graphs: self._group(group, teacher, graphs=graphs),
                ended=lambda trial: self.store.record(trial.id) is not None,
                name=lambda trial: trial.method,
                noun="students",
            )
            return self.fitting.train(trials, students)

    def _group(self, trials: Sequence[TrialSpec], teacher: Teacher | None, *, graphs: bool) -> bool:
        """Train some trials of one cohort side by side, and record each when it ends."""
        lanes: list[tuple[TrialSpec, Lane]] = []
        for trial in trials:
            with self.recorder.isolated(trial, teacher):
                method = self.bench.composition(trial, teacher.network.teacher_parts() if teacher else None)
                self._say_notes(trial, method)
                rows = self.teachers.load_stages(teacher, trial, method) if teacher else []
                lanes.append((trial, self._lane(trial, method, rows, teacher)))

        def epoch_done(now: Position, active: Sequence[Lane]) -> None:
            self.progress.epoch(now, active)
            for trial, lane in lanes:
                row = lane.rows[-1] if lane.rows else {}
                if lane in active and trial.id not in warned and (warning := imbalance(trial, lane.method, row)):
                    warned.add(trial.id)
                    self.progress.say(warning)
            for _, lane in lanes:
                if lane.unfit and lane.name not in self.ungraphed:
                    self.ungraphed.add(lane.name)
                    self.progress.say(f"{lane.name} runs without CUDA graphs, more slowly: {lane.unfit}.")
            ended = [(trial, lane) for trial, lane in lanes if lane in active and lane.position is None]
            if ended and teacher:
                teacher.frozen.assert_unchanged()
            for trial, lane in ended:
                self.recorder.ended(trial, lane, teacher)

        warned: set[str] = set()

        recipe = trials[0].recipe
        finished = train_in_lockstep(
            [lane for _, lane in lanes],
            Stream(self.bench.training_data(recipe.augmentation), recipe, trials[0].seed),
            teacher=teacher.frozen if teacher else None,
            evaluation=self._evaluation,
            stop=self.stop,
            epoch_done=epoch_done,
            graphs=graphs,
        )
        if teacher:
            teacher.frozen.assert_unchanged()
        return finished

    def _say_notes(self, trial: TrialSpec, method: Composition) -> None:
        pair = f"{trial.teacher.label} -> {trial.label}" if trial.teacher else trial.label
        for note in (f"note: {pair}: {note}." for note in method.notes):
            if note not in self.noted:
                self.noted.add(note)
                self.progress.say(note)

    def _lane(self, trial: TrialSpec, method: Composition, rows: list[Row], teacher: Teacher | None) -> Lane:
        """The trial's lane, at its start after the stages whose `rows` are given, or where its checkpoint stands."""
        file = self.store.folder(trial.id) / "checkpoint.pt"
        ran_on = environment(self.bench.device)
        origin = [
            core_code(),
            trial_code(trial),
            self.bench.dataset.fingerprint,
            teacher.record.weights_sha256 if teacher and trial.teacher else None,
            ran_on.model_dump(),
        ]

        def keep(state: Mapping[str, Any]) -> None:
            write_checkpoint(file, {**state, "origin": origin})
            self.store.write_curves(trial.id, state["rows"])

        student = self.bench.student(trial)
        lane = Lane(
            setting(trial),
            seed=trial.seed,
            student=student,
            method=method,
            segments=segments(method, student, trial.recipe),
            precision=trial.recipe.precision,
            compiled=trial.recipe.compile,
            device=self.bench.device,
            checkpoint=keep,
        )
        lane.rows += rows
        counted = trial.id in self.begun  # as those are of a group that did not fit
        self.begun.add(trial.id)
        state = read_checkpoint(file)
        if state and state["origin"] == origin:
            lane.restore(state)
            if not counted:
                self.progress.resumed(lane)
            return lane
        if state:
            set_aside(file, "code, environment, images or teacher differ from those it was written with; the trial starts anew")
        self.store.begin(trial.id, trial.model_dump(mode="json"), environment=ran_on.model_dump())
        return lane

    @property
    def _evaluation(self) -> dict[str, Feed]:
        """What students are examined on, by the key of the error in their curves."""
        held_out = self.bench.validation_data
        return {"test_error_pct": self.bench.test_data, **({"validation_error_pct": held_out} if held_out else {})}
