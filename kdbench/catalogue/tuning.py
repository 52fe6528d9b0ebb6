"""How far the tuning of a suite's methods is, and what was chosen: as values for `--json`, as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.catalogue.text import Value, aligned
from kdbench.method.specs import setting, teacher_label
from kdbench.runner.cost import Cost, estimate_text, networks, numbers, remaining, remaining_stages
from kdbench.runner.plan import Plan
from kdbench.runner.tuning import Choice
from kdbench.wording import counted, plural


def choices_as_json(plan: Plan) -> list[Value]:
    """For each pair and method `teacher`, `student`, `method`, and its `settings`, each with `params` by part,
    `validation_error_pct` (the mean over tuning seeds; null where a trial failed or is missing), `missing` tuning trials, the
    `failure` of one, and whether it is `chosen`."""
    return [
        {
            "teacher": choice.candidates.pair[0],
            "student": choice.candidates.pair[1],
            "method": choice.candidates.method,
            "settings": [
                {
                    "params": {part.name: part.params for part in tried.setting.methods},
                    "validation_error_pct": tried.mean_pct,
                    "missing": tried.missing,
                    "failure": tried.failure,
                    "chosen": tried.setting == choice.chosen,
                }
                for tried in choice.tried
            ],
        }
        for choice in plan.choices
    ]


def tuning_as_lines(plan: Plan, estimates: Sequence[Cost]) -> list[str]:
    """The budget; for each pair and method what is chosen, or what is missing; and how long the tuning trials take."""
    if not plan.tuning or not plan.suite.tuning:
        return []
    spec, tuning = plan.suite.tuning.spec, plan.tuning
    seeds = f"{plural('seed', len(spec.seeds))} {', '.join(map(str, spec.seeds))}"
    equal = "at most " if spec.unequal else ""
    lines = [
        f"tuning: {equal}{counted(spec.budget, 'setting')} for each method, chosen on {100 * spec.validation:g} % of the training "
        f"images, {seeds}"
    ]
    for planned in tuning.teachers:
        lines.append(f"  teacher {teacher_label(planned.spec)} on the other images: {planned.status.value}")
    lines += aligned([[" -> ".join(choice.candidates.pair), choice.candidates.method, _stands(choice)] for choice in plan.choices])
    counts = ", ".join(f"{n} {status}" for status, n in tuning.counts(tuning.students).items())
    lines.append(f"  {counted(len(tuning.students), 'tuning trial')}: {counts}")
    if plan.untuned:
        lines.append(f"  trainings on all images that wait for a choice, in no estimate here: {len(plan.untuned)}")
    left = [f"  left to tune: {estimate_text(estimate)}" for estimate in estimates]
    if not left and (trials := remaining(tuning)):
        left = [
            f"  left to tune: {networks(*numbers(trials), len(remaining_stages(tuning, trials)))}, for a time that is not known"
        ]
    return [*lines, *left]


def _stands(choice: Choice) -> str:
    settings = counted(len(choice.tried), "setting")
    if len(choice.tried) == 1:
        return f"{settings}, nothing to choose"
    if not choice.chosen:
        return f"{settings}, {choice.open_because}"
    error = next(tried.mean_pct for tried in choice.tried if tried.setting == choice.chosen)
    return f"{settings}, chosen {setting(choice.chosen.reported[0])} (validation error {error:.2f} %)"
