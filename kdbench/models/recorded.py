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

BATCH = 2
"""Of the recorded pass: not 1, so that no dimension of a map is taken for the batch."""

MOST_EXTRA_TOKENS = 5
"""Class and register tokens before the square grid of a transformer; with more, tokens are taken to form no square."""


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
