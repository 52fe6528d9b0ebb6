"""Where the gradient of a loss ends, and that an optimiser is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def learners(*totals: Tensor) -> Iterator[Tensor]:
    """The tensors at which the gradients of some tensors end, maybe more than once."""
    # By node and number of its output; `variable` is on one kind of node, unknown to the types.
    edges: set[tuple[Any, int]] = {(total.grad_fn, total.output_nr) for total in totals}
    seen: set[tuple[Any, int]] = set()
    while edges := {edge for edge in edges - seen if edge[0] is not None}:
        seen |= edges
        following: set[tuple[Any, int]] = set()
        for node, number in edges:
            if "AccumulateGrad" in node.name():
                yield node.variable
            elif (told := node.metadata.get(_TOLD, {}).get(number)) is not None:
                yield from told
            else:
                following.update(node.next_functions)
        edges = following


_TOLD = "kdbench: where the gradients of its outputs end"


def tell_learners(tensor: Tensor, found: Sequence[Tensor]) -> None:
    """Let `learners` find these for a tensor, which comes from a node whose outputs depend on different ones of its inputs."""
    if tensor.grad_fn is not None:
        metadata: Any = tensor.grad_fn.metadata  # which torch's types take for a method
        metadata.setdefault(_TOLD, {})[tensor.output_nr] = found


def refuse_unoptimised(total: Tensor, optimiser: torch.optim.Optimizer, plain: Iterable[Tensor], *, stage: str) -> None:
    """See that `total` teaches something, and that every parameter which it would teach, and every `plain` tensor, is optimised.

    Raises:
        RuntimeError: it teaches nothing, or one is not the optimiser's; the message gives its shape.
    """
    if not total.requires_grad:
        raise RuntimeError(f"the loss of {stage} depends on nothing that learns. Do not detach the student's outputs.")
    known = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    built = set(map(id, plain))
    own = (tensor for tensor in learners(total) if isinstance(tensor, nn.Parameter) or id(tensor) in built)
    strays = [tensor for tensor in own if id(tensor) not in known]
    if strays:
        shape = max(tuple(tensor.shape) for tensor in strays)
        raise RuntimeError(
            f"a parameter of shape {shape} gets a gradient in {stage}, and no optimiser has it. Make its module an attribute of "
            "the method, in lists an nn.ModuleList, and a tensor an nn.Parameter; what is not to learn: .requires_grad_(False)."
        )
