"""From the recorded calls of a network's modules to its hook points: stem, groups, pre-activations, batch norms and classifier."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from torch import Tensor, nn
from torch.autograd.graph import Node

from kdbench.errors import KdbenchError
from kdbench.models.recorded import Call, Point

SHOWN = 12
"""How many modules a message gives where no name is near and no usual hooks are known."""

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Tanh,
)
NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
SUM, NORM = "AddBackward0", "NativeBatchNormBackward0"
LINEAR = {SUM, NORM, "ConvolutionBackward0", "NativeLayerNormBackward0"}
"""What autograd calls the operations after which no activation has been applied: a group that ends with one is linear."""


@dataclass(frozen=True)
class Wiring:
    """Where a foreign network's hook points are.

    Attributes:
        stem: the first convolution, or the norm and the activation directly after it.
        groups: shallow to deep.
        activations: for each group the module whose last input is the pre-activation, None where the group ends without an
            activation, so that its map is both; empty where one of them is out of reach.
        norms: for each group the batch norm that gives the pre-activation or a summand of it; empty where one has none.
        classifier: the linear layer that gives the logits.
    """

    stem: Point
    groups: tuple[Point, ...]
    activations: tuple[str | None, ...]
    norms: tuple[str, ...]
    classifier: str


def wire(name: str, calls: Sequence[Call], groups: Sequence[str], *, usual: Callable[[], Sequence[str]] = tuple) -> Wiring:
    """Find the hook points of a network whose groups end with the modules `groups`.

    Args:
        name: of the model, for messages.
        calls: what `record` gives.
        groups: names of modules, shallow to deep.
        usual: gives those that are taken where none are named, if any; for messages.

    Raises:
        KdbenchError: no such module, one that gives no maps, a wrong order, or no linear layer that gives the logits.
    """
    last = {call.name: call for call in calls}
    if unknown := [group for group in groups if not group or group not in last]:
        raise KdbenchError(f"{name}, hooks: there is no module '{unknown[0]}'. {_existing(name, calls, unknown[0], usual())}")
    ends = [_group(name, last, group) for group in groups]
    if (order := [calls.index(end) for end in ends]) != sorted(set(order)):
        raise KdbenchError(f"{name}, hooks: {', '.join(groups)} do not follow each other. Name each once, from shallow to deep.")
    points = tuple(point for end in ends if (point := end.point))
    befores = [_before(end, last) for end in ends]
    known = [before for before in befores if before]
    norms = [_norm(before, calls) for before in known]
    return Wiring(
        stem=_stem(calls) or points[0],
        groups=points,
        activations=tuple(before.activation for before in known) if len(known) == len(points) else (),
        norms=tuple(filter(None, norms)) if len(known) == len(points) and all(norms) else (),
        classifier=classifier(name, calls),
    )


def candidates(calls: Sequence[Call]) -> dict[str, tuple[int, ...]]:
    """Modules that can be hooks, in the order in which they end, and the shapes (C, H, W) that they give."""
    last = {call.name: call for call in calls if call.name}
    ordered = sorted(last.values(), key=calls.index)
    return {
        call.name: tuple(point.maps(call.made).shape[1:])
        for call in ordered
        if (point := call.point) and call.made._version == call.versions[-1]
    }


def _existing(name: str, calls: Sequence[Call], unknown: str, usual: Sequence[str]) -> str:
    """A sentence on what can be a hook: the names nearest to `unknown`, else the usual ones, else the first of all."""
    able = list(candidates(calls))
    if close := get_close_matches(unknown, able, n=4, cutoff=0.3):
        told = f"The nearest: {', '.join(close)}"
    elif usual:
        told = f"Without `hooks` it has {', '.join(usual)}"
    else:
        told = f"It has {', '.join((*able[:SHOWN], *(['...'] if len(able) > SHOWN else []))) or 'none that gives maps'}"
    return f"{told}; {_see(name)}"


def _see(name: str) -> str:
    return f"`kdbench show model {name} --modules` lists those that can be hooks."


def _group(name: str, last: dict[str, Call], group: str) -> Call:
    see, call = _see(name), last[group]
    if call.point is None:
        raise KdbenchError(f"{name}, hooks: '{group}' gives {_told(call.made)}, neither maps nor a square of tokens; {see}")
    if call.made._version != call.versions[-1]:
        raise KdbenchError(f"{name}, hooks: what '{group}' gives is overwritten by the operation after it; {see}")
    return call


@dataclass(frozen=True, eq=False)
class _Before:
    """A group's pre-activation: the module that reads it, None where it is the group's map, and the node that made it."""

    activation: str | None
    node: Node
    channels: int


def _before(end: Call, last: dict[str, Call]) -> _Before | None:
    point = end.point
    assert point
    channels = point.maps(end.made).shape[1]
    for call in last.values():
        if isinstance(call.module, ACTIVATIONS) and call.made is end.made and not call.overwritten and call.read.grad_fn:
            return _Before(call.name, call.read.grad_fn, channels)
    if end.node and end.node.name() in LINEAR:
        return _Before(None, end.node, channels)
    return None


def _norm(before: _Before, calls: Sequence[Call]) -> str | None:
    """The last batch norm, over all channels, whose output is the pre-activation or is added to it."""
    summands = [node for node, _ in before.node.next_functions] if before.node.name() == SUM else []
    for call in reversed(calls):
        found = isinstance(call.module, nn.BatchNorm2d) and call.module.num_features == before.channels
        if found and call.node and call.node.name() == NORM and call.node in (before.node, *summands):
            return call.name
    return None


def _stem(calls: Sequence[Call]) -> Point | None:
    """The first convolution, the norm after it and the activation after that, as far as they follow each other directly."""
    leaves = [call for call in calls if not list(call.module.children()) and not isinstance(call.module, nn.Identity)]
    start = next((i for i, call in enumerate(leaves) if isinstance(call.module, nn.Conv2d)), len(leaves))
    lead = leaves[start : start + 1]
    for call in leaves[start + 1 :]:
        if not isinstance(call.module, (*NORMS, *ACTIVATIONS)) or isinstance(lead[-1].module, ACTIVATIONS):
            break
        lead.append(call)
    return next((point for call in reversed(lead) if not call.overwritten and (point := call.point)), None)


def classifier(name: str, calls: Sequence[Call]) -> str:
    """The linear layer that gives the logits.

    Raises:
        KdbenchError: there is none.
    """
    logits = calls[-1].made
    for call in calls:
        if isinstance(call.module, nn.Linear) and call.made is logits and call.read.ndim == 2 and call.module.bias is not None:
            return call.name
    raise KdbenchError(
        f"{name} gives {_told(logits)} that no linear layer with a bias made, and methods read that layer as its classifier. "
        "Choose another network."
    )


def _told(value: object) -> str:
    return "x".join(map(str, ("B", *value.shape[1:]))) if isinstance(value, Tensor) else f"a {type(value).__name__}"
