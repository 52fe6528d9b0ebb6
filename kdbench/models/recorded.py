"""A forward pass without arithmetic, recorded module by module, and how what each module gives becomes maps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from kdbench.errors import KdbenchError, first_line
from kdbench.streams import seeded

BATCH = 2
"""Of the recorded pass: not 1, so that no dimension of a map is taken for the batch."""

CLASSES = 10
"""Of a network that is recorded."""

MOST_EXTRA_TOKENS = 16
"""Class and register tokens before the square grid of a transformer; with more, tokens are taken to form no square."""

Layout = Literal["maps", "channels last", "tokens"]


@dataclass(frozen=True)
class Point:
    """A module whose output is a hook point.

    Attributes:
        module: its name.
        layout: `maps` (B, C, H, W); `channels last` (B, H, W, C); `tokens` (B, N, C), the last N - `extra` of them a square grid,
            row by row.
        extra: how many tokens stand before the grid, such as the class token; maps leave them out.
        order: of tokens that do not lie row by row, the token of each place of the grid, row by row; empty where they do.
    """

    module: str
    layout: Layout
    extra: int = 0
    order: tuple[int, ...] = ()

    @property
    def description(self) -> str:
        """The layout for a reader, such as `tokens after 1 more`."""
        if self.order:
            return "tokens, put in order"
        return f"{self.layout} after {self.extra} more" if self.extra else self.layout

    def maps(self, value: Tensor) -> Tensor:
        """The module's output as maps (B, C, H, W), a view of it; tokens of an `order` are given in that order, and no others.

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


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module: what it read first and what it made, with the node and the version that these had then.

    Of a module that gives several things, `made` is the first; of the network itself it is all.
    """

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
    def readings(self) -> list[Point]:
        """All ways in which its output may become maps by its shape, the likeliest first; none where its first axis is no batch."""
        if not isinstance(self.made, Tensor) or self.made.shape[:1] != (BATCH,):
            return []
        shape = tuple(self.made.shape)
        if len(shape) == 4:
            maps = [Point(self.name, "maps")] if shape[2] == shape[3] else []
            return maps + ([Point(self.name, "channels last")] if shape[1] == shape[2] else [])
        if len(shape) == 3:
            extras = [shape[1] - side**2 for side in range(isqrt(shape[1]), 1, -1)] or [shape[1] - 1]
            return [Point(self.name, "tokens", extra) for extra in extras if extra <= MOST_EXTRA_TOKENS]
        return []

    @property
    def point(self) -> Point | None:
        """How its output becomes maps, as its shape lets suppose; None where it does not."""
        return next(iter(self.readings), None)


@contextmanager
def _recording(body: nn.Module) -> Iterator[list[Call]]:
    """The calls of the body's modules, each added when it ends."""
    calls: list[Call] = []

    def recorder(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            read, made = args[0] if args else None, first_tensor(output) if name else output
            node = made.grad_fn if isinstance(made, Tensor) else None
            calls.append(Call(name, module, read, made, node, _versions(read, made)))

        return hook

    handles = [module.register_forward_hook(recorder(name)) for name, module in body.named_modules()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(output: Any) -> Any:
    """What a module gives; of several things the first, if that is a tensor, as blocks do that pass on what they know beside it."""
    return output[0] if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor) else output


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
        with _recording(twin) as calls, torch.enable_grad(), seeded(0, "record"):  # a network may leave out layers at random
            try:
                twin(torch.empty(BATCH, in_channels, size, size, device="meta"))
            except Exception as reason:  # whatever a foreign network raises
                refusals.append(f"{in_channels}x{size}x{size} ({first_line(reason)})")
            else:
                return calls
    raise images_refused(name, body, refusals, in_channels=in_channels)


def images_refused(name: str, body: nn.Module, refusals: Sequence[str], *, in_channels: int) -> KdbenchError:
    """What tells that a network takes none of these sizes, each with its reason; another size does not mend the channels."""
    first = next((module for module in body.modules() if isinstance(module, nn.Conv2d)), None)
    if first and first.in_channels != in_channels:
        fix = f"Build its first layer with the `in_channels` that it is given, here {in_channels}"
        return KdbenchError(f"{name} cannot take images of {refusals[0]}. {fix}.")
    return KdbenchError(f"{name} cannot take images of {' or '.join(refusals)}. Give another size, or choose another network.")
