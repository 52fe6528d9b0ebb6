"""Checks of what a method says about itself."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, get_args
from unicodedata import category

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from kdbench.conformance.gradients import EPOCHS, gradients_at
from kdbench.conformance.hook_points import leaves, map_tensors, spoilt
from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.setting import BrokenPromise, Setting, build_for, expect
from kdbench.conformance.terms import loss_terms, values
from kdbench.errors import nearest
from kdbench.method.composition import Composition
from kdbench.method.description import describe_method
from kdbench.method.interface import METHODS, Method
from kdbench.method.outputs import Outputs, Shapes
from kdbench.method.pair import PairError
from kdbench.models.weights import state_hash
from kdbench.spec.trial import MethodParams
from kdbench.suite.shipped import shipped

LINES = 100


def docstring(tested: MethodUnderTest) -> str | None:
    """The docstring opens with the formula and names the paper; one of kdbench's own says what the method transfers.

    Why: Readers compare the file with the paper, and `kdbench show method` prints the docstring.

    Fix: Open the docstring with the formula, then write a paragraph `Paper: authors, title, venue, year`.
    """
    described = describe_method(tested.name)
    formula = described["formula"]
    expect(
        " - " in formula or any(category(sign) == "Sm" or sign in "()[]^_/*·‖" for sign in formula),  # Sm are + to the sum sign
        "the docstring does not open with a formula. Begin it with one, such as CE(z_s, y) + D.",
    )
    expect(bool(described["paper"]), "the docstring has no paragraph `Paper:`. Name authors, title, venue and year.")
    if not _is_shipped(tested):
        return None
    expect(
        bool(described["transfers"]),
        "the docstring has no line `Transfers:`. Say what the method transfers and of which family it is, as in "
        "`Transfers: softened class probabilities (logits)`.",
    )
    return None if described["family"] else "its line `Transfers:` ends without a family, such as (logits)"


def file(tested: MethodUnderTest) -> str | None:
    """The file has fewer than 100 lines, if it is to be one of kdbench's own.

    Why: A reader should see the whole method at once.

    Fix: Leave out what the formula does not say, and use the helpers of `kdbench`.
    """
    lines = len(Path(METHODS.entry(tested.name).file).read_bytes().splitlines())
    if not _is_shipped(tested):
        return f"this one has {lines}" if lines >= LINES else None
    expect(lines < LINES, f"the file has {lines} lines. Leave out what the formula does not say, and use what kdbench offers.")
    return None


def _is_shipped(tested: MethodUnderTest) -> bool:
    return Path(METHODS.entry(tested.name).file).parent == shipped("methods")


def names(tested: MethodUnderTest) -> None:
    """Every public name of the class and of its instances is one that kdbench reads, or that the file itself uses.

    Why: A misspelt `weigths` or `read` would have no effect, and nobody would notice.

    Fix: Correct the name, delete it, or begin it with an underscore.
    """
    (method,) = build_for(tested.name, tested.default_setting.pair).parts.values()
    classes = type(method).__mro__[: type(method).__mro__.index(Method)]
    known = {*dir(nn.Module()), *dir(Method), *Method.__annotations__}
    used: set[object] = set()
    for source in {inspect.getsourcefile(cls) for cls in classes} - {None}:
        for node in ast.walk(ast.parse(Path(str(source)).read_bytes())):
            if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
                used.add(node.attr if isinstance(node, ast.Attribute) else node.id)
            elif isinstance(node, ast.Constant):
                used.add(node.value)  # as in getattr(self, "name")
    for name in dict.fromkeys(chain(*map(vars, classes), vars(method))):
        if not (name.startswith("_") or name in known or name in used):
            near = nearest(name, known)
            raise BrokenPromise(
                f"nothing uses `{name}`, neither kdbench nor this file.{near} Delete it, or begin it with an underscore."
            )


def parameters(tested: MethodUnderTest) -> None:
    """Parameters have defaults, can be written out, and a misspelt one is refused.

    Why: A suite must be able to name a method alone, a record holds every parameter as JSON, and a misspelt parameter must not
    train the default in silence.

    Fix: Give every field of `Params` a default, of a type that JSON has, and derive it from `MethodParams`.
    """
    params = tested.method_class.Params
    required = [key for key, field in params.model_fields.items() if field.is_required()]
    expect(not required, f"`{'`, `'.join(required)}` must be given. Give each parameter a default, the authors' own.")
    default = params()
    expect(
        params.model_validate(default.model_dump(mode="json")) == default,
        "the defaults change when they are written as JSON and read again. Use numbers, strings, tuples and Literal.",
    )
    try:
        params.model_validate({"no_such_parameter": 1})
    except ValidationError:
        return
    expect(False, "an unknown parameter is accepted silently. Derive Params from MethodParams, and do not set `extra`.")


def effects(tested: MethodUnderTest) -> str | None:
    """Every parameter has an effect: on losses, stages, the cross-entropy's weight, shapes, or on what is refused.

    Why: A parameter without effect makes two rows of a table out of one method.

    Fix: Use the parameter where the formula has it, or delete it. If no other value of a parameter is known, the check skips
    it and says so.
    """
    params = tested.method_class.Params
    usual = behaviour(tested.default_setting, {})
    untried = []
    for key in params.model_fields:
        others = list(alternatives(params, key))
        if not others:
            untried.append(key)
            continue
        changes = any(behaviour(tested.default_setting, {key: value}) != usual for value in others)
        if not changes and not any(_changes(tested.default_setting, mode, key, others) for mode in modes(params, key)):
            expect(False, f"`{key}` has no effect: {others} change nothing. Use it where the formula has it, or delete it.")
    return f"no other value is known of {', '.join(untried)}; write choices as a Literal" if untried else None


def weights(tested: MethodUnderTest) -> None:
    """`weights` names the parameters that scale the transfer terms, and they do.

    Why: A run compares the transfer terms with the cross-entropy and says which weight to lower.

    Fix: Multiply a term by each parameter in `weights`, or write `weights = ()`.
    """
    cls, setting = tested.method_class, tested.default_setting
    unknown = sorted(set(cls.weights) - set(cls.Params.model_fields))
    expect(not unknown, f"`weights` names {unknown}, which are not parameters. Write weights = () where there is none.")

    def scaled(params: Mapping[str, Any]) -> list[object]:
        student, teacher, batch = setting.example_inputs()
        method = setting.method(params)
        return [
            seen_at(term, leaves(student))
            for taught_by in (teacher, surer(teacher))
            for term in loss_terms(method, student, taught_by, batch).values()
        ]

    usual = scaled({})
    for key in cls.weights:
        expect(
            any(scaled({key: value}) != usual for value in alternatives(cls.Params, key)),
            f"`{key}` is declared as a weight and changes no term. Multiply a term by it.",
        )


def alternatives(params: type[MethodParams], key: str) -> Iterator[Any]:
    """Valid values of a parameter other than its default."""
    field = params.model_fields[key]
    tried: list[Any] = list(get_args(field.annotation))
    if isinstance(field.default, bool):
        tried.append(not field.default)
    elif isinstance(field.default, int | float):
        tried += [0.7 * field.default, field.default + 1, 1e-9 * field.default]
    elif isinstance(field.default, list | tuple):
        tried.append(field.default[::-1])
        if all(isinstance(item, int | float) for item in field.default):
            tried += [[factor * item for item in field.default] for factor in (0.5, 2)]
    for value in (*tried, 0.37, 1):
        try:
            valid = getattr(params.model_validate({key: value}), key)
        except ValidationError:
            continue
        if valid != field.default:
            yield valid


def modes(params: type[MethodParams], key: str) -> Iterator[dict[str, Any]]:
    """Other choices among the words and switches of a method, in which the parameter may have its only effect."""
    for name, field in params.model_fields.items():
        if name != key and isinstance(field.default, str | bool):
            yield from ({name: value} for value in alternatives(params, name))


def _changes(setting: Setting, mode: Mapping[str, Any], key: str, values: Sequence[Any]) -> bool:
    """Whether the parameter has an effect in a mode."""
    usual = behaviour(setting, mode)
    return any(behaviour(setting, {**mode, key: value}) != usual for value in values)


def behaviour(setting: Setting, params: Mapping[str, Any]) -> list[object]:
    """All that a parameter can change, as values that compare equal where nothing changes."""
    try:
        method = setting.method(params)
    except PairError:
        return ["refused"]
    student, teacher, batch = setting.example_inputs()
    seen: list[object] = [method.ce_weight, shapes(method)]
    seen += [
        (part, stage.name, stage.epochs, stage.trains_student, stage.optimiser, stage.milestones) for part, stage in method.stages()
    ]
    seen += [(group.lr_factor, group.weight_decay, shapes(group.module)) for group in method.parameter_groups()]
    inputs = [*leaves(student), *method.parameters()]
    steps = [*((epoch, teacher) for epoch in EPOCHS), (EPOCHS[-1], surer(teacher))]
    for epoch, taught_by in steps:  # warm-ups, and banks that move
        for name, value in loss_terms(method, student, taught_by, replace(batch, epoch=epoch)).items():
            seen.append((name, *seen_at(value, inputs)))
        seen.append(method.ce_weight)  # which the losses may set
        moved(method)
    return [*seen, method.predict(student).sum().item()]


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of all that a module holds."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def seen_at(term: Tensor, inputs: Sequence[Tensor]) -> tuple[float, list[bytes | None]]:
    """A term and its gradient at each input, which a parameter may change alone, as where a gradient is reversed."""
    found = gradients_at(term, inputs)
    return term.item(), [None if gradient is None else (gradient.double() + 0).numpy().tobytes() for gradient in found]  # no -0


def surer(teacher: Outputs) -> Outputs:
    """With logits as of a trained teacher: the example's is sure of no image, and a method may leave out what it is unsure of."""
    views = {name: surer(view) for name, view in teacher.views.items()}
    return replace(teacher, logits=8 * teacher.logits / teacher.logits.std(), views=views)


