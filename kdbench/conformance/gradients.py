"""Checks of where gradients reach, and that they are finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from kdbench.conformance.hook_points import leaves, map_tensors
from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.setting import BrokenPromise, expect
from kdbench.conformance.terms import evaluate_segments, loss_terms, synthetic_pair
from kdbench.method.batch import Batch
from kdbench.method.composition import Composition
from kdbench.streams import generator
from kdbench.training.autograd import learners
from kdbench.training.segments import MAIN
from kdbench.wording import counted

EPOCHS = (0, 5, 60, 119)
"""Where gradients are looked for, of 120: some methods warm up."""


def registered(tested: MethodUnderTest) -> str | None:
    """Every network that it computes with is a submodule, so that checkpoints hold its weights and devices get them.

    Why: A network that is hidden in a list is in no checkpoint and stays on the CPU.

    Fix: Make it an attribute of the method, in lists an `nn.ModuleList`. Freeze one that is not to learn with
    `.requires_grad_(False)`.
    """
    method = tested.default_setting.method()
    student, _, _ = example = tested.default_setting.example_inputs()  # before the watch begins, for it runs the networks
    fixed = {name: value.clone() for name, value in _fixed(method)}
    called: list[nn.Module] = []
    watch = register_module_forward_pre_hook(lambda module, inputs: called.append(module))
    try:
        evaluate_segments(method, *example)
        method.predict(student)
    finally:
        watch.remove()
    known = set(method.modules())
    for module in called:
        tensors = module.state_dict()
        expect(
            module in known or not tensors,
            f"it computes with a {type(module).__name__} of {counted(len(tensors), 'tensor')} that is not a submodule. Make it an "
            "attribute of the method; put several into an nn.ModuleList. If it must not learn, freeze it with "
            ".requires_grad_(False).",
        )
    moved = dict.fromkeys(name.rsplit(".", 2)[0] for name, value in _fixed(method) if not value.equal(fixed[name]))
    dropping = [name for name, module in _frozen(method) if isinstance(module, _DropoutNd) and module in called and module.training]
    found = {"the statistics of {} change": moved, "{} draws at random": dropping}
    seen = " and ".join(text.format(", ".join(names)) for text, names in found.items() if names)
    return f"{seen} although nothing there learns; call .eval() on it in `build` to stop that" if seen else None


def _fixed(method: Composition) -> list[tuple[str, Tensor]]:
    """The buffers of modules whose parameters do not learn, such as the batch norms of a frozen network."""
    return [
        (f"{prefix}.{name}", value) for prefix, module in _frozen(method) for name, value in module.named_buffers(recurse=False)
    ]


def _frozen(method: Composition) -> list[tuple[str, nn.Module]]:
    """The networks of a method of which nothing learns, with all inside them, by name."""
    (part,) = method.parts.values()
    found: dict[str, nn.Module] = {}
    for prefix, module in part.named_modules():
        parameters = list(module.parameters())
        if prefix and parameters and not any(parameter.requires_grad for parameter in parameters):
            found |= module.named_modules(prefix=prefix)
    return list(found.items())


def gradients(tested: MethodUnderTest) -> None:
    """Every tensor that learns is the method's own parameter, and gets gradient in a stage that trains it.

    Why: A tensor that no optimiser has never learns, and a parameter without gradient is dead weight.

    Fix: Make tensors that learn an `nn.Parameter` of the method or of a submodule, use every parameter in the loss that trains
    it, and fix the others with `.requires_grad_(False)`.
    """
    method = tested.default_setting.method()
    student, teacher, batch = tested.default_setting.example_inputs()
    known = {id(tensor) for tensor in (*leaves(student), *method.parameters())}
    reached: set[int] = set()
    for epoch in EPOCHS:
        for segment, losses in evaluate_segments(method, student, teacher, replace(batch, epoch=epoch)):
            total = torch.stack([torch.zeros(()), *losses.values()]).sum()
            if segment.phase == MAIN and method.ce_weight:  # which teaches what `predict` uses
                total = total + batch.cross_entropy(method.predict(student))
            for tensor in learners(total):
                expect(
                    id(tensor) in known,
                    f"a tensor of shape {tuple(tensor.shape)} learns in {segment.name}, and no optimiser has it. Make it an "
                    "nn.Parameter and an attribute of the method or a submodule; put several into an nn.ParameterList.",
                )
            trained = [parameter for module in segment.modules for parameter in module.parameters()]
            found = zip(trained, gradients_at(total, trained), strict=True)
            reached |= {id(parameter) for parameter, gradient in found if gradient is not None and gradient.any()}
    foreign = [p for group in method.parameter_groups() for p in group.module.parameters() if id(p) not in known]
    expect(
        not foreign,
        f"`parameter_groups` has {len(foreign)} parameters that are not the method's. Give modules that are attributes of it.",
    )
    idle = [
        name.removeprefix(f"parts.{tested.name}.")
        for name, value in method.named_parameters()
        if value.requires_grad and id(value) not in reached
    ]
    expect(
        not idle,
        f"no gradient reaches {', '.join(idle)} where it is trained. Use it in that loss, or call .requires_grad_(False).",
    )


def reaches_student(tested: MethodUnderTest) -> str | None:
    """The transfer terms give the student a gradient.

    Why: A loss that is cut off from the student teaches it nothing.

    Fix: Detach the teacher's side of the loss alone; it carries no gradient anyway.
    """
    if not tested.method_class.reads:
        return "it transfers nothing"
    method = tested.default_setting.method()
    student, teacher, batch = tested.default_setting.example_inputs()
    for epoch in EPOCHS:
        for value in loss_terms(method, student, teacher, replace(batch, epoch=epoch)).values():
            if any(gradient is not None and gradient.any() for gradient in gradients_at(value, leaves(student))):
                return None
    raise BrokenPromise("no term has a gradient at the student's outputs. Do not detach the student's outputs.")


def extremes(tested: MethodUnderTest) -> None:
    """Losses and gradients are finite where all images are the same, where the student is dead, and where it is huge.

    Why: Early in training activations die and logits explode, a small batch may have one class alone, and one value that is not
    finite ends the training.

    Fix: Add a small number under roots and in denominators, and use `log_softmax` in place of the logarithm of a softmax.
    """
    random = partial(torch.randn, generator=generator(0, "extremes"))
    pair = tested.default_setting.pair
    _, _, usual = tested.default_setting.example_inputs()
    of_one_class = replace(usual, labels=torch.zeros_like(usual.labels))
    cases: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], Batch]] = {
        "all samples are alike to the student": (_alike, random, usual),
        "all samples are alike to both networks, and of one class": (_alike, _alike, of_one_class),
        "the student's activations are 0": (torch.zeros, random, usual),
        "the student's activations are 300 times larger": (lambda *shape: 300 * random(*shape), random, usual),
    }
    for case, (make, make_teacher, batch) in cases.items():
        student, teacher = synthetic_pair(tested.method_class, pair, make, make_teacher, batch)
        for dtype in (torch.float32, torch.bfloat16):
            method = tested.default_setting.method()
            rounded = partial(map_tensors, function=partial(Tensor.to, dtype=dtype), classifiers=False)  # weights stay float32
            of_student, of_teacher = map_tensors(rounded(student), Tensor.requires_grad_), rounded(teacher)
            inputs = [*leaves(of_student), *method.parameters()]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
                found = loss_terms(method, of_student, of_teacher, batch)
            for name, value in found.items():
                expect(
                    all(tensor is None or bool(tensor.isfinite().all()) for tensor in (value, *gradients_at(value, inputs))),
                    f"{name} or its gradient is not finite where {case} ({dtype}). Keep roots, quotients and logs away from 0.",
                )


def _alike(*shape: int) -> Tensor:
    return torch.full(shape, 0.5)


def gradients_at(total: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Of `total` at each input; None where it does not reach."""
    wanted = [value for value in inputs if value.requires_grad]
    if not total.requires_grad or not wanted:
        return [None] * len(inputs)
    found = torch.autograd.grad(total, wanted, retain_graph=True, allow_unused=True)
    by_id = dict(zip(map(id, wanted), found, strict=True))
    return [by_id.get(id(value)) for value in inputs]
