"""What golden files hold, and how a case compares a method with one."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from kdbench import Batch, Outputs, Pair, TeacherParts
from kdbench.method.interface import METHODS
from kdbench.suite.plugins import load_shipped

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-9

load_shipped()


def method(name: str, pair: Pair, **params: object) -> Any:
    """The method `name` in float64; Any, because its adapters are known at run time alone."""
    cls = METHODS.get(name)
    return cls(cls.Params(**params), pair).double()


class Golden:
    """One file: its tensors, our leaves that take the place of its inputs and weights, and what is still uncompared."""

    def __init__(self, name: str) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            self.tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
            self.metadata: dict[str, str] = file.metadata()
        self.leaves: dict[str, Tensor] = {}
        self.uncompared = {key for key in self.tensors if key.startswith(("grad.", "after.")) or "loss" in key or "factor" in key}

    def outputs(self, side: str) -> Outputs:
        """The hook points of `side` that the file has, the student's as leaves, and dummies for the others."""

        def stacked(kind: str) -> tuple[Tensor, ...]:
            numbered = (f"{side}.{kind}.{i}" for i in itertools.count())
            keys = list(itertools.takewhile(self.tensors.__contains__, numbered))
            return tuple(self.input(key) for key in keys or [f"{side}.{kind}"] if key in self.tensors)

        def single(kind: str, *shape: int) -> Tensor:
            key = f"{side}.{kind}"
            return self.input(key) if key in self.tensors else torch.zeros(shape, dtype=torch.float64)

        features, preactivations = stacked("feat"), stacked("preact")
        return Outputs(
            logits=single("logits", 4, 10),
            stem=torch.zeros(4, 3, 8, 8, dtype=torch.float64),
            features=features,
            preactivations=preactivations,
            pooled=single("pooled", 4, 5),
            pooled_maps=features[-1] if features else torch.empty(0),
            views={"strong": self._strong(side)} if f"{side}.logits_strong" in self.tensors else {},
            classifier=self._classify(side) if f"{side}.classifier.weight" in self.tensors else None,
        )

    def _strong(self, side: str) -> Outputs:
        """The outputs for the strong view: its logits alone."""
        nothing = torch.zeros(4, 0, dtype=torch.float64)
        return Outputs(self.input(f"{side}.logits_strong"), nothing[..., None, None], (), (), nothing)

    def _classify(self, side: str) -> Callable[[Tensor], Tensor]:
        weight, key = self.input(f"{side}.classifier.weight"), f"{side}.classifier.bias"
        bias = self.input(key) if key in self.tensors else torch.zeros(len(weight), dtype=weight.dtype)
        return lambda values: torch.einsum("kd,bd...->bk...", weight, values) + bias.view(-1, *[1] * (values.ndim - 2))

    def input(self, key: str) -> Tensor:
        if key.startswith("teacher"):
            return self.tensors[key]
        return self.leaves.setdefault(key, self.tensors[key].clone().requires_grad_())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy the file's weights into ours."""
        for key, ours in weights.items():
            ours.data.copy_(self.tensors[key])
            self.leaves[key] = ours

    def agrees(self, key: str, ours: Tensor) -> None:
        """Relative error of the whole tensor; a tensor that is zero but for rounding must be so in ours."""
        theirs = self.tensors[key]
        assert ours.shape == theirs.shape
        scale = theirs.abs().max().item()
        error = (ours - theirs).abs().max().item()
        assert error < (TOLERANCE * scale if scale > 1e-12 else 1e-12), f"{key}: relative error {error / scale:.2g}"
        self.uncompared.discard(key)

    def loss_agrees(self, loss: Tensor, suffix: str = "") -> None:
        """Compare a loss, and its gradients at all leaves of which the file has one; `suffix` ends the names of its form."""
        self.agrees(f"loss{suffix}", loss)
        named = {f"grad.{leaf}{suffix}": leaf for leaf in self.leaves}
        self.gradients_agree(loss, {key: leaf for key, leaf in named.items() if key in self.tensors})

    def gradients_agree(self, loss: Tensor, gradients: Mapping[str, str]) -> None:
        """Compare d loss / d leaf for the keys `gradients`: key in the file -> leaf."""
        values = torch.autograd.grad(loss, [self.leaves[leaf] for leaf in gradients.values()], retain_graph=True)
        for key, value in zip(gradients, values, strict=True):
            self.agrees(key, value)


def pair_of(student: Outputs, teacher: Outputs, **parts: object) -> Pair:
    nothing = TeacherParts(torch.zeros(10, 5), torch.zeros(10), ())
    known = replace(nothing, **parts)  # type: ignore[arg-type]
    return Pair(student.shapes(), teacher.shapes(), labels=torch.arange(40) % 10, teacher_parts=known, image_shape=(3, 8, 8))


def batch_of(**fields: object) -> Batch:
    """After every warm-up."""
    blank = Batch(
        images=torch.zeros(4, 3, 8, 8, dtype=torch.float64),
        labels=torch.zeros(4, dtype=torch.int64),
        indices=torch.arange(4),
        epoch=1000,
        epochs=1001,
        generator=torch.Generator(),
    )
    return replace(blank, **fields)  # type: ignore[arg-type]


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


CASES: dict[str, Callable[[Golden], None]] = {}


def case(*names: str) -> Callable[[Callable[[Golden], None]], Callable[[Golden], None]]:
    def add(function: Callable[[Golden], None]) -> Callable[[Golden], None]:
        CASES.update(dict.fromkeys(names, function))
        return function

    return add


def plain(name: str, **params: object) -> None:
    """A case for a method without weights of its own, in one stage."""

    @case(name)
    def check(golden: Golden) -> None:
        student, teacher = golden.outputs("student"), golden.outputs("teacher")
        batch = batch_of(labels=golden.tensors["target"]) if "target" in golden.tensors else batch_of()
        golden.loss_agrees(total(method(golden_method(name), pair_of(student, teacher), **params).losses(student, teacher, batch)))


def golden_method(name: str) -> str:
    """The method of a golden file: some have several forms."""
    return "at" if name == "at_resize" else name
