"""Several results directories made one: what would become of each trial, and doing it so that nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from kdbench.errors import KdbenchError
from kdbench.paths import expanded
from kdbench.results.layout import FILES, RECORD, REPLACED
from kdbench.results.lock import refuse_being_written
from kdbench.results.mixtures import Mixture, mixtures
from kdbench.results.replace_folder import put_files, put_folder
from kdbench.results.store import Store
from kdbench.results.trial_folder import State, TrialFolder, trial_folders
from kdbench.spec.record import PROTOCOL, Record
from kdbench.spec.trial import digest, teachers_in

Keep = Literal["into", "from"]
"""Whose trial stays where the two differ."""


class Action(StrEnum):
    """What becomes of a trial of FROM."""

    COPY = "copy"
    """INTO has no such trial, or has only planned it: the whole folder is copied."""
    REPLACE = "replace"
    """It is done, and in INTO it failed or is not finished: the folder takes the place of that one."""
    TAKE = "take"
    """It differs from INTO's, and was chosen."""
    ADD = "add"
    """INTO has the same result and lacks some of its files, such as weights: these are copied."""
    SAME = "same"
    """INTO has the same result and all of its files."""
    LEAVE = "leave"
    """INTO's stays: it is done and this one is not, or neither is."""
    PASS = "pass over"
    """It differs from INTO's, which was chosen; or it cannot be used in INTO."""
    CLASH = "clash"
    """It differs from INTO's, and nobody has chosen yet."""


@dataclass(frozen=True)
class Step:
    """What becomes of one trial of FROM.

    Attributes:
        source: the directory that it comes from.
        theirs: its folder there.
        ours: the folder that INTO has of the trial by then, which may be an earlier FROM's; None where it has none.
        files: what is copied, by its path below the folder.
        differences: the keys of the record in which the two differ.
        reason: why it cannot stand in INTO beside what is there; empty where it can.
    """

    action: Action
    source: Path
    theirs: TrialFolder
    ours: TrialFolder | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Merge:
    """What a merge would do.

    Attributes:
        steps: one for each trial of each FROM, teachers before their students.
        stale: finished students of INTO whose teacher would get other weights than they learnt from.
        mixtures: what no table would show side by side.
        macs: networks that are new to INTO's `macs.json`, by data set.
        others: names in a FROM that are not merged.
    """

    into: Path
    steps: tuple[Step, ...]
    stale: tuple[Record, ...]
    mixtures: tuple[Mixture, ...]
    macs: Mapping[str, Mapping[str, int]]
    others: tuple[str, ...]

    def of(self, *actions: Action) -> list[Step]:
        """The steps of these kinds."""
        return [step for step in self.steps if step.action in actions]


def plan_merge(into: Path, sources: Sequence[Path], *, keep: Keep | None = None) -> Merge:
    """What `merge` would do; nothing is written.

    Args:
        into: the directory that gets the trials; it need not exist.
        sources: the directories that they come from, each of which finds what those before it left.
        keep: whose trial stays where two differ.

    Raises:
        KdbenchError: a FROM without trials, that is being written or is INTO itself; records of another protocol or other images.
    """
    into, sources = expanded(into), [expanded(source) for source in sources]
    for source in sources:
        if source.resolve() == into.resolve():
            raise KdbenchError(f"{source} cannot be merged into itself. Give another directory.")
        if not trial_folders(source):
            raise KdbenchError(f"there are no trials under '{source}'. Give a directory that `kdbench run --results` wrote to.")
        refuse_being_written(source)
    for root in (into, *sources):
        Store(root, protocol=PROTOCOL).refuse_foreign_protocols()
    held = _Held(trial_folders(into))
    merging = _Merging(held, keep)
    for source in sources:
        merging.bring(source, trial_folders(source))
    _refuse_other_images(into, sources)
    mixed = mixtures(held.folders.values(), [into, *sources])
    return Merge(into, tuple(merging.steps), held.stale(), mixed, _new_macs(into, sources), _others(sources))


