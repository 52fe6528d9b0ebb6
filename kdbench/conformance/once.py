"""Checks of what is learnt or found once from a teacher, and shared by all its students: stages of the teacher, and surveys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from kdbench.conformance.declarations import alternatives, shapes
from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.setting import Setting, build_for, expect
from kdbench.conformance.terms import values
from kdbench.method.pair import PairError
from kdbench.method.stages import Stage, Survey
from kdbench.models.weights import state_hash
from kdbench.streams import seeded

Once = TypeVar("Once", Stage, Survey)


def stages_of_the_teacher(tested: MethodUnderTest) -> str | None:
    """What is learnt from the teacher alone is in the stage's modules, and depends on no student, on no parameter that
    `teacher_stages` leaves out, and on no other such stage.

    Why: What is learnt from the teacher alone is trained once and shared by all students that need the same.

    Fix: Build the modules of the stage from the teacher's shapes, before all others, and name in `teacher_stages` the
    parameters that change what it learns.
    """
    setting, params = tested.default_setting, tested.method_class.Params
    as_built = replace(setting, student=setting.teacher)  # the engine builds it as if the teacher were its own student
    for name, depends_on in tested.method_class.teacher_stages.items():
        expect(
            [*map(shapes, stage(setting, name, {}).modules)] == [*map(shapes, stage(as_built, name, {}).modules)],
            f"the modules of stage {name} have shapes that depend on the student. Build them from the teacher's shapes.",
        )
        expect(
            not (names := forgotten(as_built, name)),
            f"stage {name} changes {', '.join(names)}, which is in none of its modules, and is lost when it ends. Register such a "
            "buffer in a module of the stage.",
        )
        for first in sorted(tested.method_class.teacher_stages.keys() - {name}):
            expect(
                not builds_on(as_built, name, first),
                f"stage {name} computes with what stage {first} learns. Stages of the teacher alone are trained side by side, and "
                "none sees what another has learnt. Make them one stage.",
            )
        usual = learnt(as_built, name, {})
        for key in (key for key in params.model_fields if key not in depends_on):
            expect(
                all(learnt(as_built, name, {key: value}) in (usual, None) for value in alternatives(params, key)),
                f"`{key}` changes what stage {name} learns or starts from. Name it in `teacher_stages`, or build what it changes "
                "after the modules of the stage.",
            )
    return None if tested.method_class.teacher_stages else "it has no stage of the teacher alone"


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
            shapes(survey(setting, name, {}).module) == shapes(survey(as_built, name, {}).module),
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


def stage(setting: Setting, name: str, params: Mapping[str, Any]) -> Stage:
    """The stage `name` of the method with some parameters.

    Raises:
        BrokenPromise: the method declares it in `teacher_stages` and has none of that name.
    """
    return only("stages", setting.method(params).stages(), name)


def survey(setting: Setting, name: str, params: Mapping[str, Any]) -> Survey:
    """The survey `name` of the method with some parameters, done.

    Raises:
        BrokenPromise: the method declares it in `teacher_surveys` and has none of that name.
    """
    return only("surveys", setting.method(params).surveys(), name)


def only(kind: str, of_method: Iterable[tuple[str, Once]], name: str) -> Once:
    """The one of a method's `stages` or `surveys` that has this name."""
    found = [one for _, one in of_method if one.name == name]
    expect(len(found) == 1, f"`teacher_{kind}` names {name}, and `{kind}` returns {len(found)} of that name. Return one.")
    return found[0]


def learnt(setting: Setting, name: str, params: Mapping[str, Any]) -> list[object] | None:
    """All that determines what a stage of the teacher alone learns; None where the pair is refused."""
    try:
        found = stage(setting, name, params)
    except PairError:
        return None
    _, teacher, batch = setting.example_inputs()
    losses = {term: value.item() for term, value in found.losses(teacher, teacher, batch).items()}
    return [found.epochs, found.optimiser, found.milestones, [state_hash(module.state_dict()) for module in found.modules], losses]


def forgotten(setting: Setting, name: str) -> list[str]:
    """The buffers that the losses of the stage `name` change, and that no module of it has."""
    (part,) = setting.method().parts.values()
    found = next(found for found in part.stages() if found.name == name)
    kept = {id(buffer) for module in found.modules for buffer in module.buffers()}
    before = {key: buffer.clone() for key, buffer in part.named_buffers() if id(buffer) not in kept}
    _, teacher, batch = setting.example_inputs()
    found.losses(teacher, teacher, batch)
    after = dict(part.named_buffers())
    return [key for key, value in before.items() if not after[key].equal(value)]


def builds_on(setting: Setting, name: str, first: str) -> bool:
    """Whether the losses of the stage `name` are others when what the stage `first` trains is another."""
    stages = setting.method().stages()
    one, other = only("stages", stages, name), only("stages", stages, first)
    _, teacher, batch = setting.example_inputs()

    def losses() -> dict[str, float]:
        with seeded(0, name):
            return {term: value.item() for term, value in one.losses(teacher, teacher, batch).items()}

    before, own = losses(), {id(parameter) for module in one.modules for parameter in module.parameters()}
    for parameter in nn.ModuleList(other.modules).parameters():
        if id(parameter) not in own:
            parameter.data = parameter.data + 1
    return losses() != before


def state(setting: Setting, name: str, params: Mapping[str, Any]) -> str | None:
    """The hash of what a survey finds; None where the pair is refused."""
    try:
        return state_hash(survey(setting, name, params).module.state_dict())
    except PairError:
        return None
