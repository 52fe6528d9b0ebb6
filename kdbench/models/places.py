"""How what modules give becomes maps, where shapes alone do not tell.

Tokens may stand in another order than row by row, and a cube can be read in two ways. A network of timm that gives maps itself is
asked for those of numbered tokens. Any other is shown images in which a patch is changed. Tokens must change most just there, or a
class token among them would pass for one of the grid; the readings of a cube, there or beside it, as convolutions look around. What
can be read in one way only is refused where nothing changes there at all.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.models.recorded import Point, first_tensor
from kdbench.streams import generator

PATCHES = 6
"""How many images are shown, each with one patch changed."""

FINEST = 16
"""The finest grid of which patches are cells, in cells a side."""

Readings = Mapping[str, Sequence[Point]]
"""By module the points that its output may be, at least one."""

SEEN = 0.1
"""Share of the greatest change from which on a change counts as one."""

_Patch = tuple[int, int, int]
"""Row and column of a square of pixels, and its side."""


def asked(body: nn.Module, readings: Readings, images: Tensor) -> dict[str, Point]:
    """How the outputs of modules become maps, as a network of timm knows; without the modules of which it says nothing.

    Args:
        body: a network on the meta device, in evaluation mode.
        readings: what its modules' outputs may be on these images.
        images: (B, C, S, S), on the meta device.
    """
    features = [entry["module"] for entry in getattr(body, "feature_info", ())]
    points = {name: _asked(body, features.index(name), readings[name], images) for name in readings if name in features}
    return {name: point for name, point in points.items() if point}


def _asked(body: Any, index: int, points: Sequence[Point], images: Tensor) -> Point | None:
    """Of timm's list of features the one of this index: its module gives numbers in order, and the network makes maps of them."""
    given: list[Tensor] = []

    def number(module: nn.Module, args: Any, output: Any) -> Any:
        made = first_tensor(output)
        given.append(torch.arange(made.numel(), dtype=torch.float64).view(made.shape))
        return given[0] if made is output else type(output)((given[0], *output[1:]))

    handle = body.get_submodule(points[0].module).register_forward_hook(number)
    try:
        (maps,) = body.forward_intermediates(images, indices=[index], stop_early=True, intermediates_only=True)
    except Exception:  # it makes none, or goes on to compute with what it was given
        return None
    finally:
        handle.remove()
    if maps.is_meta:
        return None
    in_order = [point for point in points if torch.equal(point.maps(given[0]), maps)]
    if in_order or points[0].layout != "tokens":
        return next(iter(in_order), None)
    order = maps[0, 0].flatten().long() // given[0].shape[2]
    point = Point(points[0].module, "tokens", order=tuple(order.tolist()))
    return point if torch.equal(point.maps(given[0][:, order]), maps) else None


@contextmanager
def _heard(body: nn.Module, names: Iterable[str], hear: Callable[[str, Tensor], None]) -> Iterator[None]:
    """What each of the modules gives is handed to `hear`, after its name."""

    def listener(name: str) -> Callable[..., None]:
        return lambda module, args, output: hear(name, first_tensor(output))

    handles = [body.get_submodule(name).register_forward_hook(listener(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def tried(body: nn.Module, readings: Readings, *, image_shape: tuple[int, int, int]) -> dict[str, Point]:
    """How the outputs of modules become maps, as changes of an image show; without the modules of which that cannot be told.

    Args:
        body: a network on the CPU, with numbers, in evaluation mode.
        readings: what its modules' outputs may be on these images.
        image_shape: (C, S, S).
    """
    size, draws = image_shape[1], generator(0, "places")
    image = torch.randn(1, *image_shape, generator=draws)
    before: dict[str, Tensor] = {}
    with _heard(body, readings, before.__setitem__):
        try:
            body(image)
        except Exception:  # it computes elsewhere alone, where it may be right
            return {name: points[0] for name, points in readings.items() if _read_in_one_way(points)}
    sides = {readings[name][0].maps(made).shape[2] for name, made in before.items()} - {1}
    patches = _patches(size, min(sides, default=2), draws)
    changed = image.repeat(len(patches), 1, 1, 1)
    for one, (row, column, side) in zip(changed, patches, strict=True):
        one[:, row : row + side, column : column + side] = 3 * torch.randn(len(one), side, side, generator=draws)
    found: dict[str, Point] = {}

    def judge(name: str, after: Tensor) -> None:
        points = readings[name]
        sure = _read_in_one_way(points)
        scores = {}
        for point in points:
            change = point.maps(after) - point.maps(before[name])
            shares = _shares(change, patches, size, margin=0 if point.layout == "tokens" else 1)
            if sum(share >= (SEEN if sure else 1) for share in shares) > len(shares) / 2 or (sure and not shares):
                scores[point] = sum(shares)
        if scores:
            found[name] = max(scores, key=scores.__getitem__)

    with _heard(body, readings, judge):
        body(changed)
    return found


def _read_in_one_way(points: Sequence[Point]) -> bool:
    return len(points) == 1 and points[0].layout != "tokens"


def _patches(size: int, grid: int, draws: torch.Generator) -> list[_Patch]:
    """Some cells of a grid over images of `size` pixels squared: of each the first half, in which it is seen most."""
    grid = min(grid, FINEST)
    cells = torch.randperm(grid**2, generator=draws)[:PATCHES].tolist()
    return [(cell // grid * size // grid, cell % grid * size // grid, max(1, size // (2 * grid))) for cell in cells]


def _shares(change: Tensor, patches: Sequence[_Patch], size: int, *, margin: int) -> list[float]:
    """What share of the greatest change of maps (patches, C, S, S) is where each patch is, or at most `margin` cells beside it.

    A patch that changes nothing is left out.
    """
    strength = change.double().norm(dim=1)
    cells = strength.shape[1]
    found = []
    for places, (row, column, side) in zip(strength, patches, strict=True):
        rows, columns = (
            slice(max(start * cells // size - margin, 0), (start + side - 1) * cells // size + margin + 1)
            for start in (row, column)
        )
        if 0 < places.max() < inf:
            found.append(float(places[rows, columns].max() / places.max()))
    return found
