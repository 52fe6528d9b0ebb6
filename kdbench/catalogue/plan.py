"""What a suite would train and what is done: as values for `--json`, as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kdbench.catalogue.images import Known, contents_as_json, contents_as_lines
from kdbench.catalogue.power import Power, power_as_json, power_as_text
from kdbench.catalogue.text import Value, aligned
from kdbench.catalogue.trials import planned_networks
from kdbench.catalogue.tuning import choices_as_json, tuning_as_lines
from kdbench.data import Contents, SourceParams
from kdbench.data.division import training_images
from kdbench.method.specs import never_reached, pair_label, setting, single_steps, teacher_label
from kdbench.runner import cost
from kdbench.runner.plan import Plan, Planned, PlannedStage, Status
from kdbench.spec.recipe import Recipe
from kdbench.wording import counted


def plan_as_json(
    plan: Plan,
    estimates: Sequence[cost.Cost],
    contents: Known,
    power: Power | None = None,
    tuning_estimates: Sequence[cost.Cost] = (),
    notes: Sequence[str] = (),
) -> Value:
    """`suite`, `data`, `teachers`, `stages`, `students`, `without_weights`, `remaining`, what the rest will cost by `device`,
    `power`, what the seeds can show, as `power_as_json` describes it; null where nothing is left to train or to compare; `notes`
    on what its trainings never reach, on batches that take all images, and those that are given; and `tuning`, null where the
    suite has none.

    `data` is what lies there, null where that is not known: `classes`, `image_shape`, `train_images` and `test_images` as in a
    record but before any are held out or left unused, `passed_over_files` by reason, `notes`. `without_weights` are the ids of
    finished students whose weights the suite asks for and which are not there, whole.

    A stage, which a method learns from a teacher alone for students that remain, has `teacher`, `method`, `stage`, `params`
    (those that it depends on), `seed` (null where one training serves all seeds) and `status`. A trial has `trial`, `status`,
    `teacher` (null where it reads none), `student`, `method`, `params` (by part), `seed`, `epochs`, `precision`. A cost has
    `seconds`, `low_s` and `high_s`, how many `students`, `teachers` and `stages` remain and how many of them are `unknown`, the
    `bases` of the others, and how many trainings were `measured`, `beside_others` of them while other jobs trained on the
    machine; and how long it takes on `devices` such devices at once: `devices_s`, null where it is one. An untuned student has no
    `trial` yet, and the suite's own `params`.

    The tuning has `teachers`, `students` and `remaining` of its own, and `choices` as `choices_as_json` describes them.
    """
    return {
        "suite": plan.suite.name,
        "data": contents_as_json(contents),
        "teachers": [_planned_as_json(planned) for planned in plan.teachers],
        "stages": [_stage_as_json(planned) for planned in plan.stages],
        "students": [_planned_as_json(planned) for planned in plan.students],
        "without_weights": [planned.spec.id for planned in plan.without_weights],
        "remaining": [_cost_as_json(estimate) for estimate in estimates],
        "power": power_as_json(power),
        "notes": [*plan_notes(plan, contents), *notes],
        "tuning": {
            "teachers": [_planned_as_json(planned) for planned in plan.tuning.teachers],
            "students": [_planned_as_json(planned) for planned in plan.tuning.students],
            "remaining": [_cost_as_json(estimate) for estimate in tuning_estimates],
            "choices": choices_as_json(plan),
        }
        if plan.tuning
        else None,
    }


def _cost_as_json(estimate: cost.Cost) -> Value:
    seconds = dict(zip(("seconds", "low_s", "high_s"), estimate.seconds, strict=True))
    known = {name: getattr(estimate, name) for name in ("students", "teachers", "stages", "unknown", "measured", "beside_others")}
    known |= {"devices": estimate.devices, "devices_s": estimate.devices_s}
    return {"device": estimate.device, **seconds, **known, "bases": {basis.value: n for basis, n in estimate.bases.items()}}


def _stage_as_json(planned: PlannedStage) -> Value:
    stage = planned.stage
    return {
        "teacher": teacher_label(stage.teacher),
        "method": stage.part.name,
        "stage": stage.stage,
        "params": stage.part.params,
        "seed": stage.seed,
        "status": planned.status.value,
    }


def _planned_as_json(planned: Planned) -> Value:
    spec = planned.spec
    return {
        **planned_networks(planned),
        "method": spec.method,
        "params": {part.name: part.params for part in spec.methods},
        "seed": spec.seed,
        "epochs": spec.epochs,
        "precision": spec.recipe.arithmetic,
    }


def plan_as_text(
    plan: Plan,
    estimates: Sequence[cost.Cost],
    contents: Known,
    power: Power | None = None,
    tuning_estimates: Sequence[cost.Cost] = (),
) -> str:
    """The images; how far tuning is; lines for each teacher, each stage of one, and each pair and method with its seeds by status;
    what remains and what the seeds can show."""
    first = plan.suite.trials[0]
    lines = [f"{plan.suite.title}: {first.dataset.label}, {_recipe_text(first.recipe)}"]
    lines += [f"  {line}" for line in (*contents_as_lines(contents), *_division(plan.suite.source[1]))]
    lines += _further_recipes(plan, usual=_recipe_text(first.recipe))
    lines += tuning_as_lines(plan, tuning_estimates)
    left = cost.remaining(plan)
    for planned in plan.teachers:
        seed = f" (seed {planned.spec.seed})" if planned.spec.methods else ""
        again = ", but its weights are not there: it is trained again" if planned.lacks_weights and planned in left else ""
        lines.append(f"  teacher {teacher_label(planned.spec)}{seed}: {planned.status.value}{again}")
    stages: dict[str, list[PlannedStage]] = {}
    for entry in plan.stages:
        stages.setdefault(f"{entry.stage.name} of {teacher_label(entry.stage.teacher)}", []).append(entry)
    lines += [f"  stage {name}: {_counts(plan, entries)}" for name, entries in stages.items()]
    lines += [f"  note: {note}." for note in plan_notes(plan, contents)]
    rows = _rows(plan.students)
    lines += aligned([[pair, method, _counts(plan, trials)] for pair in rows for method, trials in rows[pair].items()])
    lines.append(f"{counted(len(plan.students), 'trial')}: {_counts(plan, plan.students)}")
    if text := plan.without_weights_text:
        lines.append(text)
    if left:
        stages_left = cost.remaining_stages(plan, left)
        epochs = sum(planned.epochs for planned in left) + sum(stage.epochs for stage in stages_left)
        counts = cost.networks(*cost.numbers(left), len(stages_left))
        lines += [f"left: {cost.estimate_text(estimate)}" for estimate in estimates] or [
            f"left: {counts}, {counted(epochs, 'epoch')}. How long that takes is not known: nothing like it was measured in this "
            "directory. `kdbench run` with --stop-after 2m measures it, and keeps what it trains."
        ]
    if power:
        lines.append(f"seeds: {power_as_text(power)}")
    return "\n".join(lines)


def plan_notes(plan: Plan, contents: Known) -> list[str]:
    """What its trainings never reach, and which batches take all images."""
    found: list[str] = []
    for part in (plan.tuning, plan) if plan.tuning else (plan,):
        trials = [planned.spec for planned in (*part.teachers, *part.students)]
        found += [note for trial in trials for note in never_reached(trial)]
        if trials and isinstance(contents, Contents):
            found += single_steps(trials, images=training_images(contents, part.suite.source[1]))
    return list(dict.fromkeys(found))


def _further_recipes(plan: Plan, *, usual: str) -> list[str]:
    """The recipes beside the first trial's, each with the networks that are trained by it."""
    networks: dict[str, dict[str, None]] = {}
    for planned in (*plan.teachers, *plan.students):
        if planned.spec.methods and (recipe := _recipe_text(planned.spec.recipe)) != usual:
            who = f"teacher {teacher_label(planned.spec)}" if planned.teaches else planned.spec.label
            networks.setdefault(recipe, {})[who] = None
    return [f"  {', '.join(names)}: {recipe}" for recipe, names in networks.items()]


def _recipe_text(recipe: Recipe) -> str:
    """What it does, and how it rounds."""
    return f"{recipe.summary}; precision {recipe.arithmetic}"


def _division(params: SourceParams) -> Iterator[str]:
    """What becomes of the training images, where not all of them are trained on."""
    if params.train_images:
        yield f"of the training images, {params.train_images:,} are used"
    if params.validation:
        yield f"of {'these' if params.train_images else 'the training images'}, {100 * params.validation:g} % are held out"


def _rows(students: Iterable[Planned]) -> dict[str, dict[str, list[Planned]]]:
    """By pair and by method, which is named with the parameters that are not its defaults, as `ft (k=2)`."""
    rows: dict[str, dict[str, list[Planned]]] = {}
    for planned in students:
        method = planned.spec.method if planned.status is Status.UNTUNED else setting(planned.spec)
        rows.setdefault(pair_label(planned.spec), {}).setdefault(method, []).append(planned)
    return rows


def _counts(plan: Plan, trials: Sequence[Planned] | Sequence[PlannedStage]) -> str:
    return ", ".join(f"{n} {status}" for status, n in plan.counts(trials).items())
