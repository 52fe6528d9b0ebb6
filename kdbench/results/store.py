"""The results directory: one folder per trial, every file written atomically, whatever cannot be used set aside by name."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.errors import KdbenchError
from kdbench.files import set_aside, write_bytes
from kdbench.paths import expanded, found
from kdbench.results.claims import Claims, claiming, refuse_claims
from kdbench.results.layout import (
    CHECKPOINT,
    CURVES,
    ENVIRONMENT,
    FAILURE,
    FIRST_FINISHED,
    PLANNED,
    RECORD,
    REPLACED,
    SPEC,
    record_files,
)
from kdbench.results.lock import held
from kdbench.results.outcomes import OUTCOMES, Outcomes
from kdbench.results.replace_folder import finish_interrupted
from kdbench.spec.record import Record, newer_keys, why_unreadable
from kdbench.spec.trial import why_foreign

log = logging.getLogger("kdbench")


class Store:
    """Reads and writes one results directory, in which there are `layout.FILES`."""

    def __init__(self, root: Path, *, protocol: int, read_only: bool = False) -> None:
        self.root = expanded(root)
        self.protocol = protocol
        self._read_only = read_only
        self._silent = False

    def looking(self) -> Store:
        """The same, read only and without a word on what cannot be used: for whoever must not change anything yet."""
        found = Store(self.root, protocol=self.protocol, read_only=True)
        found._silent = True
        return found

    def folder(self, trial: str) -> Path:
        """Where the trial's files lie."""
        return self.root / "trials" / trial

    @property
    def jobs(self) -> Path:
        """Folders of jobs that run elsewhere."""
        return self.root / "jobs"

    @property
    def cache(self) -> Path:
        """Decoded data sets."""
        return self.root / "cache"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the directory for one process; it is released when the process ends, however it ends.

        Raises:
            KdbenchError: the directory cannot be written, or other processes work on it.
        """
        with ExitStack() as holding:
            with self._writable():
                holding.enter_context(held(self.root))
                refuse_claims(self.root)
                finish_interrupted(self.root / "trials")
            yield

    @contextmanager
    def sharing(self, *, timeout_s: float) -> Iterator[Claims]:
        """Work on the directory together with other processes, each on what it has claimed.

        Args:
            timeout_s: a process that has shown no sign of life for so long is taken to be over.

        Raises:
            KdbenchError: the directory cannot be written, or a process holds it alone.
        """
        with ExitStack() as holding:
            with self._writable():
                claims = holding.enter_context(claiming(self.root, timeout_s=timeout_s))
            yield claims

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            (self.root / "trials").mkdir(parents=True, exist_ok=True)
            yield
        except OSError as problem:
            raise self._not_writable(problem) from None

    def why_no_folder(self) -> KdbenchError | None:
        """What whoever writes here is told, where a file stands in the place of the directory or of a folder above it."""
        trials = self.root / "trials"
        if next(path for path in (trials, *trials.parents) if found(path)).is_dir():
            return None
        return self._not_writable(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(trials)))

    def _not_writable(self, problem: OSError) -> KdbenchError:
        ask = ", or ask its owner for write access" if isinstance(problem, PermissionError) else ""
        return KdbenchError(
            f"the results directory {self.root} cannot be written ({problem.filename}: {problem.strerror}). Choose another with "
            f"--results{ask}."
        )

    def record(self, trial: str) -> Record | None:
        """The trial's record, None where there is none; a broken one is named, and set aside unless the store is read only.

        Raises:
            KdbenchError: the record is of another protocol, or of a newer kdbench.
        """
        file = self.folder(trial) / RECORD
        try:
            record = Record.model_validate_json(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValidationError as problem:
            self._refuse_foreign(file)
            if keys := newer_keys(problem):
                told = f"{file} is the record of a newer kdbench, with {', '.join(keys)}. "
                raise KdbenchError(told + "Update kdbench, or choose another directory with --results.") from None
            self._unusable(file, why_unreadable(problem))
            return None
        self._refuse_protocol(record.protocol, file)
        if reason := why_foreign(record, trial):
            self._unusable(file, reason)
            return None
        return record

    def _unusable(self, file: Path, reason: str) -> None:
        if self._silent:
            return
        if self._read_only:
            log.warning("%s cannot be used: %s.", file, reason)
        else:
            set_aside(file, reason)

    def _refuse_foreign(self, file: Path) -> None:
        try:
            protocol = json.loads(file.read_bytes())["protocol"]
        except (ValueError, TypeError, KeyError):
            return  # not a record at all: the caller sets it aside
        self._refuse_protocol(protocol, file)

    def _refuse_protocol(self, protocol: object, file: Path) -> None:
        if protocol != self.protocol:
            raise KdbenchError(
                f"{file} is of protocol {protocol}, this kdbench writes protocol {self.protocol}, and the two are never mixed. "
                "Choose another directory with --results."
            )

    def refuse_foreign_protocols(self) -> None:
        """Look at every record of the directory, whatever suite it belongs to.

        Raises:
            KdbenchError: one is of another protocol.
        """
        for file in record_files(self.root):
            with suppress(FileNotFoundError):  # another process has begun to train the trial again
                self._refuse_foreign(file)

    def refuse_other_data(self, label: str, *, fingerprint: str) -> None:
        """Look at every record of the data set `label`, whatever suite it belongs to.

        Raises:
            KdbenchError: one is from other images.
        """
        for record in self.records():
            if record.dataset == label and record.data_fingerprint != fingerprint:
                raise self.from_other_images(record, f"fingerprint {record.data_fingerprint}, now {fingerprint}")

    def from_other_images(self, record: Record, difference: str) -> KdbenchError:
        """What to raise where the images under a record's label are others now; `difference` says by what that is seen."""
        return KdbenchError(
            f"{self.folder(record.trial) / RECORD} is the record of a trial on '{record.dataset}' from other images, or the same "
            f"in another size or read in another way ({difference}), and the two are never mixed. Give the data set another "
            "`label`, put back what was changed, or choose another directory with --results."
        )

    def records(self, *, but: Container[str] = ()) -> Iterator[Record]:
        """Every whole record of the directory, whatever suite it belongs to; those of the trials in `but` are not read."""
        for file in record_files(self.root):
            if file.parent.name in but:
                continue
            try:
                yield Record.model_validate_json(file.read_bytes())
            except (FileNotFoundError, ValidationError):
                continue  # it is trained again since just now; or set aside when its trial is looked up

    def has_checkpoint(self, trial: str) -> bool:
        """Whether the trial was begun and not finished."""
        return found(self.folder(trial) / CHECKPOINT)

    def checkpoints_of_jobs(self) -> set[str]:
        """The checkpoints that jobs have which run elsewhere, by their paths below `trials/`."""
        found: set[str] = set()
        for folder in [job / "trials" for job in (self.jobs.iterdir() if self.jobs.is_dir() else ())]:
            for pattern in (f"*/{CHECKPOINT}", "*/stages/*.checkpoint.pt"):
                with suppress(FileNotFoundError):  # the job has ended meanwhile
                    found.update(file.relative_to(folder).as_posix() for file in folder.glob(pattern))
        return found

    def stage_file(self, teacher: str, key: str) -> Path:
        """Where it is kept what a stage learnt from the teacher alone; beside it, until then, its checkpoint."""
        return self.folder(teacher) / "stages" / f"{key}.pt"

    def stage_checkpoint(self, teacher: str, key: str) -> Path:
        """What stands beside a stage's file until that is there."""
        return self.stage_file(teacher, key).with_suffix(".checkpoint.pt")

    def write_spec(self, trial: str, spec: Mapping[str, Any]) -> None:
        """Write `spec.json`: the trial, readable by people."""
        write_bytes(self.folder(trial) / SPEC, json.dumps(spec, indent=1).encode())

    def begin(self, trial: str, spec: Mapping[str, Any], *, environment: Mapping[str, Any]) -> None:
        """Write what is trained and where, and forget the curves of an earlier start."""
        (self.folder(trial) / CURVES).unlink(missing_ok=True)
        self.write_spec(trial, spec)
        write_bytes(self.folder(trial) / ENVIRONMENT, json.dumps(environment, indent=1).encode())

    def write_curves(self, trial: str, curves: Sequence[Mapping[str, Any]]) -> None:
        """Write the epochs so far, a line for each."""
        write_bytes(self.folder(trial) / CURVES, "".join(json.dumps(row) + "\n" for row in curves).encode())

    def macs(self) -> dict[str, dict[str, int]]:
        """Multiply-accumulate operations for one image of every network that was run here, by data set and network."""
        try:
            known: dict[str, dict[str, int]] = json.loads((self.root / "macs.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        return known

    def note_macs(self, dataset: str, macs: Mapping[str, int]) -> None:
        """Add networks to what `macs` gives."""
        known = self.macs()
        known[dataset] = {**known.get(dataset, {}), **macs}
        write_bytes(self.root / "macs.json", json.dumps(known, indent=1).encode())

    def note_planned(self, trial: str, when: str) -> None:
        """Write down when a trial was first planned; one that has a folder was planned before."""
        if not found(folder := self.folder(trial)):
            write_bytes(folder / PLANNED, when.encode(), durable=False)  # a run plans thousands at once

    def make_ready(self, trial: str, when: str, *, anew: bool = False) -> None:
        """Let a trial be trained that is planned now: `anew`, or where it has a record, from its start."""
        self.note_planned(trial, when)
        if anew or self.record(trial):
            if (first := self.planned(trial)) != when:
                write_bytes(self.folder(trial) / PLANNED, f"{first or ''}\n{when}".encode())
            self.discard(trial)

    def planned(self, trial: str) -> str | None:
        """When the trial was first planned; None where an earlier version began it."""
        return self._noted(trial, PLANNED, line=0)

    def planned_again(self, trial: str) -> str | None:
        """When it was last planned to train the trial again, from its start; None where it was not, or by an earlier version."""
        return self._noted(trial, PLANNED, line=1)

    def first_finished(self, trial: str) -> str | None:
        """When the trial was first done; None where it has not been trained again since."""
        return self._noted(trial, FIRST_FINISHED, line=0)

    def _noted(self, trial: str, name: str, *, line: int) -> str | None:
        try:
            return (self.folder(trial) / name).read_text(encoding="utf-8").splitlines()[line] or None
        except (FileNotFoundError, IndexError):  # or empty, since the power failed just then
            return None

    def write_record(
        self, record: Record, curves: Sequence[Mapping[str, Any]], outcomes: Outcomes | None, *, log: str = ""
    ) -> None:
        """Finish a trial: its curves and outcomes, or the log of its failure, then its record; the checkpoint goes."""
        folder = self.folder(record.trial)
        self.write_curves(record.trial, curves)
        if outcomes:
            write_bytes(folder / OUTCOMES, outcomes.packed())
        if log:
            write_bytes(folder / FAILURE, log.encode(errors="replace"))
        write_bytes(folder / RECORD, record.model_dump_json(indent=1).encode())
        (folder / CHECKPOINT).unlink(missing_ok=True)
        if record.status == "done":
            for name in (REPLACED, FAILURE):
                (folder / name).unlink(missing_ok=True)

    def mark_as_result(self, trial: str) -> None:
        """Let a record of a tuning trial say that its test error is a result, because a suite reports it."""
        self._correct(trial, tuning=False)

    def note_jobs_on_machine(self, trial: str, count: int) -> Record | None:
        """Let a record, where there is one, say how many jobs trained on the machine at once; the record."""
        return self._correct(trial, jobs_on_machine=count)

    def _correct(self, trial: str, **changes: object) -> Record | None:
        if record := self.record(trial):
            record = record.model_copy(update=changes)
            write_bytes(self.folder(trial) / RECORD, record.model_dump_json(indent=1).encode())
        return record

    def replaces_result(self, trial: str) -> bool:
        """Whether the trial, which is trained again, was a result before."""
        try:
            return not Record.model_validate_json((self.folder(trial) / REPLACED).read_bytes()).tuning
        except (FileNotFoundError, ValidationError):
            return False

    def discard(self, trial: str) -> None:
        """Let a trial start anew: its checkpoint, curves and outcomes go, its record is out of use and goes when it is done.

        A failure does not take the place of an earlier result. When it was first done stays written down, since its result was
        known from then on.
        """
        folder, record = self.folder(trial), self.record(trial)
        if record and record.status == "done" and not self.first_finished(trial):
            write_bytes(folder / FIRST_FINISHED, record.finished.encode())
        if found(folder / REPLACED) and record and record.status == "failed":
            (folder / RECORD).unlink()
        elif (folder / RECORD).exists():
            os.replace(folder / RECORD, folder / REPLACED)
        for name in (CHECKPOINT, CURVES, OUTCOMES, FAILURE):
            (folder / name).unlink(missing_ok=True)
