"""The trials of one plan from the first look to the last record: what is trained, in which order, here or elsewhere."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property

from kdbench.method.specs import single_steps, teacher_label
from kdbench.results.claims import Claims
from kdbench.results.store import Store
from kdbench.runner.assignment import Assignment
from kdbench.runner.cost import expected
from kdbench.runner.driver import Driver
from kdbench.runner.durations import durations
from kdbench.runner.engines import Engine, Place
from kdbench.runner.group_trainer import GroupTrainer
from kdbench.runner.job import Job, jobs, jobs_of_teachers
from kdbench.runner.job_runner import JobRunner
from kdbench.runner.other_environments import refuse_other_teachers, trained_elsewhere
from kdbench.runner.plan import Plan, Planned, Rerun, Status, look_up_stage
from kdbench.runner.progress import Part, Progress
from kdbench.runner.recorder import Recorder
from kdbench.runner.sharing import Alone, Shared, replaced_by
from kdbench.runner.split import in_parts
from kdbench.runner.teachers import Teachers, teacher_weights, usable
from kdbench.runner.timings import epochs_behind, timings_by_device
from kdbench.spec.record import Environment, Record
from kdbench.spec.trial import TrialSpec
from kdbench.training.builder import Builder
from kdbench.training.device import environment
from kdbench.training.waiting import Waiting

MACS = "macs"
"""Claimed by whoever writes down the work of networks."""

EXPECTED_WITHIN_PCT = 0.5
"""Points by which a teacher's test error may differ from the one that is expected of it before a run says so."""