def merge(plan: Merge) -> None:
    """Do it, trial by trial; each appears whole or not at all. Hold `Store.writing` of INTO since before it was planned.

    Raises:
        OSError: something cannot be read or written; what was merged before stays, and the same merge goes on from there.
    """
    # The last folder of a trial has all that stays of those before it, from where it lay when the merge was planned.
    last = {step.theirs.trial: step for step in plan.of(Action.COPY, Action.REPLACE, Action.TAKE)}
    for step in plan.steps:
        folder = plan.into / "trials" / step.theirs.trial
        if last.get(step.theirs.trial) is step:
            put_folder(folder, step.files)
        elif step.action is Action.ADD:
            put_files(folder, step.files)
    for label, networks in plan.macs.items():
        Store(plan.into, protocol=PROTOCOL).note_macs(label, networks)


class _Held:
    """The trials of INTO as they would be by now, and the weights that teachers have there."""

    def __init__(self, folders: Mapping[str, TrialFolder]) -> None:
        self.before, self.folders = folders, dict(folders)
        self.weights = _weights_of_teachers(folders.values())
        self._stale_before = {record.trial for record in self._lost()}

    def add(self, folder: TrialFolder) -> None:
        """Let a trial stand there, in the place of the one that did."""
        self.folders[folder.trial] = folder
        if folder.done and folder.record and folder.record.weights_sha256:
            self.weights[folder.trial] = folder.record.weights_sha256
            self.weights = _weights_of_teachers([folder]) | self.weights

    def replaced(self, ours: TrialFolder) -> dict[str, Path]:
        """The record that stays beside a new one: that which INTO had at first, whatever was taken since."""
        first = self.before.get(ours.trial, ours)
        return {REPLACED: (first if first.state in (State.DONE, State.DAMAGED) else ours).files[RECORD]}

    def stale(self) -> tuple[Record, ...]:
        """The finished students that lost their teacher meanwhile."""
        return tuple(record for record in self._lost() if record.trial not in self._stale_before)

    def _lost(self) -> list[Record]:
        return [folder.record for folder in self.folders.values() if folder.done and folder.record and self.differs(folder.record)]

    def differs(self, student: Record) -> bool:
        """Whether a teacher of it has other weights here than it learnt from."""
        return any(self.weights.get(teacher, had) != had for teacher, had in _teachers_of(student).items())


@dataclass
class _Merging:
    held: _Held
    keep: Keep | None
    steps: list[Step] = field(default_factory=list)

    def bring(self, source: Path, folders: Mapping[str, TrialFolder]) -> None:
        """Decide on each trial of a directory, teachers before their students."""
        for folder in sorted(folders.values(), key=lambda folder: _depth(folder.spec)):
            step = replace(self._step(source, folder), ours=self.held.folders.get(folder.trial))
            self.steps.append(step)
            if step.action in (Action.COPY, Action.REPLACE, Action.TAKE, Action.ADD):
                before = step.ours.files if step.ours and step.action is Action.ADD else {}
                self.held.add(TrialFolder(folder.path, {**step.files, **before}))

    def _step(self, source: Path, theirs: TrialFolder) -> Step:
        ours, record = self.held.folders.get(theirs.trial), theirs.record
        step = Step(Action.COPY, source, theirs, files={**(_carried(ours) if ours else {}), **theirs.files})
        if theirs.state is State.DAMAGED:
            return replace(step, action=Action.PASS, reason="its record is damaged")
        if ours and ours.state is State.MISSING and theirs.state is not State.MISSING and REPLACED not in ours.files:
            ours = None
        if not theirs.done or record is None:
            return step if ours is None else replace(step, action=Action.LEAVE)
        if self.held.differs(record):
            reason = "the teacher of each has other weights in INTO than it learnt from"
            return replace(step, action=Action.PASS if self.keep else Action.CLASH, reason=reason)
        if ours and ours.state is State.DAMAGED:
            reason = "its record in INTO cannot be read; a newer kdbench may have written it"
            return replace(step, action=self._chosen, files={**step.files, **self.held.replaced(ours)}, reason=reason)
        if not (ours and ours.done) and self.held.weights.get(theirs.trial, record.weights_sha256) != record.weights_sha256:
            return replace(step, action=self._chosen, reason="students of INTO learnt from this teacher with other weights")
        if ours is None:
            return step
        if not ours.done or ours.record is None:
            return replace(step, action=Action.REPLACE)
        if differences := _differences(ours.record, record):
            files = {**step.files, **self.held.replaced(ours)}
            return replace(step, action=self._chosen, files=files, differences=differences)
        unfinished = set(theirs.leftovers)
        lacking = {name: file for name, file in theirs.files.items() if name not in ours.files and name not in unfinished}
        return replace(step, action=Action.ADD if lacking else Action.SAME, files=lacking)

    @property
    def _chosen(self) -> Action:
        return {"into": Action.PASS, "from": Action.TAKE, None: Action.CLASH}[self.keep]


