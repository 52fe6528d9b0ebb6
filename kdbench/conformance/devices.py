"""Checks of what a step would do on a GPU, which need not be there."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from kdbench.conformance.hook_points import map_tensors
from kdbench.conformance.method_under_test import MethodUnderTest
from kdbench.conformance.setting import BrokenPromise, expect
from kdbench.conformance.terms import evaluate_segments
from kdbench.method.batch import Batch, View
from kdbench.method.composition import Composition

TWO_DEVICES = re.compile(r"two (different )?devices|not on the expected device")
"""In torch's words where tensors of different devices meet."""

WAITS = re.compile(r"item\(\) cannot be called|nonzero\(\) raises unimplemented")
"""In torch's words where a step asks for numbers that are not there."""

NOT_DETERMINISTIC = re.compile(
    r"(_?adaptive_(?:avg|max)_pool[23]d|avg_pool3d|fractional_max_pool[23]d|upsample_(?:linear1d|bicubic2d|trilinear3d)"
    r"|reflection_pad[123]d|_ctc_loss|grid_sampler_[23]d)_backward\.\w+|(max_unpool[23]d|nll_loss2d_forward|put_?|histc)\.\w+"
    r"|(median)\.dim"
)
"""What has no deterministic kernel on CUDA, by torch's page on `use_deterministic_algorithms`."""


def device(tested: MethodUnderTest) -> str | None:
    """On a GPU its losses find all that they use there.

    Why: A tensor that was made without `device=`, or kept as a plain attribute, stays on the CPU, and the first step fails there.

    Fix: Make tensors from others (`x.new_zeros`, `torch.zeros_like`) or with `device=batch.images.device`, draw random ones by
    `batch.random`, and keep constants in buffers: `self.register_buffer(...)`.
    """
    gpu, mode = _pretended(torch.backends.cuda.is_built())  # type: ignore[no-untyped-call]  # torch gives it no types
    method = copy.deepcopy(tested.default_setting.method())
    student, teacher, batch = tested.default_setting.example_inputs()

    def there(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=gpu)

    with mode:
        _move(method, there)
        try:
            evaluate_segments(method, map_tensors(student, there), map_tensors(teacher, there), _PretendedBatch.of(batch, there))
        except Exception as problem:  # of whatever kind torch's are
            text, place = str(problem), tested.place(problem)
            expect(
                not TWO_DEVICES.search(text),
                f"on a GPU its losses compute with a tensor that is on the CPU ({place}). Make it where the others are, by "
                "x.new_zeros(...) or device=batch.images.device, or keep it in a buffer: self.register_buffer(...).",
            )
            expect(
                "numpy" not in text,
                f"its losses call .numpy() ({place}), which no tensor on a GPU has. Compute with torch instead.",
            )
            if isinstance(problem, (DataDependentOutputException, DynamicOutputShapeException)) or WAITS.search(text):
                return f"they wait for the GPU ({place}), so that its steps are no CUDA graph and take longer"
            return f"not known, since torch cannot say what it would do there ({tested.exception_text(problem)})"
    return None


def deterministic(tested: MethodUnderTest) -> None:
    """On a GPU every operation of a step has a deterministic kernel.

    Why: Runs must repeat themselves, so kdbench asks torch for such kernels alone, and where there is none the first step fails.

    Fix: Compute it by other operations. `kdbench.pool_to` pools maps to any size.
    """
    method = copy.deepcopy(tested.default_setting.method())
    with Operations() as done:
        for _, losses in evaluate_segments(method, *tested.default_setting.example_inputs()):
            total = sum(losses.values(), torch.zeros(()))
            if total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    for found in filter(None, map(NOT_DETERMINISTIC.fullmatch, done.names)):
        name = found[found.lastindex or 0].strip("_")
        raise BrokenPromise(
            f"on a GPU torch has no deterministic kernel for {name}, so that its first step fails. Compute it by other operations; "
            "kdbench.pool_to pools maps to any size."
        )


class Operations(TorchDispatchMode):
    """The names of what torch computes in the block, backward, too, such as `convolution_backward.default`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.names: dict[str, None] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[operation.__name__] = None
        return operation(*args, **(kwargs or {}))


@cache
def _pretended(cuda: bool) -> tuple[torch.device, AbstractContextManager[object]]:
    """A device, and a context in which tensors on it have no numbers.

    Where torch is built for CUDA it is a GPU, the last one that can be pretended: what a method keeps for it is never used in a
    training. There is one context, since methods may keep tensors from one call to the next. Where torch is not, it is the device
    `meta`, on which fewer faults are seen.
    """
    if cuda:
        return torch.device("cuda", 7), FakeTensorMode(allow_non_fake_inputs=True)
    return torch.device("meta"), nullcontext()


def _move(method: Composition, there: Callable[[Tensor], Tensor]) -> None:
    """Put the method's parameters and buffers on a device, and nothing else, as `to` does."""
    parameters: dict[nn.Parameter, nn.Parameter] = {}  # one that several modules share stays one
    for module in method.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in parameters:
                parameters[parameter] = nn.Parameter(there(parameter), parameter.requires_grad)
            module.register_parameter(name, parameters[parameter])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, there(buffer))


class _PretendedBatch(Batch):
    """A batch there; the numbers that it draws come without pinned memory, which nothing pretends."""

    @classmethod
    def of(cls, batch: Batch, there: Callable[[Tensor], Tensor]) -> _PretendedBatch:
        """The same images there."""

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return there(value)
            if isinstance(value, View):
                return View(there(value.images), there(value.labels))
            return {name: moved(item) for name, item in value.items()} if isinstance(value, dict) else value

        return cls(**{field.name: moved(getattr(batch, field.name)) for field in fields(batch)})

    def random(self, make: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
        return make(*args, **options, generator=self.generator).to(self.images.device)
