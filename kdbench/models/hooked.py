"""Networks of other libraries, and plain modules, as `Network`s: groups are named modules, all else is found out.

One forward pass without arithmetic, on the meta device, is recorded module by module. From it follow the stem, the pre-activations,
the batch norms before them and the classifier, and how each output becomes maps (B, C, H, W).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from math import isqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from kdbench.errors import KdbenchError, first_line
from kdbench.losses import pool_to
from kdbench.models.network import Network
from kdbench.outputs import Outputs

BATCH = 2
"""Of the recorded pass: not 1, so that no dimension of a map is taken for the batch."""

MOST_EXTRA_TOKENS = 5
"""Class and register tokens before the square grid of a transformer; with more, tokens are taken to form no square."""

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
class Point:
    """A module whose output is a hook point.

    Attributes:
        module: its name.
        layout: `maps` (B, C, H, W); `channels last` (B, H, W, C); `tokens` (B, N, C), the last N - `extra` of them a square grid,
            row by row.
        extra: how many tokens stand before the grid, such as the class token; maps leave them out.
    """

    module: str
    layout: Literal["maps", "channels last", "tokens"]
    extra: int = 0

    def maps(self, value: Tensor) -> Tensor:
        """The module's output as maps (B, C, H, W), a view of it.

        Raises:
            KdbenchError: tokens that are no square.
        """
        if self.layout == "maps":
            return value
        if self.layout == "channels last":
            return value.permute(0, 3, 1, 2)
        side = isqrt(value.shape[1] - self.extra)
        if side * side != value.shape[1] - self.extra:
            raise KdbenchError(f"the {value.shape[1] - self.extra} tokens of '{self.module}' form no square; give square images.")
        batch, _, channels = value.shape
        return value[:, self.extra :].transpose(1, 2).reshape(batch, channels, side, side)


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


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module: what it read first and what it made, with the node and the version that these had then."""

    name: str
    module: nn.Module
    read: Any
    made: Any
    node: Node | None
    versions: tuple[int, ...]

    @property
    def overwritten(self) -> bool:
        """Whether something after the call changed in place what it read or made."""
        return self.versions != _versions(self.read, self.made)

    @property
    def point(self) -> Point | None:
        """How its output becomes maps; None where it does not."""
        if not isinstance(self.made, Tensor):
            return None
        shape = tuple(self.made.shape)
        if len(shape) == 4 and shape[2] == shape[3]:
            return Point(self.name, "maps")
        if len(shape) == 4 and shape[1] == shape[2]:
            return Point(self.name, "channels last")
        if len(shape) == 3 and (extra := shape[1] - isqrt(shape[1]) ** 2) <= MOST_EXTRA_TOKENS:
            return Point(self.name, "tokens", extra)
        return None


class Hooked(Network):
    """A classifier of any library with hooks on its named modules.

    Args:
        body: the classifier, from images to logits (B, K), as `prepare` leaves it.
        wiring: what `wire` found.

    Its state is the body's under the prefix `body.`; nothing of a forward pass stays in it.
    """

    def __init__(self, body: nn.Module, wiring: Wiring) -> None:
        super().__init__()
        self.body = body
        self.wiring = wiring

    @property
    def classifier(self) -> nn.Linear:  # type: ignore[override]  # not an attribute, or its weights would have two names
        return self.body.get_submodule(self.wiring.classifier)  # type: ignore[return-value]

    def forward(self, images: Tensor) -> Outputs:
        stem, groups, activations = self.wiring.stem, self.wiring.groups, self.wiring.activations
        reading = [self.wiring.classifier, *filter(None, activations)]
        made: dict[str, Tensor] = {}
        read: dict[str, Tensor] = {}
        handles = [
            *(self._module(name).register_forward_hook(_keep_made(made, name)) for name in {p.module for p in (stem, *groups)}),
            *(self._module(name).register_forward_pre_hook(_keep_read(read, name)) for name in reading),
        ]
        try:
            logits = self.body(images)
        finally:
            for handle in handles:
                handle.remove()
        features = tuple(point.maps(made[point.module]) for point in groups)
        before = (
            point.maps(read[name]) if name else feature
            for name, point, feature in zip(activations, groups, features, strict=False)  # of none, or of all groups
        )
        return Outputs(logits, stem.maps(made[stem.module]), features, tuple(before), read[self.wiring.classifier])

    def _module(self, name: str) -> nn.Module:
        return self.body.get_submodule(name)

    def group_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return tuple(self._module(name) for name in self.wiring.norms)  # type: ignore[misc]  # `wire` saw that they are


def _keep_made(made: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        made[name] = output

    return hook


def _keep_read(read: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        read[name] = args[0]

    return hook


def prepare(body: nn.Module) -> nn.Module:
    """The body, changed so that it can be hooked and computes the same numbers.

    Activations and dropout work out of place, because a pre-activation that is overwritten is none; average pooling to a fixed size
    is one whose backward pass is deterministic on CUDA.
    """
    for module in list(body.modules()):
        if "inplace" in vars(module):
            module.inplace = False  # type: ignore[assignment]
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):  # to one pixel it is a mean
                setattr(module, name, AveragePooling(child.output_size))
    return body


class AveragePooling(nn.Module):
    """Adaptive average pooling of maps to a fixed size; None keeps a side as it is."""

    def __init__(self, size: int | tuple[int | None, ...] | None) -> None:
        super().__init__()
        self.size = size if isinstance(size, tuple) else (size, size)

    def forward(self, maps: Tensor) -> Tensor:
        height, width = self.size
        return pool_to(maps, (height or maps.shape[2], width or maps.shape[3]))


@contextmanager
def _recording(body: nn.Module) -> Iterator[list[Call]]:
    """The calls of the body's modules, each added when it ends."""
    calls: list[Call] = []

    def recorder(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            read = args[0] if args else None
            node = output.grad_fn if isinstance(output, Tensor) else None
            calls.append(Call(name, module, read, output, node, _versions(read, output)))

        return hook

    handles = [module.register_forward_hook(recorder(name)) for name, module in body.named_modules()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _versions(*values: object) -> tuple[int, ...]:
    return tuple(value._version for value in values if isinstance(value, Tensor))


def record(name: str, body: nn.Module, *, in_channels: int, sizes: Sequence[int]) -> list[Call]:
    """Every call of a module in a forward pass of `body` on square images, in evaluation mode, in the order in which they end.

    The last call is the body's own. `body` stays as it is.

    Args:
        name: of the model, for messages.
        body: a network.
        in_channels: of its images.
        sizes: heights of images in pixels; the pass is that of the first one that it takes.

    Raises:
        KdbenchError: it takes none of them.
    """
    copies: dict[int, Any] = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in body.parameters()}
    copies |= {id(b): b.to("meta") for b in body.buffers()}
    twin = deepcopy(body, copies).eval()
    refusals: list[str] = []
    for size in sizes:
        with _recording(twin) as calls, torch.enable_grad():
            try:
                twin(torch.empty(BATCH, in_channels, size, size, device="meta"))
            except Exception as reason:  # whatever a foreign network raises
                refusals.append(f"{in_channels}x{size}x{size} ({first_line(reason)})")
            else:
                return calls
    raise KdbenchError(f"{name} cannot take images of {' or '.join(refusals)}. Give another size, or choose another network.")


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