_OWN = {name.removeprefix("trials/TRIAL/") for name in FILES if name.startswith("trials/TRIAL/")} - {""}


def _carried(folder: TrialFolder) -> dict[str, Path]:
    """What another result of the trial does not replace: files that are not kdbench's."""
    return {name: file for name, file in folder.files.items() if not {name, f"{name.split('/')[0]}/"} & _OWN}


def _differences(ours: Record, theirs: Record) -> tuple[str, ...]:
    """The keys in which two records differ that would be equal, trained by the same code on the same kind of machine."""
    return tuple(
        name for name in Record.model_fields if name not in Record.MEASURED and getattr(ours, name) != getattr(theirs, name)
    )


def _weights_of_teachers(folders: Iterable[TrialFolder]) -> dict[str, str]:
    """By trial, the hash of its weights; of a teacher that is not there, of those that its finished students learnt from."""
    records = [folder.record for folder in folders if folder.done and folder.record]
    told = {teacher: had for record in records for teacher, had in _teachers_of(record).items()}
    return told | {record.trial: record.weights_sha256 for record in records if record.weights_sha256}


def _teachers_of(student: Record) -> dict[str, str]:
    """By trial, the hash of the weights of each teacher that it learnt from."""
    had = zip(map(digest, teachers_in(student.spec)), student.teachers_sha256, strict=False)
    return {teacher: sha256 for teacher, sha256 in had if sha256}


def _depth(spec: Mapping[str, Any] | None) -> int:
    """How many trials must be done before this one."""
    return max((1 + _depth(teacher) for teacher in teachers_in(spec)), default=0)


def _refuse_other_images(into: Path, sources: Sequence[Path]) -> None:
    """See that one label means the same images everywhere, as a results directory demands."""
    seen: dict[str, tuple[str, Path]] = {}
    for root in (into, *sources):
        for record in Store(root, protocol=PROTOCOL).records():
            fingerprint, first = seen.setdefault(record.dataset, (record.data_fingerprint, root))
            if fingerprint != record.data_fingerprint:
                raise KdbenchError(
                    f"'{record.dataset}' has other images in {root} than in {first} (fingerprints {record.data_fingerprint} and "
                    f"{fingerprint}), and the two are never mixed. Merge them into different directories."
                )


def _new_macs(into: Path, sources: Sequence[Path]) -> dict[str, dict[str, int]]:
    known, new = Store(into, protocol=PROTOCOL).macs(), dict[str, dict[str, int]]()
    for source in sources:
        for label, networks in Store(source, protocol=PROTOCOL).macs().items():
            lacking = {name: count for name, count in networks.items() if name not in known.get(label, {})}
            if lacking:
                new[label] = {**lacking, **new.get(label, {})}
    return new


def _others(sources: Sequence[Path]) -> tuple[str, ...]:
    left = {"trials", "macs.json", ".lock", ".writer"}
    return tuple(str(path) for source in sources for path in sorted(source.iterdir()) if path.name not in left)
