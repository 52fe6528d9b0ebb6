"""Checks of what a method asks for beside the networks' outputs for a batch: views, a second teacher."""

from __future__ import annotations

from dataclasses import replace
from math import nan

from kdbench.conformance.hook_points import map_tensors
from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.setting import expect
from kdbench.conformance.terms import values
from kdbench.method.batch import Batch, View
from kdbench.method.outputs import Outputs


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
