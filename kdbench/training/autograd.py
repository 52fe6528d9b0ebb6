"""Where the gradient of a loss ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def learners(total: Tensor) -> Iterator[Tensor]:
    """The tensors at which the gradient of `total` ends."""
    nodes: set[Any] = {total.grad_fn}  # `variable` is on one kind of node, unknown to the types
    seen: set[Any] = {None}
    while nodes := nodes - seen:
        seen |= nodes
        for node in nodes:
            if "AccumulateGrad" in node.name():
                yield node.variable
        nodes = {following for node in nodes for following, _ in node.next_functions}
