"""Results as a pandas frame: those of a directory, or those of a suite, what is not done among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.paths import expanded
from kdbench.results.export import is_export, read_export
from kdbench.results.frames import frame, params_as_json, read_records, row
from kdbench.wording import plural

if TYPE_CHECKING:
    from kdbench.runner.plan import Plan, Planned
    from kdbench.spec.trial import TrialSpec


def load_results(path: str | Path, *, suite: str | Path | None = None, plugins: Sequence[str | Path] = ()) -> pd.DataFrame:
    """The results of a directory as a frame, with one row for each trial; or those of one suite.

    A directory holds teachers, too: the column `role` is `teacher` for them, and `student` for all others. A trained teacher has
    the method `scratch`, so choose `frame[frame["role"] == "student"]` before you take means.

    Units stand in the names of the columns: `_pct` is percent, `_s` seconds, `_per_s` a rate and `_mib` MiB. The page "Results
    folder" of the documentation describes every column. Students of `scratch` have no teacher.

    For the results of one suite, give `suite`. Do not filter on the column `suite`: it names the suite that trained a trial first,
    and a trial that two suites share has one row.

    Args:
        path: a results directory, or a file that `kdbench export` wrote.
        suite: a shipped suite's name, or a path to a YAML file. The frame is then the one that `run_suite` returns. It has each
            student of the suite, whatever suite trained it and whether or not it is done, and no teachers. Nothing is trained or
            written.
        plugins: with `suite`, Python files, or folders of them, with the methods, networks or data sets of your own that it names.

    Raises:
        KdbenchError: there is no such directory, it has no trials and no suite is given, or there is a mistake in the suite.
    """
    root = expanded(path)
    if is_export(root):
        if suite is not None or plugins:
            raise KdbenchError(f"suite and plugins have no effect on {root}, which is a file. Leave them out, or give a directory.")
        return read_export(root).results
    if suite is not None:
        return _of_suite(root, suite, plugins)
    if plugins:
        raise KdbenchError("plugins have no effect on all records of a directory. Give them with suite=..., or leave them out.")
    return read_records(root)


def _of_suite(root: Path, suite: str | Path, plugins: Sequence[str | Path]) -> pd.DataFrame:
    from kdbench.results.store import Store
    from kdbench.runner.plan import make_plan  # imports torch, which reading records needs not
    from kdbench.spec.record import PROTOCOL
    from kdbench.suite.plugins import load_plugins
    from kdbench.suite.resolve import load_suite

    if not root.is_dir():
        raise KdbenchError(f"there is no directory {root}. Give the one that `kdbench run --results` wrote to.")
    load_plugins(plugins)
    return plan_frame(make_plan(load_suite(suite), Store(root, protocol=PROTOCOL, read_only=True)))


def plan_frame(plan: Plan) -> pd.DataFrame:
    """The students of a suite, those that are not done among them."""
    from kdbench.method.specs import setting  # imports torch, which reading records needs not

    return frame(
        {**row(planned.record), "role": "student", "setting": setting(planned.spec)}
        if planned.record
        else row_without_record(planned.spec, suite=plan.suite.name, status=planned.status) | _untuned(planned)
        for planned in plan.students
    )


def _untuned(planned: Planned) -> dict[str, Any]:
    """What is not known of a student whose parameters are not chosen, and why."""
    return {"trial": "", "setting": None, "reason": planned.reason} if planned.status == "untuned" else {}


def row_without_record(trial: TrialSpec, *, suite: str, status: str) -> dict[str, Any]:
    """What is known of a trial that has no record yet."""
    from kdbench.method.specs import setting, teachers_label

    return {
        "trial": trial.id,
        "suite": suite,
        "role": "student",
        "status": str(status),
        "protocol": trial.protocol,
        "dataset": trial.dataset.label,
        "recipe": trial.recipe.summary,
        "precision": trial.recipe.arithmetic,
        "epochs": trial.recipe.epochs,
        "teacher": teachers_label(trial),
        "teacher_trial": trial.teacher.id if trial.teacher else None,
        "student": trial.label,
        "method": trial.method,
        "setting": setting(trial),
        "stages": trial.stages,
        "seed": trial.seed,
        "method_params": params_as_json(trial.model_dump(mode="json")),
        "dataset_params": json.dumps(trial.dataset.model_dump(mode="json"), sort_keys=True),
        "evaluate_every": trial.recipe.evaluate_every,
    }


def tuning_frame(plan: Plan) -> pd.DataFrame:
    """What a suite tried of each method for each pair: one row for each setting, that of its own parameters first."""
    from kdbench.method.specs import setting

    tuning = plan.suite.tuning.spec if plan.suite.tuning else None
    seen = [planned.record.data for planned in plan.tuning.students if planned.record] if plan.tuning else []
    held_out = next((data.validation_images.images for data in seen if data and data.validation_images), None)
    return pd.DataFrame(
        {
            "suite": str(plan.suite.file),
            "dataset": plan.suite.trials[0].dataset.label,
            "teacher": choice.candidates.pair[0],
            "student": choice.candidates.pair[1],
            "method": choice.candidates.method,
            "setting": setting(tried.setting.reported[0]),
            "tunable": choice.candidates.tunable,
            "trials": len(tried.setting.tried),
            "missing": tried.missing,
            "validation_error_pct": tried.mean_pct,
            "failure": tried.failure,
            "chosen": tried.setting == choice.chosen,
            "given_teacher": any(not teacher.methods for teacher in tried.setting.reported[0].teachers),
            "tuned": tuning is not None,
            "budget": tuning.budget if tuning else 1,
            "validation": tuning.validation if tuning else 0.0,
            "validation_images": held_out,
            "tuning_seeds": len(tuning.seeds) if tuning else 0,
            "seeds": f"{plural('seed', len(tuning.seeds))} {', '.join(map(str, tuning.seeds))}" if tuning else "",
            "unequal": bool(tuning and tuning.unequal),
        }
        for choice in plan.choices
        for tried in choice.tried
    )
