"""Methods that cannot train one student together, found when a suite is read and before any network is built."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from kdbench.method.composition import refuse_contradictions
from kdbench.method.outputs import Shapes
from kdbench.method.pair import Pair, PairError, TeacherParts
from kdbench.method.specs import build_part
from kdbench.spec.trial import CrossEntropyWeight, MethodSpec
from kdbench.streams import seeded


def contradiction(methods: Sequence[MethodSpec], ce: CrossEntropyWeight | None) -> str:
    """Why methods cannot train one student together, with the fix; empty where they can, or where only a run can tell.

    What weight a method gives the cross-entropy is known once it is built, so that each is built here, for tiny networks that
    nobody has. One that cannot be built for these is left to `kdbench.runner.preflight`.

    Args:
        methods: the parts of a composition.
        ce: what the suite says of the cross-entropy's weight.
    """
    if len(methods) < 2:
        return ""
    try:
        with seeded(0, "contradictions"):
            parts = {spec.name: build_part(spec, _tiny_pair()) for spec in methods}
    except Exception:
        return ""
    try:
        refuse_contradictions(parts, ce)
    except PairError as problem:
        return f"{problem}."
    return ""


@cache
def _tiny_pair() -> Pair:
    """Two networks that have every hook point."""
    classes, width = 4, 8
    maps = tuple((width, size, size) for size in (8, 4, 2))
    shapes = Shapes(
        logits=(classes,),
        stem=maps[0],
        features=maps,
        preactivations=maps,
        pooled=(width,),
        raw=maps,
        tokens=((width,), (width,)),
        heads=((classes,), (classes,)),
        pooled_maps=maps[-1],
    )
    norms = tuple((torch.ones(width), torch.ones(width)) for _ in maps)
    parts = TeacherParts(torch.ones(classes, width), torch.ones(classes), norms)
    return Pair(shapes, shapes, torch.arange(16 * classes) % classes, parts, image_shape=(3, 8, 8))
