"""From the logits of a recorded pass back to the layers that give them, and to what these read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from kdbench.models.bare import bare_function
from kdbench.models.recorded import BATCH, CLASSES, Call, Layout, Point

VIEWS = {"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "SqueezeBackward0", "SqueezeBackward1", "MeanBackward1"}
"""What autograd calls what may stand between a head and the logits: a mean over places does the same before a 1x1 convolution."""
QUOTIENT, SUM, MEAN, STACK = "DivBackward0", "AddBackward0", "MeanBackward1", "StackBackward0"
"""What autograd calls the operations that average heads."""
PERMUTE, WINDOW = "PermuteBackward0", "AvgPool2DBackward0"
"""What autograd calls a change of axes, and pooling by a window."""
SHAPED = VIEWS - {MEAN} | {"AsStridedBackward1"}
"""What autograd calls what may stand between a mean over places and the layer that reads it."""
LAYOUTS: dict[frozenset[int], Layout] = {frozenset({2, 3}): "maps", frozenset({1, 2}): "channels last"}
"""By the axes that are places."""
NORM, SELECT = "NativeLayerNormBackward0", "SelectBackward0"
"""What autograd calls a transformer's last norm, and the choice of one of its tokens."""


@dataclass(frozen=True)
class Heads:
    """The layers that give a network's logits.

    Attributes:
        names: theirs, of which there are several where their answers are averaged.
        classifier: the only one, where it maps a pooled vector to the logits: a linear layer, or a 1x1 convolution; empty where
            there is none such.
        averaged: whether there are several, and the logits are the mean of what they give.
        read_tokens: whether they read the class token, and a second one the distillation token, of a transformer.
        pooled_maps: what gives the maps of which the classifier's vector is the mean over places; None where it is anything else,
            or where no module gives them.
        bare: where no module gives them because `forward` applies their activation itself, the function, such as `relu`.
    """

    names: tuple[str, ...]
    classifier: str
    averaged: bool
    read_tokens: bool
    pooled_maps: Point | None
    bare: str


def find_heads(calls: Sequence[Call]) -> Heads:
    """The heads of a network.

    Args:
        calls: what `record` gives.
    """
    heads, logits = _heads(calls), calls[-1].node
    direct = len(heads) == 1 and _maps_pooled(heads[0], logits)
    pooled_maps, bare = _pooled_maps(heads[0], calls) if direct else (None, "")
    return Heads(
        names=tuple(head.name for head in heads),
        classifier=heads[0].name if direct else "",
        averaged=len(heads) > 1 and _is_mean(logits, heads),
        read_tokens=bool(heads) and all(_token(head) == i for i, head in enumerate(heads)),
        pooled_maps=pooled_maps,
        bare=bare,
    )


def _heads(calls: Sequence[Call]) -> list[Call]:
    """The linear layers and convolutions, with an output for each class, that the logits come from with no such layer between."""
    layers = {call.node: call for call in calls if isinstance(call.module, (nn.Linear, nn.Conv2d))}
    found: list[Call] = []
    seen: set[Node] = set()
    ahead = [calls[-1].node]
    while ahead:
        node = ahead.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in layers:
            found.append(layers[node])
        else:
            ahead += _before(node)
    return [head for head in found if next(head.module.parameters()).shape[0] == CLASSES]


def _maps_pooled(head: Call, logits: Node | None) -> bool:
    """Whether the logits are what the layer makes of one vector: its input or, of a convolution, its input's mean over places."""
    node = logits
    while node and node is not head.node and node.name() in VIEWS:
        node = node.next_functions[0][0]
    if node is not head.node or not isinstance(head.read, Tensor) or head.read.shape[0] != BATCH:
        return False
    if isinstance(conv := head.module, nn.Conv2d):
        return conv.kernel_size == (1, 1) and conv.groups == 1 and head.made.shape[2:] == head.read.shape[2:]
    return head.read.ndim == 2


def _pooled_maps(head: Call, calls: Sequence[Call]) -> tuple[Point | None, str]:
    """The module whose maps have the head's input for their mean, as the operations between them tell; or the bare activation."""
    edge: Any = (head.read.grad_fn, head.read.output_nr)
    window: tuple[int, ...] = ()
    while edge[0] and edge[0].name() in SHAPED:
        edge = edge[0].next_functions[0]
    node, axes = edge[0], [2, 3]
    if node and node.name() == MEAN:
        axes, edge = [axis % 4 for axis in node._saved_dim], node.next_functions[0]  # -1 is saved as 2 ** 64 - 1
    elif node and node.name() == WINDOW and head.read.shape[2:].numel() == 1:
        window, edge = tuple(node._saved_kernel_size), node.next_functions[0]
    elif head.read.ndim != 4:
        return None, ""
    node = edge[0]
    if node and node.name() == PERMUTE:
        axes, edge = [node._saved_dims[axis] % 4 for axis in axes], node.next_functions[0]
    layout, times = LAYOUTS.get(frozenset(axes)), Counter(call.name for call in calls)
    for call in reversed(calls):
        made = call.made
        if layout and isinstance(made, Tensor) and made.ndim == 4 and (made.grad_fn, made.output_nr) == edge:
            point = Point(call.name, layout)
            maps = point.maps(made)
            whole = not window or window == tuple(maps.shape[2:])
            if whole and maps.shape[1] == head.read.shape[1] and times[call.name] == 1 and not call.overwritten:
                return point, ""
    return None, bare_function(edge[0], calls) if layout and not window else ""


def _is_mean(logits: Node | None, heads: Sequence[Call]) -> bool:
    """Whether the logits are half the sum of what two heads give, or the mean of a stack of what all give."""
    around: Any = logits
    within: Any = _before(around)[0] if around and around.name() in (QUOTIENT, MEAN) else None
    if within is None or _before(within) != [head.node for head in heads]:
        return False
    if within.name() == STACK:
        return bool(around.name() == MEAN and tuple(around._saved_dim) == (within._saved_dim,))
    divisor = getattr(around, "_saved_other", None)
    halved = isinstance(divisor, Tensor) and not divisor.is_meta and divisor.numel() == 1 and divisor.item() == len(heads)
    return bool(halved and within.name() == SUM and within._saved_alpha == 1)


def _token(head: Call) -> int | None:
    """Which of a transformer's tokens (B, N, D) a head reads."""
    node: Any = head.read.grad_fn if isinstance(head.read, Tensor) and head.read.ndim == 2 else None
    if node and node.name() == NORM:
        node = _before(node)[0]
    return node._saved_index if node and node.name() == SELECT and node._saved_dim == 1 else None


def _before(node: Node) -> list[Node | None]:
    return [earlier for earlier, _ in node.next_functions]
