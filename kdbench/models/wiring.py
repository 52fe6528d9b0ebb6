"""From the recorded calls of a network's modules to its hook points: stem, groups, pre-activations, batch norms and heads."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from torch import Tensor, nn
from torch.autograd.graph import Node

from kdbench.errors import KdbenchError, listed
from kdbench.models.bare import followed_by
from kdbench.models.foreign import is_published
from kdbench.models.heads import Heads, find_heads
from kdbench.models.network import modules_command
from kdbench.models.recorded import BATCH, CLASSES, Call, Point

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
PROBABILITIES = {"SoftmaxBackward0", "SigmoidBackward0"}
"""What autograd calls the operations that end a network which gives no logits."""
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
        heads: the layers that give the logits, and what they read.
        followed_by: by module of the stem and the groups, the activation that `forward` itself applies directly to what it gives.
    """

    stem: Point | None
    groups: tuple[Point, ...]
    activations: tuple[str | None, ...]
    norms: tuple[str, ...]
    heads: Heads
    followed_by: Mapping[str, str]

    @property
    def modules(self) -> set[str]:
        """Those that give the stem and the groups."""
        return {point.module for point in (self.stem, *self.groups) if point}

    def placed(self, name: str, tried: Collection[str], found: Mapping[str, Point]) -> "Wiring":
        """As it is, with the outputs of some modules read as was found out; a stem of which that was not is the first group.

        Args:
            name: of the model, for messages.
            tried: names of modules.
            found: how their outputs become maps.

        Raises:
            KdbenchError: it was not found out for a group.
        """
        for point in self.groups:
            if point.module in tried and point.module not in found:
                raise KdbenchError(
                    f"{name}, hooks: nothing tells where the places of an image are in what '{point.module}' gives: its tokens or "
                    f"axes may be in an unusual order. Name other modules as `hooks`; {_see(name)}"
                )
        groups = tuple(found.get(point.module, point) for point in self.groups)
        stem = self.stem and (found.get(self.stem.module) or (groups[0] if self.stem.module in tried else self.stem))
        return replace(self, stem=stem, groups=groups)


def wire(name: str, calls: Sequence[Call], groups: Sequence[str], *, usual: Callable[[], Sequence[str]] = tuple) -> Wiring:
    """Find the hook points of a network whose groups end with the modules `groups`.

    Args:
        name: of the model, for messages.
        calls: what `record` gives.
        groups: names of modules, shallow to deep.
        usual: gives those that are taken where none are named, if any; for messages.

    Raises:
        KdbenchError: no such module, one that gives no maps or is called several times, or a wrong order.
    """
    last = {call.name: call for call in calls}
    if unknown := [group for group in groups if not group or group not in last]:
        raise KdbenchError(f"{name}, hooks: there is no module '{unknown[0]}'. {_existing(name, calls, unknown[0], usual())}")
    times = Counter(call.name for call in calls)
    ends = [_group(name, last[group], times[group]) for group in groups]
    if (order := [calls.index(end) for end in ends]) != sorted(set(order)):
        raise KdbenchError(f"{name}, hooks: {', '.join(groups)} do not follow each other. Name each once, from shallow to deep.")
    points = tuple(point for end in ends if (point := end.point))
    befores = [_before(end, last) for end in ends]
    known = [before for before in befores if before]
    norms = [_norm(before, calls) for before in known]
    stem = _stem(calls) or next(iter(points), None)
    return Wiring(
        stem=stem,
        groups=points,
        activations=tuple(before.activation for before in known) if len(known) == len(points) else (),
        norms=tuple(filter(None, norms)) if len(known) == len(points) and all(norms) else (),
        heads=find_heads(calls),
        followed_by=followed_by([*([last[stem.module]] if stem else []), *ends], calls),
    )


def candidates(calls: Sequence[Call]) -> list[Call]:
    """Those of modules that can be hooks by the shape of what they give, in the order in which they end."""
    times = Counter(call.name for call in calls)
    return [call for call in calls[:-1] if call.point and times[call.name] == 1 and not _lost(call)]


def _existing(name: str, calls: Sequence[Call], unknown: str, usual: Sequence[str]) -> str:
    """A sentence on what can be a hook: the names nearest to `unknown`, else the usual ones, else the first of all."""
    able = [call.name for call in candidates(calls)]
    if close := get_close_matches(unknown, able, n=4, cutoff=0.3):
        text = f"The nearest: {', '.join(close)}"
    elif usual:
        text = f"Without `hooks` it has {', '.join(usual)}"
    else:
        text = f"It has {listed(able, most=SHOWN) or 'none that gives maps'}"
    return f"{text}; {_see(name)}"


def _see(name: str) -> str:
    return f"{modules_command(name)} lists those that can be hooks."


def _group(name: str, call: Call, times: int) -> Call:
    group, see = call.name, _see(name)
    if times > 1:
        raise KdbenchError(f"{name}, hooks: '{group}' is called {times} times in a pass. Name a module that is called once; {see}")
    if call.point is None:
        raise KdbenchError(f"{name}, hooks: '{group}' gives {_text(call.made)}, neither maps nor a square of tokens; {see}")
    if _lost(call):
        raise KdbenchError(f"{name}, hooks: what '{group}' gives is overwritten by the operation after it; {see}")
    return call


def _lost(call: Call) -> bool:
    """Whether something after the call changed in place what it made."""
    return bool(call.made._version != call.versions[-1])


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
        activates = isinstance(call.module, ACTIVATIONS) and call.made is end.made and isinstance(call.read, Tensor)
        if activates and not call.overwritten and call.read.grad_fn:
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


def refuse_other_outputs(name: str, calls: Sequence[Call]) -> None:
    """See that a network gives logits and nothing else.

    Raises:
        KdbenchError: it gives something else, or probabilities.
    """
    logits = calls[-1].made
    if not isinstance(logits, Tensor) or logits.shape != (BATCH, CLASSES):
        fix = "Choose another network" if is_published(name) else "End it with `num_classes` outputs, and give them alone"
        raise KdbenchError(f"{name} gives {_text(logits)} for {CLASSES} classes, and not a tensor with one logit for each. {fix}.")
    if calls[-1].node and calls[-1].node.name() in PROBABILITIES:
        raise KdbenchError(f"{name} gives probabilities, and losses take logits. Leave its last softmax or sigmoid out.")


def _text(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    batch, *rest = value.shape
    return "x".join(map(str, ("B" if batch == BATCH else batch, *rest)))
