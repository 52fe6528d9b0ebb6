"""What `kdbench show model` tells of a network: its hook points, its size, and the modules that could be hooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from kdbench.catalogue.text import Value, aligned
from kdbench.errors import KdbenchError
from kdbench.models import Network, blank_model, placed
from kdbench.models.bare import AS_A_MODULE, read_before
from kdbench.models.construct import constructed
from kdbench.models.foreign import is_published
from kdbench.models.grouped import Grouped
from kdbench.models.hooked import Hooked, prepare
from kdbench.models.measure import macs, parameters, shapes_of
from kdbench.models.recorded import Point, record
from kdbench.models.wiring import candidates
from kdbench.spec.trial import RAW
from kdbench.wording import counted

Shape = tuple[int, int, int]

WHY_LACKING = {
    "stem": "none of its modules gives maps",
    "features": "none of its modules gives maps",
    "pooled_maps": "its classifier reads anything else than the plain mean of maps that a module gives",
    "pooled": "its logits do not come from a linear layer of one vector",
}
"""By the hook points that a network may lack, but for pre-activations, of which the table tells."""


def usual_shape(name: str) -> Shape:
    """Images (C, H, W) that a network is mostly trained on: torchvision's and timm's on ImageNet, our own on CIFAR."""
    return (3, 224, 224) if is_published(name) else (3, 32, 32)


def describe_model(name: str, *, image_shape: Shape, num_classes: int, hooks: Sequence[str] = ()) -> Value:
    """A network's `name`, `hooks`, `input`, `classes`, `points`, `params` and `macs`, for images (C, H, W).

    A point has `point` (such as `group 1`), `shape`, and, in a network of another library, the `module` that gives it and the
    `layout` of maps; a group has `preactivation` and `norm` too: the shape of the one and the weights of the other, or the modules;
    null where there is none. `lacking` says why there are no points of some kind, and `followed_by` names by module the activation
    that `forward` itself applies directly to what it gives, so that no hook sees it.

    Raises:
        KdbenchError: nothing of that name, hooks that it lacks, or images that it cannot take.
    """
    network = blank_model(name, num_classes=num_classes, in_channels=image_shape[0], hooks=hooks, image_size=image_shape[1])
    found = shapes_of(network, name=name, image_shape=image_shape)
    wiring = network.wiring if isinstance(network, Hooked) else None
    norms = len(network.group_norms())
    groups = [
        {
            "point": f"group {i + 1}",
            "shape": shape,
            **_source(wiring.groups[i] if wiring else None),
            "preactivation": bool(found.preactivations) and (wiring.activations[i] or "the same maps" if wiring else True),
            "norm": norms > 0 and (wiring.norms[i] if wiring else True),
        }
        for i, shape in enumerate(found.features)
    ]
    stem = {"point": "stem", "shape": found.stem, **_source(wiring.stem if wiring else None)}
    heads = wiring.heads if wiring else None
    pooled_maps = {"point": "pooled_maps", "shape": found.pooled_maps, **_source(heads.pooled_maps if heads else None)}
    pooled = {"point": "pooled", "shape": found.pooled, "module": f"input of {heads.classifier}" if heads else None}
    tokens = [
        {"point": f"{kind} token", "shape": shape, "module": f"input of {heads.names[i]}" if heads else None}
        for i, (kind, shape) in enumerate(zip(("class", "distillation"), found.tokens, strict=False))
    ]
    logits = {"point": "logits", "shape": found.logits, "module": ", ".join(heads.names) if heads else None}
    lacking = {point: WHY_LACKING[point] for point in found.lacking() if point in WHY_LACKING}
    if "pooled_maps" in lacking and heads and heads.bare:
        why = f"its classifier reads the mean of what {heads.bare} gives, which `forward` applies itself: no hook sees that"
        lacking["pooled_maps"] = f"{why}. {AS_A_MODULE}"
    return {
        "name": name,
        "hooks": tuple(hooks),
        "input": image_shape,
        "classes": num_classes,
        "points": [point for point in (stem, *groups, *tokens, pooled_maps, pooled, logits) if point["point"] not in lacking],
        "lacking": lacking,
        "followed_by": dict(wiring.followed_by) if wiring else {},
        "params": parameters(network),
        "macs": macs(network, image_shape),
    }


def _source(point: Point | None) -> Value:
    return {"module": point.module if point else None, "layout": point.description if point else None}


def modules_of(name: str, *, image_shape: Shape, num_classes: int) -> list[Value]:
    """The modules of a network whose outputs become maps for sure: `module` and `shape` (C, H, W), in the order of use.

    Raises:
        KdbenchError: nothing of that name, images that are not square, or such that it cannot take.
    """
    channels, height, width = image_shape
    if height != width:
        raise KdbenchError(
            f"--modules tells maps by their square shape, and images of {_as_text(image_shape)} are not square. Give an --input of "
            "equal height and width."
        )
    with torch.device("meta"):
        body = prepare(constructed(name, num_classes=num_classes, in_channels=channels))
    calls = record(name, body, in_channels=channels, sizes=(height,))
    able = [call for call in candidates(calls) if not isinstance(body, Grouped) or call.name in body.blocks]
    own = isinstance(body, Network)
    points = {call.name: call.readings[0] for call in able} if own else placed(name, calls, {call.name for call in able})
    return [
        {"module": call.name, "shape": tuple(points[call.name].maps(call.made).shape[1:])} for call in able if call.name in points
    ]


def model_as_text(described: Value) -> str:
    """The description for a terminal."""
    points = described["points"]
    columns = ["point", "shape", *(["module"] if points[0]["module"] else []), "preactivation", "norm"]
    hooks = described["hooks"]
    chosen = [f"groups end with {', '.join(hooks)}"] if hooks else []
    if hooks == RAW:
        chosen = ["read raw: groups are the maps before the norm and the activation that follow them"]
    head = {"preactivation": "pre-activation", "norm": "batch norm before it"}
    rows = [[head.get(column, column) for column in columns]]
    rows += [[_cell(column, point) for column in columns] for point in points]
    return "\n".join(
        [
            f"{described['name']}, images of {_as_text(described['input'])}, {counted(described['classes'], 'class')}",
            *chosen,
            *aligned(rows),
            *(f"no {point}: {why}" for point, why in described["lacking"].items()),
            *([read_before(found)] if (found := described["followed_by"]) else []),
            f"{described['params']:,} parameters, {described['macs'] / 1e6:,.2f} M multiply-accumulates",
        ]
    )


def modules_as_text(name: str, modules: Iterable[Value], *, image_shape: Shape) -> str:
    """The images, one line for each module of a network, and one that says so where they cannot be hooks."""
    with torch.device("meta"):
        model = constructed(name, in_channels=3)
    fixed = isinstance(model, Network) and not isinstance(model, Grouped)
    lines = aligned([["module", "shape"], *([entry["module"], _as_text(entry["shape"])] for entry in modules)])
    title = f"{name}, images of {_as_text(image_shape)}"
    return "\n".join([title, *lines, *([f"None of them can be a hook: {name} has its own groups."] if fixed else [])])


def _cell(column: str, point: Value) -> str:
    value = point.get(column, "")
    if isinstance(value, bool):
        return "yes" if value else "none"
    if column == "module" and point.get("layout", "maps") != "maps":
        return f"{value} ({point['layout']})"
    return _as_text(value) if isinstance(value, tuple) else str(value)


def _as_text(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