def moved(method: Composition) -> None:
    """Change what learns, as training does: a slow copy of it, which is frozen, follows."""
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.mul_(0.9).add_(0.01)


def reads(tested: MethodUnderTest) -> None:
    """`reads` names the hook points that are read, and no other; none where nothing is read of the teacher.

    Why: The teacher runs only for methods that read it, and a pair that lacks a hook point is refused before anything trains.

    Fix: Write the hook points that `losses` uses into `reads`, and no others. `classify` counts as `pooled`.
    """
    method = tested.default_setting.method()
    student, teacher, batch = tested.default_setting.example_inputs()
    usual = values(method, student, teacher, batch)
    again = values(method, student, teacher, batch)
    surveyed = what_surveys_find(tested.default_setting, teacher, batch.labels)
    expect(again == usual, "two calls on the same inputs differ. Draw random numbers with batch.random.")

    def changed(student: Outputs, teacher: Outputs) -> bool:
        found = what_surveys_find(tested.default_setting, teacher, batch.labels)
        return found != surveyed or values(method, student, teacher, batch) != usual

    read = []
    if changed(student, map_tensors(teacher, lambda value: value * math.nan)):
        hooks = (field.name for field in fields(Shapes))
        read = [hook for hook in hooks if changed(spoilt(student, hook), spoilt(teacher, hook))]
    declared = tested.method_class.reads
    expect(
        set(read) == set(declared),
        f"it reads {read} and declares {list(declared)}. Write reads = {tuple(read)!r}; `classify` counts as `pooled`.",
    )


def what_surveys_find(setting: Setting, teacher: Outputs, labels: Tensor) -> list[str]:
    """A hash of what each survey of a new instance finds in one batch."""
    if not METHODS.get(setting.name).teacher_surveys:
        return []
    surveys = [survey for _, survey in setting.method().surveys()]
    for survey in surveys:
        survey.see(teacher, labels)
        survey.finish()
    return [state_hash(survey.module.state_dict()) for survey in surveys]
