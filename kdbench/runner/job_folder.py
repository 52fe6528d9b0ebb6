"""A job's own results folder: what is laid into it from the results directory, and what is brought home from it.

Nothing is lost at whatever moment a process is killed: files are brought home one by one, each whole, a record last.
"""

from __future__ import annotations

import filecmp
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from kdbench.files import write_bytes, written
from kdbench.models.weights import METHOD, WEIGHTS
from kdbench.results.layout import CHECKPOINT, CURVES, ENVIRONMENT, FAILURE, FIRST_FINISHED, PLANNED, RECORD, REPLACED, SPEC
from kdbench.results.store import Store
from kdbench.runner.job import Job
from kdbench.spec.record import Record

LOG = "log.txt"
"""What the job's worker said and warned of, and how it ended where that was not well."""

OWN = "trials.txt"
"""The trials that the job trains, one a line. Others lie there to be read."""

_BEGUN = (PLANNED, FIRST_FINISHED, REPLACED, SPEC, ENVIRONMENT, CURVES, CHECKPOINT)
"""What there may be of a trial that has no record."""

_STAYS = {PLANNED, FIRST_FINISHED, REPLACED}
"""What the results directory has itself."""


LOG_CHARACTERS = 20_000
"""So much of a log is kept with a trial that no worker could train."""


def new_folder(store: Store, job: Job, *, owner: str) -> Path:
    """A folder for a job that nobody has: `jobs/JOB-OWNER-TOKEN`."""
    return store.jobs / f"{job.id}-{owner}-{secrets.token_hex(4)}"


def lay_out(store: Store, job: Job, folder: Path) -> None:
    """Make the folder, with what there is of the job's trials and with their teachers."""
    there = Store(folder, protocol=store.protocol)
    own = [planned.spec.id for planned in job.trials if job.stages is None]
    write_bytes(folder / OWN, "\n".join(own).encode())  # before the log: a folder with a log and without this is at home
    write_bytes(folder / LOG, b"", durable=False)
    (folder / "trials").mkdir(parents=True)
    for planned in job.trials:
        trial = planned.spec.id
        _link(store.folder(trial), there.folder(trial), _BEGUN)
    for teacher in job.teachers:
        _link(store.folder(teacher.id), there.folder(teacher.id), (RECORD, SPEC, WEIGHTS, METHOD))
    for stage in {stage.id: stage for stage in job.learnt}.values():
        trial = stage.teacher.id
        if (record := store.record(trial)) and record.weights_sha256:
            key = stage.key(teacher_sha256=record.weights_sha256)
            for file in (store.stage_file(trial, key), store.stage_checkpoint(trial, key)):
                _link(file.parent, there.folder(trial) / file.parent.name, (file.name,))


def bring_home(store: Store, folder: Path, *, at_once: int = 1, holds: Callable[[str], bool] = lambda trial: True) -> list[Record]:
    """Move all that a job has made into the results directory; what is there already stays.

    Args:
        store: the results directory.
        folder: the job's.
        at_once: how many jobs ran on its machine at once.
        holds: asked of a trial, right before: whether it is still this run's to bring home. What others train now is thrown away.

    Returns:
        The records of trials that were not known to have ended.
    """
    own, found = _own(folder), []
    for trial in _trials(folder):
        _bring_stages_home(store, folder, trial)
        if trial in own and holds(trial) and (record := bring_trial_home(store, folder, trial, at_once=at_once)):
            found.append(record)
    shutil.rmtree(folder / "trials", ignore_errors=True)
    (folder / OWN).unlink(missing_ok=True)
    return found


def bring_trial_home(store: Store, folder: Path, trial: str, *, at_once: int = 1) -> Record | None:
    """Move what a job has made of one of its trials; its record, where there was none before."""
    source, home = folder / "trials" / trial, store.folder(trial)
    if store.record(trial):
        shutil.rmtree(source, ignore_errors=True)
        return None
    try:
        there = Store(folder, protocol=store.protocol)
        record = there.note_jobs_on_machine(trial, at_once) if at_once > 1 else there.record(trial)
        files = [file for file in _files(source) if file.name not in _STAYS]
        for file in sorted(files, key=lambda file: file.name == RECORD):
            _move(file, home / file.name)
    except FileNotFoundError:  # the run that has taken the trial over has moved the folder, and brings home the rest
        return None
    if not (home / RECORD).exists():  # it has none, or another run brings it home
        record = None
    if record:
        (home / CHECKPOINT).unlink(missing_ok=True)
        if record.status == "done":
            for name in (REPLACED, FAILURE):
                (home / name).unlink(missing_ok=True)
    shutil.rmtree(source, ignore_errors=True)
    return record