@dataclass(frozen=True, eq=False)
class Phase:
    """What a run does of a plan; a tuned suite has two of them.

    Attributes:
        claims: where other runs work on the same directory: this one trains what it claims.
    """

    plan: Plan
    store: Store
    builder: Builder
    progress: Progress
    claims: Claims | None = None

    def begin(self, todo: Sequence[Planned], rerun: Rerun, *, places: int = 1) -> tuple[list[Job], list[Job]]:
        """See that all can be trained, and make it ready.

        Args:
            todo: the students.
            rerun: which of the plan these are.
            places: how many jobs will run at once, at most.

        Returns:
            The jobs of the teachers that must be trained, each after its own teachers, and those of the students.

        Raises:
            KdbenchError: something must not be trained here. Nothing was changed.
        """
        self.store.refuse_other_data(self.plan.suite.trials[0].dataset.label, fingerprint=self.builder.dataset.fingerprint)
        students = {planned.spec.id for planned in todo}  # one may be another one's teacher
        by_id = {planned.spec.id: planned for planned in self.plan.teachers}
        kept = cache(lambda trial: trial not in students and usable(self.store, by_id[trial].record))
        needed = self.plan.teachers_of(todo, trained=lambda planned: kept(planned.spec.id))
        teachers = [
            planned
            for planned in needed
            if not kept(planned.spec.id) and (planned.status is not Status.FAILED or rerun.takes_up(planned.status))
        ]
        refuse_other_teachers(teachers, todo, store=self.store, builder=self.builder)
        for planned in teachers:
            teacher_weights(self.store, planned.record)  # damaged ones are set aside before others take their place
        self._note_macs([planned.spec for planned in (*self.plan.teachers, *todo)])
        self.recorder.describe_data()
        for note in single_steps((planned.spec for planned in (*teachers, *todo)), images=len(self.builder.splits[0])):
            self.progress.say(f"warning: {note}.")
        if rerun is Rerun.WEIGHTS and (elsewhere := trained_elsewhere(todo, builder=self.builder)):
            self.progress.say(
                f"warning: of the students that are trained again for their weights, {elsewhere} were trained elsewhere or with "
                "other versions: here they end in other bits, and their records say so."
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for planned in (*teachers, *todo) if self.claims is None else ():  # with claims when it is claimed
            self.store.make_ready(planned.spec.id, now, anew=rerun is Rerun.ALL)
        adopted = [Job((planned,)) for planned in teachers if not planned.spec.methods]
        first = {planned.spec.id: planned for planned in teachers if planned.spec.methods}
        then = [planned for planned in todo if planned.spec.id not in first]
        then.sort(key=lambda planned: planned.status is not Status.STARTED)  # so that jobs with begun trials start first
        here = environment(self.builder.device).device
        expected_s = expected(self.plan, self.store, device=here, places=places) if rerun is Rerun.MISSING else None
        self.progress.begin(replace(self._part([*teachers, *then]), expected_s=expected_s))
        return [*adopted, *jobs_of_teachers(first.values())], jobs(then)

    def _part(self, trials: Sequence[Planned]) -> Part:
        """These trials of the plan, as what is before the run."""
        taken = {planned.spec.id for planned in trials}
        students = {planned.spec.id: planned.status for planned in self.plan.students}
        left = Counter(status for trial, status in students.items() if trial not in taken)
        by_id = {planned.spec.id: planned for planned in self.plan.teachers}
        needed = {stage.id: stage for planned in trials for stage in planned.stages}
        at = {stage.id: look_up_stage(stage, self.store, by_id[stage.teacher.id]).status for stage in needed.values()}
        return Part(
            epochs={planned.spec.id: planned.epochs for planned in trials}
            | {stage.id: stage.epochs for stage in needed.values() if at[stage.id] is not Status.DONE},
            behind={planned.spec.id: epochs for planned in trials if (epochs := epochs_behind(self.store, planned.spec))},
            stages={planned.spec.id: {stage.id for stage in planned.stages} for planned in trials if planned.stages},
            trials=taken & students.keys(),
            done=left[Status.DONE],
            failed=left[Status.FAILED],
            tries_settings=self.plan.suite.tries_settings,
            several_pairs=len(self.plan.suite.pairs) > 1,
        )

    def train_here(
        self,
        teachers: Sequence[Job],
        students: Sequence[Job],
        groups: GroupTrainer,
        *,
        stop: Callable[[], bool],
        waiting: Waiting,
    ) -> bool:
        """Train in this process, one job after the other; False when stopped."""
        of_teachers = Teachers(self.store, self._records, self.builder, self.progress, groups, stop, waiting)
        others = [planned for job in (*teachers, *students) for planned in job.trials]
        runner = JobRunner(self.store, self.builder, groups, self.progress, stop, of_teachers, self.recorder, waiting, others)
        here = Place(str(self.builder.device), socket.gethostname(), str(self.builder.device))

        def run(jobs: Sequence[Job], *, after: int) -> bool:
            for number, job in enumerate(jobs, start=1):
                self.progress.waiting(len(jobs) - number + after)
                self.progress.job_started(here, job)
                finished = runner.run(job)
                self.progress.job_ended(here, done=finished)
                if not finished:
                    return False
            return True

        if not run(teachers, after=len(students)):
            return False
        self._announce(students)
        return run(students, after=0)

    def train_elsewhere(
        self,
        teachers: Sequence[Job],
        students: Sequence[Job],
        engine: Engine,
        *,
        lanes: int,
        device_timeout_s: float,
        stop: Callable[[], bool],
    ) -> bool:
        """Train at the places of an engine; False when stopped."""

        def assign(job: Job) -> Assignment:
            return Assignment.of(
                job,
                self.plan.suite,
                fingerprint=self.builder.dataset.fingerprint,
                lanes=lanes,
                device_timeout_s=device_timeout_s,
            )

        def recorded(record: Record) -> None:
            self._records[record.trial] = record
            left.discard(record.trial)
            if not left and record.trial in of_teachers:
                self._announce(students)

        def failed(planned: Planned, reason: str, log: str, environment: Environment) -> None:
            self.recorder.failed(planned, reason, log=log, ran_on=environment)
            recorded(self._records[planned.spec.id])

        of_teachers = {planned.spec.id for job in teachers for planned in job.trials}
        left = set(of_teachers)
        if not left:
            self._announce(students)
        here, by_device = environment(self.builder.device).device, timings_by_device(self.store)
        known = durations(self.plan, self.store, by_device=by_device, device=here, lanes=lanes)
        jobs = in_parts(teachers, students, places=engine.at_once, durations=known)
        taking = Shared(self.store, self.claims, replaced_by(jobs)) if self.claims else Alone()
        return Driver(self.store, engine, self.progress, stop, assign, failed, recorded, taking).run(jobs)

    @cached_property
    def _records(self) -> dict[str, Record]:
        """By trial, those of the teachers that the plan found, and each that is written."""
        return {planned.spec.id: planned.record for planned in self.plan.teachers if planned.record}

    @cached_property
    def recorder(self) -> Recorder:
        """Writes records."""
        return Recorder(self.plan.suite, self.store, self.builder, self.progress, self._records)

    def _announce(self, students: Iterable[Job]) -> None:
        """Say, before any student starts, which teachers are not as they ought to be, and what students start with."""
        trials = [planned.spec for job in students for planned in job.trials]
        taught_by = {teacher.id: teacher for trial in trials for teacher in trial.teachers}
        for spec in taught_by.values():
            record, expected = self._records.get(spec.id), self.plan.suite.expected_error_pct.get(spec.id)
            measured = record.test_error_pct if record else None
            if record and (warning := learnt_nothing(record)):
                self.progress.say(warning)
            within = max(EXPECTED_WITHIN_PCT, 150 / len(self.builder.dataset.test))  # one image and a half of a small test set
            if expected is not None and measured is not None and abs(measured - expected) > within:
                self.progress.say(
                    f"warning: the teacher {teacher_label(spec)} has a test error of {measured:.2f} %, and {expected:g} % is "
                    "expected; see that its images are normalised, resized and numbered by class as in its training."
                )
        for note in dict.fromkeys(note for trial in trials for note in self.builder.weight_notes(trial)):
            self.progress.say(f"note: {note}.")

    def _note_macs(self, trials: Sequence[TrialSpec]) -> None:
        """Write down the work of networks that are new to the directory, so that planning can compare them without building any."""
        label = trials[0].dataset.label
        wanted = {spec.architecture: spec.network for spec in trials}
        found = {}
        for name in sorted(wanted.keys() - self.store.macs().get(label, {}).keys()):
            try:
                found[name] = self.builder.macs(*wanted[name])
            except Exception:  # a mistake in a network fails its trials when they start
                continue
        if found and self.claims is None:
            self.store.note_macs(label, found)
        elif found and self.claims and self.claims.take(MACS):  # whoever writes at the same moment has the same networks
            self.store.note_macs(label, found)
            self.claims.release(MACS)


def learnt_nothing(teacher: Record) -> str | None:
    """A warning where a network that does not know the classes would have the teacher's error."""
    if teacher.data is None or teacher.test_error_pct is None:
        return None
    one_class = teacher.data.test_images.one_class_error_pct
    if teacher.test_error_pct < one_class:
        return None
    spec = TrialSpec.model_validate(teacher.spec)
    trained, given = "train it longer, or lower its learning rate", "see that it got its images as in its training"
    return (
        f"warning: the teacher {teacher_label(spec)} has a test error of {teacher.test_error_pct:.2f} %, which is no better than "
        f"always answering one class ({one_class:.2f} %); {trained if spec.methods else given}."
    )
