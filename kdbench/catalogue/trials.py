"""The trials of a suite one by one, and what is kept of one: as values for `--json`, as text for people."""

from __future__ import annotations

from pathlib import Path

from kdbench.catalogue.text import Value, aligned, as_yaml, size_text
from kdbench.method.specs import setting, teachers_label
from kdbench.paths import expanded
from kdbench.results.layout import SHORT
from kdbench.results.trial_folder import find_trial, trial_folders
from kdbench.runner.plan import Plan, Planned, Status


def trials_as_json(plan: Plan) -> list[Value]:
    """Those of the tuning, where there is one, then the others; of each, teachers before students.

    `trial` (null where the student is untuned), `status`, `teacher`, `student`, `method`, `seed`, `test_error_pct`, `folder`, and
    `tuning`: whether it chooses among settings, so that its test error is no result and not told.
    """
    tuning = trials_as_json(plan.tuning) if plan.tuning else []
    return [*tuning, *(_trial(planned, tuning=plan.suite.tries_settings) for planned in (*plan.teachers, *plan.students))]


def planned_networks(planned: Planned) -> Value:
    """A planned trial's `trial`, `status`, `teacher` (null where it reads none) and `student`."""
    return {
        "trial": None if planned.status is Status.UNTUNED else planned.spec.id,
        "status": planned.status.value,
        "teacher": teachers_label(planned.spec),
        "student": planned.spec.label,
    }


def _trial(planned: Planned, *, tuning: bool) -> Value:
    return {
        **planned_networks(planned),
        "method": setting(planned.spec),
        "seed": planned.spec.seed,
        "test_error_pct": planned.record.test_error_pct if planned.record and not tuning else None,
        "folder": None if planned.status is Status.UNTUNED else str(planned.folder),
        "tuning": tuning,
    }


def trials_as_text(plan: Plan) -> str:
    """One line for each trial, and where their folders lie."""
    rows = [["trial", "status", "network", "method", "seed", "test error"]]
    for trial in trials_as_json(plan):
        pair = network(trial["teacher"], trial["student"])
        short, status = (trial["trial"] or "")[:SHORT], f"{trial['status']}{' (tuning)' * trial['tuning']}"
        rows.append([short, status, pair, trial["method"], str(trial["seed"]), error(trial)])
    lines = aligned(rows)
    return "\n".join([*lines, f"Their folders lie in {plan.students[0].folder.parent}. `kdbench show trial TRIAL` prints one."])


def network(teacher: str | None, student: str) -> str:
    """`resnet56 -> resnet20`, or the student alone."""
    return f"{teacher} -> {student}" if teacher else student


def error(trial: Value) -> str:
    """A trial's `test_error_pct` for people; empty where it has none."""
    return "" if trial["test_error_pct"] is None else f"{trial['test_error_pct']:.2f} %"


def describe_trial(name: str, results: Path) -> Value:
    """What is kept of a trial: its `folder`, its `files` with their bytes, the ids of the trials that it `teaches`, its `spec`, and
    its `record`, null where it has not ended.

    Args:
        name: the trial's id, or as much of its beginning as no other trial shares.
        results: the results directory.

    Raises:
        KdbenchError: no trial's id begins so, or several do.
    """
    folder = find_trial(expanded(results), name)
    teaches = [other.trial for other in trial_folders(expanded(results)).values() if folder.trial in other.teachers]
    return {
        "folder": str(folder.path),
        "files": folder.sizes,
        "teaches": teaches,
        "spec": folder.spec,
        "record": folder.record.model_dump(mode="json") if folder.record else None,
    }


def trial_as_text(described: Value) -> str:
    """Its record, or that it has none, then what was asked."""
    record = described["record"] or {"status": "not finished"}
    known = {key: value for key, value in record.items() if key != "spec" and value is not None}
    files = {name: size_text(size) for name, size in described["files"].items()}
    teaches = {"teaches": [trial[:SHORT] for trial in described["teaches"]]} if described["teaches"] else {}
    return as_yaml({"folder": described["folder"], "files": files, **teaches, **known, "spec": described["spec"]})