def bring_left_home(store: Store, mine: Collection[str], *, owners: Collection[str]) -> None:
    """Bring home what jobs of other runs have left that are over, and take away the folders of which nothing is missing any more.

    Of trials only those that are `mine`, which must be this run's alone by now. Each is first moved out of its job's folder at
    once: a run that comes back late finds nothing there, at whatever moment. Stages are copied: a late run may need them.

    Args:
        store: the results directory.
        mine: ids of trials, and of others.
        owners: of folders whose runs are not over.
    """
    for folder in [store.jobs / name for name in _names(store.jobs) if _owner(name) not in owners]:
        own = _own(folder)
        for trial in own.intersection(mine):
            left = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")
            (left / "trials").mkdir(parents=True)
            write_bytes(left / OWN, trial.encode())
            with suppress(FileNotFoundError):
                os.rename(folder / "trials" / trial, left / "trials" / trial)
            bring_home(store, left)
            shutil.rmtree(left)
        for teacher in _trials(folder):
            _bring_stages_home(store, folder, teacher, put=_copy)
        if (folder / LOG).exists() and all(trial in mine or store.record(trial) for trial in own):
            shutil.rmtree(folder, ignore_errors=True)  # another run may be about to do the same


def add_to_log(folder: Path, text: bytes) -> None:
    """Add to a job's log, unless another run has taken the job over, and its folder away."""
    with suppress(FileNotFoundError), (folder / LOG).open("ab") as log:
        log.write(text)


def read_log(folder: Path) -> str:
    """The end of a job's log, which tells how its worker died."""
    try:
        return (folder / LOG).read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
    except FileNotFoundError:
        return ""


def has_come_further(store: Store, folder: Path) -> bool:
    """Whether a job's folder has checkpoints, or stages, that the results directory has not."""
    files = (file for pattern in (CHECKPOINT, "stages/*.pt") for file in folder.glob(f"trials/*/{pattern}"))
    try:
        return any(not filecmp.cmp(file, store.root / file.relative_to(folder)) for file in files)
    except FileNotFoundError:  # not at home; or another run has moved it
        return True


def _move(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(file, target)


def _copy(file: Path, target: Path) -> None:
    """Copy a file to where there is none, or an older one. Another run may do the same, or take the file away."""
    with suppress(FileNotFoundError):
        if not target.exists() or target.stat().st_mtime_ns < file.stat().st_mtime_ns:
            with written(target, writer=secrets.token_hex(4)) as partial:
                shutil.copyfile(file, partial)


def _bring_stages_home(store: Store, folder: Path, teacher: str, *, put: Callable[[Path, Path], None] = _move) -> None:
    """Move, or put in another way, what a job has learnt from a teacher alone."""
    home = store.folder(teacher)
    for stage in _files(folder / "trials" / teacher / "stages"):
        learnt = home / "stages" / stage.name.replace(".checkpoint", "")
        if not learnt.exists():
            put(stage, home / "stages" / stage.name)
        if learnt.exists():
            learnt.with_suffix(".checkpoint.pt").unlink(missing_ok=True)


def _owner(name: str) -> str:
    """The run of a job's folder."""
    return name.partition("-")[2].partition("-")[0]


def _own(folder: Path) -> set[str]:
    try:
        return {*(folder / OWN).read_text().split()}
    except (FileNotFoundError, NotADirectoryError):  # it was being laid out, or somebody else has brought it home
        return set()


def _trials(folder: Path) -> list[str]:
    return sorted(_names(folder / "trials"))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # another run has taken it away
        return []


def _files(folder: Path) -> list[Path]:
    """The whole files in a folder."""
    return sorted(file for name in _names(folder) if not name.startswith(".") and (file := folder / name).is_file())


def _link(source: Path, target: Path, names: Iterable[str]) -> None:
    """Give a folder files of another; nobody writes into one, everybody replaces it."""
    for name in names:
        if (source / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / name, target / name)
            except FileNotFoundError:  # another run has taken it away since
                continue
            except OSError:  # a file system without hard links
                shutil.copyfile(source / name, target / name)
