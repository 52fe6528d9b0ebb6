"""A check of what losses would do on a GPU, which need not be there: torch computes shapes and devices alone."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from kdbench.conformance.hook_points import map_tensors
from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.setting import expect
from kdbench.conformance.terms import evaluate_segments
from kdbench.method.batch import Batch, View
from kdbench.method.composition import Composition

GPU = torch.device("cuda", 7)
"""The last one that torch can pretend. What a method keeps for it has no numbers, so it should be none that a process trains on."""

TWO_DEVICES = re.compile("two (different )?devices")
"""In torch's words where tensors of different devices meet."""


def device(tested: MethodUnderTest) -> str | None:
    """On a GPU its losses find all that they use on the GPU.

    Why: A tensor that was made without `device=`, or kept as a plain attribute, stays on the CPU, and the first step fails there.

    Fix: Make tensors from others (`x.new_zeros`, `torch.zeros_like`) or with `device=batch.images.device`, draw random ones by
    `batch.random`, and keep constants in buffers: `self.register_buffer(...)`.
    """
    method = copy.deepcopy(tested.default_setting.method())
    student, teacher, batch = tested.default_setting.example_inputs()
    with _pretended():
        _move(method)
        given = method, map_tensors(student, _on_gpu), map_tensors(teacher, _on_gpu), _PretendedBatch.of(batch)
        try:
            evaluate_segments(*given)
        except (DataDependentOutputException, DynamicOutputShapeException) as reason:
            return f"they wait for the GPU ({_place(tested, reason)}), so that its steps are no CUDA graph and take longer"
        except RuntimeError as problem:
            expect(
                not TWO_DEVICES.search(str(problem)),
                f"on a GPU its losses compute with a tensor that is on the CPU ({_place(tested, problem)}). Make it where the "
                "others are, by x.new_zeros(...) or device=batch.images.device, or keep it in a buffer: self.register_buffer(...).",
            )
            expect(
                "numpy()" not in str(problem),
                f"its losses call .numpy() ({_place(tested, problem)}), which no tensor on a GPU has. Compute with torch instead.",
            )
            return f"not known, since torch cannot say what it would do there ({tested.exception_text(problem)})"
    return None


def _place(tested: MethodUnderTest, problem: Exception) -> str:
    """The line of the method's file."""
    return tested.exception_text(problem).rsplit("(", 1)[1].removesuffix(")")


@cache
def _pretended() -> FakeTensorMode:
    """Torch's mode for tensors without numbers. There is one, since methods may keep tensors from one call to the next."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def _on_gpu(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=GPU)


def _move(method: Composition) -> None:
    """Put the method's parameters and buffers on the GPU, and nothing else, as `to` does."""
    parameters: dict[nn.Parameter, nn.Parameter] = {}  # one that several modules share stays one
    for module in method.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in parameters:
                parameters[parameter] = nn.Parameter(_on_gpu(parameter), parameter.requires_grad)
            module.register_parameter(name, parameters[parameter])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, _on_gpu(buffer))


class _PretendedBatch(Batch):
    """A batch on the GPU; the numbers that it draws come there without pinned memory, which nothing pretends."""

    @classmethod
    def of(cls, batch: Batch) -> _PretendedBatch:
        """The same images there."""

        def there(value: Any) -> Any:
            if isinstance(value, Tensor):
                return _on_gpu(value)
            if isinstance(value, View):
                return View(_on_gpu(value.images), _on_gpu(value.labels))
            return {name: there(item) for name, item in value.items()} if isinstance(value, dict) else value

        return cls(**{field.name: there(getattr(batch, field.name)) for field in fields(batch)})

    def random(self, make: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
        return make(*args, **options, generator=self.generator).to(self.images.device)
