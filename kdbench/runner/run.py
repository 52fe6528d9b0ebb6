"""Runs a suite: teachers first, then cohorts in lockstep, every finished trial recorded at once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass

import torch

from kdbench.errors import KdbenchError
from kdbench.results.claims import Claims
from kdbench.results.store import Store
from kdbench.runner.driver import recover
from kdbench.runner.engines.choice import ENGINES, choose_engine
from kdbench.runner.engines.engine import Engine
from kdbench.runner.group_trainer import GroupTrainer
from kdbench.runner.image_counts import refuse_other_counts
from kdbench.runner.phase import Phase
from kdbench.runner.plan import Plan, Planned, Rerun, Status, make_plan
from kdbench.runner.preflight import preflight
from kdbench.runner.progress import Progress
from kdbench.runner.watchdog import Watchdog, end_process
from kdbench.runner.watched import Watched
from kdbench.suite.suite import Suite
from kdbench.training.builder import Builder
from kdbench.training.device import at_hand, choose_device
from kdbench.training.fatal_errors import fatal_errors_explained
from kdbench.wording import counted

SHORTEST_TIMEOUT_S = 2
"""A run that claims shows ten times in its timeout that it lives; file systems may count in whole seconds."""

SHORTEST_DEVICE_TIMEOUT_S = 1
"""A wait for the device may last so long on a machine that is busy."""


@dataclass(frozen=True)
class Options:
    """How a suite is run. Of these only the device changes the last bits of a result.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `cuda:INDEX`; with the engine `local` also several with commas between them, `all`, or
            `cpu:NUMBER` for so many workers on the CPU.
        lanes: how many students train at once, 0 for all of a cohort.
        stop_after_s: seconds after which the run stops at the end of the epoch; None for never.
        stop: asked at the end of each epoch whether to stop.
        rerun: which trials are taken up.
        engine: where jobs run, one of `ENGINES`; empty for this process, or for `local` where the device names several places or
            jobs are claimed.
        address: of the cluster, for the engine `ray`; empty for this machine alone.
        claim: whether other runs may work on the same results directory, each on jobs that it has claimed.
        claim_timeout_s: a run that claims and has shown no sign of life for so many seconds is taken to be over.
        device_timeout_s: seconds after which a device that has not answered is given up: the process that waits for it ends with
            status 1. On the CPU nobody waits.

    Raises:
        KdbenchError: fewer than 0 lanes, a time that is no number of seconds from 0 up, an engine that does not run there, or
            options that contradict each other.
    """

    device: str = "auto"
    lanes: int = 0
    stop_after_s: float | None = None
    stop: Callable[[], bool] = lambda: False
    rerun: Rerun = Rerun.MISSING
    engine: str = ""
    address: str = ""
    claim: bool = False
    claim_timeout_s: float = 600
    device_timeout_s: float = 600

    def __post_init__(self) -> None:
        if not isinstance(self.lanes, int) or self.lanes < 0:
            raise KdbenchError(f"lanes: {self.lanes!r} students cannot train at once. Give a number, or 0 for all of a cohort.")
        if self.stop_after_s is not None and not (isinstance(self.stop_after_s, int | float) and self.stop_after_s >= 0):
            raise KdbenchError(f"stop_after_s: {self.stop_after_s!r} is no number of seconds. Give one, such as 540.")
        if self.engine not in ("", *ENGINES):
            raise KdbenchError(
                f"unknown engine '{self.engine}'. Choose {', '.join(ENGINES[:-1])} or {ENGINES[-1]}. For Slurm give --claim."
            )
        if self.claim and self.engine == "here":
            raise KdbenchError("claimed jobs run in processes of their own. Leave --engine here out, or --claim.")
        if self.claim and self.rerun is Rerun.ALL:
            raise KdbenchError(
                "--rerun all with --claim would train again what other runs have just trained. Remove the trials with "
                "`kdbench trials remove`, and run with --claim alone."
            )
        if not (isinstance(self.claim_timeout_s, int | float) and self.claim_timeout_s >= SHORTEST_TIMEOUT_S):
            raise KdbenchError(
                f"claim_timeout_s: {self.claim_timeout_s!r} is too short a time for a run to be taken for dead. Give "
                f"{SHORTEST_TIMEOUT_S} s or more, such as 10m."
            )
        if not (isinstance(self.device_timeout_s, int | float) and self.device_timeout_s >= SHORTEST_DEVICE_TIMEOUT_S):
            raise KdbenchError(
                f"device_timeout_s: {self.device_timeout_s!r} is too short a time for a device to answer. Give "
                f"{SHORTEST_DEVICE_TIMEOUT_S} s or more, such as 10m."
            )


def execute(suite: Suite, store: Store, *, options: Options, progress: Progress) -> bool:
    """Run what the suite still needs.

    Returns:
        Whether it came to the end; False when it was stopped before.

    Raises:
        KdbenchError: the suite cannot run as it stands; nothing was started.
    """
    plan = make_plan(suite, store.looking())  # what is damaged is set aside once it is known that the run goes on
    if results := [record for part in (plan.tuning, plan) if part for record in part.tuned_elsewhere]:
        with _holding(store, options) as claims:
            for record in results:
                if not claims or claims.take(record.trial):
                    store.mark_as_result(record.trial)
    if not (phases := plan.phases(options.rerun)):
        seen = _look_at_images(suite, store)
        progress.say(f"nothing to train: every trial of the suite has ended. Its images were {seen}.")
        if any(store.jobs.glob("*/trials")):  # of a run that was killed in its last moment
            with suppress(KdbenchError), store.writing():  # they may be those of a run that is at work
                recover(store)
        return True
    wanted = options.engine or ("local" if options.claim else "")
    engine = choose_engine(wanted, options.device, address=options.address, cache=store.cache, say=progress.say)
    with closing(engine) if engine else nullcontext():
        return _train(suite, store, phases, engine, options, progress)


def _look_at_images(suite: Suite, store: Store) -> str:
    """See that the images, if they are still there, are those of the results, as far as counting tells; says what was done."""
    kind, params = suite.source
    try:
        contents = kind(params, cache=store.cache).contents()
    except KdbenchError:
        contents = None
    if not contents:
        return "not looked at"
    refuse_other_counts(store, suite.trials[0].dataset, contents, params)
    return "counted, not read"


def _train(
    suite: Suite,
    store: Store,
    phases: Iterable[tuple[Plan, list[Planned]]],
    engine: Engine | None,
    options: Options,
    progress: Progress,
) -> bool:
    device = torch.device(engine.device) if engine else choose_device(options.device)
    checked = [preflight(plan, todo, cache=store.cache, device=device, download=True, say=progress.say) for plan, todo in phases]
    for note in dict.fromkeys(note for _, notes in checked for note in notes):
        progress.say(f"note: {note}.")
    deadline = math.inf if options.stop_after_s is None else time.monotonic() + options.stop_after_s

    def stop() -> bool:
        return options.stop() or time.monotonic() >= deadline

    watched = Watched(progress, suite, store, engine=options.engine or ("local" if engine else "here"), device=options.device)

    def give_up(text: str) -> None:
        watched.give_up(text)
        end_process(text)

    watchdog = Watchdog(at_hand(device), timeout_s=options.device_timeout_s, give_up=give_up)
    with _holding(store, options) as claims, watched as progress, watchdog, fatal_errors_explained():
        if not claims:
            recover(store)
        groups = GroupTrainer(at_hand(device), options.lanes or sys.maxsize, progress.say)
        dataset = next((found for found, _ in checked if found), None)
        for part in (suite.tuning.suite, suite) if suite.tuning else (suite,):
            plan = make_plan(part, store.looking())  # again, now that nobody else can change what is done, and settings are chosen
            todo, taken = plan.todo(options.rerun), set[str]()
            while todo:  # else another process has done it meanwhile
                kind, params = part.source
                dataset = dataset or kind(params, cache=store.cache).load()
                phase = Phase(plan, store, Builder(dataset, params, at_hand(device)), progress, claims)
                before, after = phase.begin(todo, options.rerun, places=engine.at_once if engine else 1)
                if engine:
                    finished = phase.train_elsewhere(
                        before, after, engine, lanes=options.lanes, device_timeout_s=options.device_timeout_s, stop=stop
                    )
                else:
                    finished = phase.train_here(before, after, groups, stop=stop, waiting=watchdog.waiting)
                if not finished:
                    watched.stopped()
                    return False
                taken |= {planned.spec.id for planned in todo}
                plan = make_plan(part, store.looking())  # a teacher in the place of a lost one may have other weights than that had
                todo = [found for found in plan.students if found.status is Status.STALE and found.spec.id not in taken]
                if todo:
                    progress.say(f"{counted(len(todo), 'finished student')} of a teacher that has other weights now: trained anew.")
        return True


def _holding(store: Store, options: Options) -> AbstractContextManager[Claims | None]:
    """The directory for this run alone, or its claims on what it trains there."""
    return store.sharing(timeout_s=options.claim_timeout_s) if options.claim else store.writing()
