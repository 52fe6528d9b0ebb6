"""Checks of what a method asks for beside the networks' outputs for a batch: views, a second teacher, surveys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import nan
from typing import Any

from kdbench.conformance.declarations import alternatives
from kdbench.conformance.hook_points import map_tensors
from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.setting import Setting, build_for, expect, values
from kdbench.method.batch import Batch, View
from kdbench.method.outputs import Outputs
from kdbench.method.pair import PairError
from kdbench.method.stages import Survey
from kdbench.models.weights import state_hash


def views(tested: MethodUnderTest) -> str | None:
    """`views` names the views of a batch that it uses, and no other.

    Why: Every view costs a pass of both networks, and one that nobody asks for is not there.

    Fix: Write the views that the losses use into `views`, and no others.
    """
    method = tested.default_setting.method()
    student, teacher, batch = tested.default_setting.example_inputs()
    usual = values(method, student, teacher, batch)
    for name in tested.method_class.views:
        without = blank_view(student, name), blank_view(teacher, name), blank_batch_view(batch, name)
        expect(values(method, *without) != usual, f"it asks for the view '{name}' and does not use it. Take it out of `views`.")
    return None if tested.method_class.views else "it asks for none"


def blank_view(outputs: Outputs, name: str) -> Outputs:
    """Outputs in which one view is NaN."""
    return replace(outputs, views={**outputs.views, name: map_tensors(outputs.views[name], lambda value: value * nan)})


def blank_batch_view(batch: Batch, name: str) -> Batch:
    """A batch in which the images of one view are NaN, and its labels 0."""
    view = batch.views[name]
    return replace(batch, views={**batch.views, name: View(view.images * nan, view.labels * 0)})


def several_teachers(tested: MethodUnderTest) -> str | None:
    """Where it takes several teachers, it learns from each.

    Why: A table with two teachers must not show what one of them taught.

    Fix: Use `teacher.others` in the losses, or leave out `several_teachers`.
    """
    if not tested.method_class.several_teachers:
        return "it learns from one"
    method = tested.default_setting.method()
    student, teacher, batch = tested.default_setting.example_inputs()
    first_alone = replace(teacher, others=tuple(map_tensors(other, lambda value: value * nan) for other in teacher.others))
    expect(
        values(method, student, first_alone, batch) != values(method, student, teacher, batch),
        "it says that it learns from several teachers, and reads the first alone. Use `teacher.others`, or take out "
        "`several_teachers`.",
    )
    return None


def surveys(tested: MethodUnderTest) -> str | None:
    """What a survey finds is in buffers, and depends on no student and on no parameter that `teacher_surveys` leaves out.

    Why: It is found out once, kept on disk, and shared by all students that need the same.

    Fix: Register what the survey fills as buffers of its module, sized by the teacher, and name in `teacher_surveys` the
    parameters that change it.
    """
    if not tested.method_class.teacher_surveys:
        return "it has none"
    setting, params = tested.default_setting, tested.method_class.Params
    as_built = replace(setting, student=setting.teacher)  # the engine builds it as if the teacher were its own student
    for name, depends_on in tested.method_class.teacher_surveys.items():
        expect(
            shapes(found(setting, name, {})) == shapes(found(as_built, name, {})),
            f"the buffers of survey {name} have shapes that depend on the student. Size them by the teacher's shapes.",
        )
        usual = state(as_built, name, {})
        for key in (key for key in params.model_fields if key not in depends_on):
            expect(
                all(state(as_built, name, {key: value}) in (usual, None) for value in alternatives(params, key)),
                f"`{key}` changes what survey {name} finds. Name it in `teacher_surveys`.",
            )
    surveyed, kept = setting.method(), build_for(tested.name, setting.pair)
    for (_, done), (_, loaded) in zip(surveyed.surveys(), kept.surveys(), strict=True):
        loaded.module.load_state_dict(done.module.state_dict())
    example = setting.example_inputs()
    expect(
        values(kept, *example) == values(surveyed, *example),
        "its losses are others when what the survey found is read from the disk. Keep all of it in buffers of the survey's module: "
        "self.register_buffer(...).",
    )
    return None


def found(setting: Setting, name: str, params: Mapping[str, Any]) -> Survey:
    """The survey `name` of the method with some parameters, done.

    Raises:
        BrokenPromise: the method declares it in `teacher_surveys` and has none of that name.
    """
    of_name = [survey for _, survey in setting.method(params).surveys() if survey.name == name]
    expect(len(of_name) == 1, f"`teacher_surveys` names {name}, and `surveys` returns {len(of_name)} of that name. Return one.")
    return of_name[0]


def shapes(survey: Survey) -> dict[str, tuple[int, ...]]:
    """Of all that a survey fills."""
    return {key: tuple(value.shape) for key, value in survey.module.state_dict().items()}


def state(setting: Setting, name: str, params: Mapping[str, Any]) -> str | None:
    """The hash of what a survey finds; None where the pair is refused."""
    try:
        return state_hash(found(setting, name, params).module.state_dict())
    except PairError:
        return None
