"""Results directories without a training: trials' folders whose records say what a test wants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdbench.spec.record import PROTOCOL, Environment, Record
from kdbench.spec.trial import digest

Spec = dict[str, Any]
PARAMS = {"train_images": 0, "validation": 0.0, "label": ""}


def trial_spec(
    *, student: str = "resnet8", method: str = "kd", seed: int = 0, teacher: Spec | None = None, label: str = ""
) -> Spec:
    """A spec as a record has it."""
    return {
        "dataset": {"name": "digits", "params": {**PARAMS, "label": label}},
        "recipe": {"epochs": 1},
        "student": student,
        "methods": [{"name": method, "params": {}}],
        "seed": seed,
        "teacher": teacher,
        "protocol": PROTOCOL,
    }


TEACHER = trial_spec(student="resnet20", method="scratch")
STUDENTS = [trial_spec(teacher=TEACHER, seed=seed) for seed in range(3)]


def record_of(spec: Spec, *, device: str = "one", **changes: Any) -> Record:
    """The record of a trial; a student's says that its teacher has the weights `t`."""
    teacher = spec["teacher"]
    known: dict[str, Any] = {
        "protocol": PROTOCOL,
        "trial": digest(spec),
        "suite": "synthetic",
        "status": "done",
        "spec": spec,
        "dataset": spec["dataset"]["params"]["label"] or "digits",
        "recipe": "1 epoch",
        "precision": "fp32",
        "epochs": 1,
        "teacher": teacher["student"] if teacher else None,
        "student": spec["student"],
        "method": spec["methods"][0]["name"],
        "seed": spec["seed"],
        "test_error_pct": 5.0,
        "weights_sha256": "s" if teacher else "t",
        "teacher_weights_sha256": "t" if teacher else None,
        "method_code": "m",
        "core_code": "c",
        "data_fingerprint": "f",
        "environment": Environment(kdbench="0.1.0", torch="2.15", torchvision="0.30", python="3.13", device=device, threads=None),
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return Record.model_validate({**known, **changes})


def put(root: Path, spec: Spec, *, files: Mapping[str, str] | None = None, record: bool = True, **changes: Any) -> Path:
    """Write a trial's folder, with its record unless that is not wanted, and other `files` by their names."""
    folder = root / "trials" / digest(spec)
    texts = {"spec.json": json.dumps(spec), **(files or {})}
    if record:
        texts["record.json"] = record_of(spec, **changes).model_dump_json(indent=1)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
