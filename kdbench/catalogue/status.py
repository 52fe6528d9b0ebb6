"""How far the runs of a suite are: as values for `--json`, as text for people. Imports no torch, so that the answer is instant."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path

from kdbench.catalogue.text import WIDTH, Value, aligned
from kdbench.errors import listed
from kdbench.results.runs import Counts, Found, JobNow, LaneNow, State, time_text
from kdbench.wording import clock, counted

MOST_JOBS, MOST_RUNS, MOST_FAILURES = 20, 5, 5
"""So many have a line each in the text; JSON has all."""


@dataclasses.dataclass(frozen=True)
class Started:
    """A student that was begun and is not finished, while no run goes on.

    Attributes:
        name: of its method.
        job: what it was last trained with.
        epochs: of its main training that are behind it, of `of_epochs`.
    """

    trial: str
    name: str
    job: str
    epochs: int
    of_epochs: int


@dataclasses.dataclass(frozen=True)
class Status:
    """The runs of a suite on one results directory.

    Attributes:
        root: the directory.
        runs: those that go on; where none does, those that ended since the last one began.
    """

    suite: str
    root: Path
    runs: tuple[Found, ...]

    @classmethod
    def of(cls, suite: str, root: Path, found: Iterable[Found]) -> Status:
        """Of all runs that a directory knows."""
        return cls(suite, root, tuple(run for run in found if run.now.suite == suite))

    @property
    def going_on(self) -> list[Found]:
        """The runs that are not over, as far as is known."""
        return [run for run in self.runs if run.state is State.RUNNING]

    @property
    def latest(self) -> Found | None:
        """The run that knows most of what is done; None where nothing is known."""

        def known(run: Found) -> tuple[bool, int, int, datetime]:
            now = run.now
            return not now.tries_settings, now.trials.done + now.trials.failed, now.epochs, now.since

        return max(self.going_on or self.runs, key=known, default=None)

    @property
    def jobs(self) -> list[tuple[Found, JobNow]]:
        """All that runs, with its run; first what takes longest."""
        found = [(run, job) for run in self.going_on for job in run.now.running]
        return sorted(found, key=lambda pair: (pair[1].left_s is None, -(pair[1].left_s or 0.0), pair[1].since))

    @property
    def trials(self) -> Counts:
        """Of the suite: what runs is added up, and what is done is taken from the run that knows most."""
        assert self.latest
        known, running = self.latest.now.trials, sum(job.trials for _, job in self.jobs)
        return dataclasses.replace(known, running=running, waiting=max(known.waiting + known.running - running, 0))

    @cached_property
    def started(self) -> list[Started]:
        """The students that have a checkpoint; none while a run goes on, which tells of what it trains."""
        left = {lane.trial: (job, lane) for run in self.runs for job, lane in run.now.students}
        if self.going_on or not left:
            return []
        from kdbench.results.layout import CHECKPOINT
        from kdbench.results.store import Store  # which imports numpy
        from kdbench.spec.record import PROTOCOL

        store = Store(self.root, protocol=PROTOCOL, read_only=True)
        in_jobs = store.checkpoints_of_jobs()
        return [
            Started(trial, lane.name, job.label, lane.epochs, job.epochs)
            for trial, (job, lane) in left.items()
            if trial and (store.has_checkpoint(trial) or f"{trial}/{CHECKPOINT}" in in_jobs)
        ]

    @property
    def left_s(self) -> float | None:
        """Seconds left: each run tells how long it would take for all that is left."""
        paces = [1 / run.now.left_s for run in self.going_on if run.now.left_s]
        return 1 / sum(paces) if paces else None


def status_as_json(status: Status) -> Value:
    """`suite`, `results`, `trials` in all (null where nothing is known), `left_s` and `runs`.

    Times are in UTC, as in `2026-11-27T14:02:05Z`; seconds end with `_s`, percent with `_pct`. Trials are the students of the
    suite, as `kdbench plan` counts them, without teachers; they are `waiting`, `running`, `done` and `failed`, all 0 while a run
    starts. A run has `state`, `last_word`, and what its file says: `process`, `user`, `since`, `engine`, `device`, its own
    `jobs`, `trials`, `epochs` of `of_epochs`, `left_s`, what is `running` with its `lanes`, `failures` with `log`, which lies
    below `results`, the last lines that it `said`, and how it `ended`. `tries_settings` says that trials choose settings first,
    and others come after. While no run goes on, `started` lists those of the `waiting` that were begun, with the epochs behind
    them.
    """
    return {
        "suite": status.suite,
        "results": str(status.root),
        "trials": dataclasses.asdict(status.trials) if status.latest else None,
        "started": [dataclasses.asdict(started) for started in status.started],
        "left_s": status.left_s,
        "runs": [{"state": run.state.value, "last_word": time_text(run.written), **run.now.as_json()} for run in status.runs],
    }


def status_as_line(status: Status) -> str:
    """How far it is, in a line."""
    known, latest = status.trials, status.latest
    assert latest
    if not _total(known):
        return f"{status.suite}: {'starting' if status.going_on else 'no trial was begun'}"
    parts = [f"{known.done} of {_total(known)} trials done"]
    others = {"failed": known.failed, "running": known.running, "waiting": known.waiting}
    parts += [f"{number} {what}" for what, number in others.items() if number]
    if status.started:
        parts.append(f"of them {len(status.started)} started")
    if status.going_on and latest.now.of_epochs:
        parts.append(f"{latest.now.epochs} of {counted(latest.now.of_epochs, 'epoch')}")
    return f"{status.suite}: {', '.join(parts)}"


def status_as_text(status: Status) -> str:
    """How far it is; each run; what runs, where, since when, how far; what failed, and where to read on."""
    if not (latest := status.latest):
        return (
            f"No run of {status.suite} is known in {status.root}. One that has just started is seen in a moment. "
            "`kdbench plan`, with the same suite and --results, says what is done."
        )
    left = f", {clock(status.left_s)} left" if status.left_s is not None else ""
    lines = [f"{status_as_line(status)}{left}"]
    if latest.now.tries_settings:
        lines.append("These trials choose the settings of methods. The trials of the table come after them.")
    lines += _started(status)
    lines += [line for run in status.runs[:MOST_RUNS] for line in _fitted(_run_text(run), indent=2)]
    lines += _more(len(status.runs), MOST_RUNS, "run")
    if jobs := status.jobs:
        hosts = {job.host for _, job in jobs}
        lines += ["", *_table([_cells(job, hosts) for _, job in jobs[:MOST_JOBS]]), *_more(len(jobs), MOST_JOBS, "job")]
    told = {failure.trial: failure for run in status.runs for failure in run.now.failures}  # each run tells of those of the others
    if failures := [*told.values()]:
        lines += ["", "failed:"]
        for failure in failures[-MOST_FAILURES:]:
            lines += _fitted(f"{failure.what}: {failure.reason}", indent=2)
            if failure.log:
                lines.append(f"    {status.root / failure.log}")
        lines += _more(len(failures), MOST_FAILURES, "trial")
    return "\n".join(lines)


def statuses_as_text(statuses: Sequence[Status], root: Path) -> str:
    """Of the suites that have runs in a results directory: of one all there is to say, of several a line each."""
    match statuses:
        case []:
            return f"No run is known in {root}. One that has just started is seen in a moment."
        case [one]:
            return status_as_text(one)
    lines = [*map(status_as_line, statuses)]
    return "\n".join([*lines, "`kdbench status SUITE`, with the same --results, says more of one of them."])


def _started(status: Status) -> list[str]:
    """A line for each job that trained students which are not finished."""
    names: dict[tuple[int, int, str], list[str]] = {}
    for each in status.started:
        names.setdefault((each.epochs, each.of_epochs, each.job), []).append(each.name)
    lines = [f"started, at epoch {epochs} of {of}: {listed(found)} ({job})" for (epochs, of, job), found in names.items()]
    return [*(line for text in lines[:MOST_JOBS] for line in _fitted(text, indent=2)), *_more(len(lines), MOST_JOBS, "job")]


def _total(counts: Counts) -> int:
    return sum(dataclasses.astuple(counts))


def _more(number: int, shown: int, noun: str) -> list[str]:
    return [f"  and {counted(number - shown, noun)} more; --json has all"] if number > shown else []


_ENDED = {
    "finished": "every trial has ended",
    "stopped": "stopped before the end; the same `kdbench run` continues it, and is seen here once it has loaded",
}


def _run_text(run: Found) -> str:
    now = run.now
    who = f"process {now.process['pid']} on {now.host}, user {now.user}"
    match run.state:
        case State.RUNNING:
            jobs = f"{now.jobs.running} running, {now.jobs.waiting} waiting"
            return f"running since {_when(now.since)}: {who}, engine {now.engine}; jobs: {jobs}"
        case State.KILLED:
            return f"killed: {who}, since {_when(now.since)}, ended without a word. The same `kdbench run` continues it."
        case State.SILENT:
            return (
                f"silent: {who}, has written nothing for {clock(run.silent_s)}. It was killed, or its machine cannot be reached. "
                "If it has ended, the same `kdbench run` continues it."
            )
        case State.ENDED:
            assert now.ended
            how = _ENDED.get(now.ended.how, f"ended by an error: {now.ended.reason}")
            return f"ended {_when(now.ended.when)}: {how} ({who}, since {_when(now.since)})"


def _cells(job: JobNow, hosts: set[str]) -> list[str]:
    where = f"{job.host} {job.place}" if len(hosts) > 1 and job.host not in job.place else job.place
    lanes = [lane for lane in job.lanes if lane.trial] or list(job.lanes)
    return [
        where,
        job.label,
        _when(job.since),
        f"{job.epoch}/{job.epochs}" if job.main else f"stage {job.epoch}",
        _range([lane.train_loss for lane in lanes], "{:.3g}"),
        _range(_errors(lanes), "{:.1f}"),
        clock(job.left_s) if job.left_s is not None else "?",
    ]


def _errors(lanes: Sequence[LaneNow]) -> list[float | None]:
    return [lane.validation_error_pct if lane.test_error_pct is None else lane.test_error_pct for lane in lanes]


def _range(values: Iterable[float | None], form: str) -> str:
    known = sorted(value for value in values if value is not None)
    return "-".join(dict.fromkeys(form.format(value) for value in (*known[:1], *known[-1:]))) or "?"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned, with names shortened so that it fits."""
    head = ["where", "trains", "since", "epoch", "loss", "error %", "left"]
    rows = [head, *rows]
    others = sum(max(len(row[i]) for row in rows) + 2 for i in range(len(head)) if i != 1)
    room = max(WIDTH - others - 2, 12)
    return aligned([[*row[:1], _short(row[1], room), *row[2:]] for row in rows])


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 3] + "..."


def _fitted(text: str, *, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))


def _when(time: datetime) -> str:
    """In the time of whoever reads it: `14:02`, or `Nov 26 14:02` of another day."""
    here = time.astimezone()
    return here.strftime("%H:%M" if here.date() == datetime.now().date() else "%b %d %H:%M")
