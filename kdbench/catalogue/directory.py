"""What a results directory holds, whatever suite it is of: its trials, what takes space, and what would be removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from kdbench.catalogue.text import Value, aligned, size_text
from kdbench.catalogue.trials import error, network
from kdbench.errors import KdbenchError, listed
from kdbench.results.cleaning import Cleaning
from kdbench.results.layout import CHECKPOINT, SHORT
from kdbench.results.trial_folder import STAGE_CHECKPOINT, TrialFolder, stale, trial_folders
from kdbench.spec.trial import teachers_in
from kdbench.wording import counted


def directory_as_json(root: Path, *, only: Collection[str] | None = None) -> list[Value]:
    """Each trial of a results directory, teachers first, or `only` those with these ids.

    A trial has `trial`, `role` (teacher, student, or both; tuning, where it chose among settings and is no result), `status` (done,
    failed, stale, started, missing, damaged), `dataset`,
    `teacher` (null where it reads none), `student`, `method`, `seed`, `test_error_pct`, `suite`, `finished`, `size_bytes`,
    `leftover_bytes` and `folder`. What is not known is null.

    Raises:
        KdbenchError: there are no trials.
    """
    folders = trial_folders(root)
    if not folders:
        raise KdbenchError(f"there are no trials under '{root}'. Give the directory that `kdbench run --results` wrote to.")
    teachers, old = {teacher for folder in folders.values() for teacher in folder.teachers}, stale(folders)
    entries = [_entry(folder, teaches=trial in teachers, stale=trial in old) for trial, folder in folders.items()]
    chosen = [entry for entry in entries if only is None or entry["trial"] in only]
    return sorted(chosen, key=_rank)


def _rank(entry: Value) -> tuple[bool, list[str], int]:
    words = [str(entry[key] or "") for key in ("dataset", "teacher", "student", "method")]
    return "teacher" not in entry["role"], words, entry["seed"] or 0


def _entry(folder: TrialFolder, *, teaches: bool, stale: bool) -> Value:
    spec, record = folder.spec or {}, folder.record
    own = teachers_in(spec)
    learns = bool(own) or not teaches
    tuning = bool(record and record.tuning)
    methods = "+".join(part["name"] for part in spec.get("methods", ()))
    dataset = spec.get("dataset", {})
    return {
        "trial": folder.trial,
        "role": "tuning" if tuning else " and ".join(["teacher"] * teaches + ["student"] * learns),
        "status": "stale" if stale else folder.state.value,
        "dataset": record.dataset if record else dataset.get("params", {}).get("label") or dataset.get("name"),
        "teacher": record.teacher if record else " and ".join(teacher["student"] for teacher in own) or None,
        "student": record.student if record else spec.get("student"),
        "method": (record.setting or record.method) if record else methods or None,
        "seed": spec.get("seed"),
        "test_error_pct": record.test_error_pct if record and not tuning else None,
        "suite": record.suite if record else None,
        "finished": record.finished if record else None,
        "size_bytes": sum(folder.sizes.values()),
        "leftover_bytes": sum(folder.sizes[name] for name in folder.leftovers),
        "folder": str(folder.path),
    }


def directory_as_text(root: Path, *, only: Collection[str] | None = None) -> str:
    """A line for each trial, then what takes space."""
    rows = [["trial", "role", "status", "data", "network", "method", "seed", "test error", "suite", "size", "finished"]]
    entries = directory_as_json(root, only=only)
    for trial in entries:
        texts = [trial["trial"][:SHORT], trial["role"], trial["status"], trial["dataset"] or ""]
        texts += [network(trial["teacher"], trial["student"] or ""), trial["method"] or "", _seed(trial), error(trial)]
        rows.append(
            [*texts, trial["suite"] or "", size_text(trial["size_bytes"]), (trial["finished"] or "")[:16].replace("T", " ")]
        )
    lines = aligned(rows)
    left = sum(trial["leftover_bytes"] for trial in entries)
    lines.append(
        f"{counted(len(entries), 'trial')}, {size_text(sum(trial['size_bytes'] for trial in entries))}: {_space(root, only)}."
    )
    if left:
        lines.append(f"left over: {size_text(left)}, which no run needs. `kdbench trials prune` removes it.")
    return "\n".join([*lines, f"Their folders lie in {root / 'trials'}. `kdbench trials show TRIAL` prints one."])


def _seed(entry: Value) -> str:
    return "" if entry["seed"] is None else str(entry["seed"])


def _space(root: Path, only: Collection[str] | None) -> str:
    kinds: Counter[str] = Counter()
    for folder in trial_folders(root).values():
        for name, size in folder.sizes.items() if only is None or folder.trial in only else ():
            kinds[_kind(name)] += size
    return ", ".join(f"{kind} {size_text(size)}" for kind, size in kinds.most_common())


def _kind(name: str) -> str:
    if name == CHECKPOINT or name.endswith(STAGE_CHECKPOINT):
        return "checkpoints"
    return "weights" if name.endswith(".safetensors") else "stages" if name.startswith("stages/") else "records and curves"


def cleaning_as_text(cleaning: Cleaning, root: Path) -> str:
    """What would be removed, and what depends on it."""
    entries = {entry["trial"]: entry for entry in directory_as_json(root)}
    lines = aligned([_told(entries[folder.trial]) for folder in cleaning.folders]) if cleaning.folders else []
    lines += [f"  {file.relative_to(root)}, {size_text(file.stat().st_size)}" for file in cleaning.files]
    size = f", {size_text(cleaning.size)}" if lines else ""
    lines.append(f"to be removed: {_counts(cleaning.folders, cleaning.files)}{size}.")
    if cleaning.orphans:
        whose = "it" if len(cleaning.folders) == 1 else "them"
        trials = listed([folder.trial[:SHORT] for folder in cleaning.orphans])
        lines.append(
            f"{counted(len(cleaning.orphans), 'finished student')} of {whose} ({trials}) stay done. A run that needs the teacher "
            "again trains it anew. On the same kind of machine it gets the same weights; elsewhere such a run is refused."
        )
    return "\n".join(lines)


def _told(entry: Value) -> list[str]:
    pair = network(entry["teacher"], entry["student"] or "")
    return [entry["trial"][:SHORT], entry["role"], entry["status"], pair, entry["method"] or "", f"seed {_seed(entry)}"]


def _counts(folders: Sequence[TrialFolder], files: Sequence[Path]) -> str:
    texts = [counted(len(folders), "trial")] * bool(folders) + [counted(len(files), "file")] * bool(files)
    return " and ".join(texts) or "nothing"
