"""Where the gradient of a loss ends, and that an optimiser is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def learners(*totals: Tensor) -> Iterator[Tensor]:
    """The tensors at which the gradients of some tensors end."""
    nodes: set[Any] = {total.grad_fn for total in totals}  # `variable` is on one kind of node, unknown to the types
    seen: set[Any] = {None}
    while nodes := nodes - seen:
        seen |= nodes
        for node in nodes:
            if "AccumulateGrad" in node.name():
                yield node.variable
        nodes = {following for node in nodes for following, _ in node.next_functions}


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
