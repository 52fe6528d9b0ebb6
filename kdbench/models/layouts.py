"""Other names of the same tensors: those that the programs behind most checkpoints for small images give them.

Only programs are named whose network computes the same from the same tensors. Networks that compute something else, and whose
tensors could be taken for ours, are known too, so that nobody renames them.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from kdbench.models.grouped import PostActivation
from kdbench.models.mobilenet import SECTIONS, MobileNetV2
from kdbench.models.network import Network
from kdbench.models.wrn import WideResNet

Parts = list[str]
"""Of a module's name: `groups`, `0`, `1`, `first`, `conv`."""

_KIND = {"conv": "conv", "norm": "bn"}
_PLACE = {"conv": 0, "norm": 1}
"""Of a convolution and its batch norm in a sequence, which often ends with a ReLU that has no tensors."""

_BASIC = {"first": 1, "last": 2}
_BOTTLENECK = {"first": 1, "second": 2, "last": 3}
_SHUFFLE = {"first": 1, "filter": 2, "last": 3, "left.0": 1, "left.1": 2, "right.0": 3, "right.2": 4, "right.3": 5}


def _layers(_: Network, parts: Parts, *, numbers: dict[str, int], shortcut: str = "shortcut", classifier: str = "linear") -> str:
    """`layer1.0.conv1`: groups counted from 1, convolutions and batch norms numbered within their block."""
    match parts:
        case ["stem", kind]:
            return f"{_KIND[kind]}1"
        case ["head", _, kind]:
            return f"{_KIND[kind]}2"
        case ["groups", group, block, "shortcut", kind]:
            return f"layer{int(group) + 1}.{block}.{shortcut}.{_PLACE[kind]}"
        case ["groups", group, block, *part, kind]:
            return f"layer{int(group) + 1}.{block}.{_KIND[kind]}{numbers['.'.join(part)]}"
    return classifier


def _residual_functions(_: Network, parts: Parts) -> str:
    """`conv2_x.0.residual_function.0`: groups counted from 2, blocks as sequences."""
    match parts:
        case ["stem", kind]:
            return f"conv1.{_PLACE[kind]}"
        case ["groups", group, block, "shortcut", kind]:
            return f"conv{int(group) + 2}_x.{block}.shortcut.{_PLACE[kind]}"
        case ["groups", group, block, part, kind]:
            return f"conv{int(group) + 2}_x.{block}.residual_function.{3 * (_BOTTLENECK[part] - 1) + _PLACE[kind]}"
    return "fc"


def _wide(network: WideResNet, parts: Parts) -> str:
    """`block1.layer.0.bn1`: a block begins with the batch norm with which our block before it ends."""
    blocks = len(network.groups[0])  # type: ignore[arg-type]  # a list of modules
    match parts:
        case ["stem"]:
            return "conv1"
        case ["norm"]:
            return "block1.layer.0.bn1"
        case ["groups", group, block, "norm"]:
            following = blocks * int(group) + int(block) + 1
            return f"block{following // blocks + 1}.layer.{following % blocks}.bn1" if following < 3 * blocks else "bn1"
        case ["groups", group, block, *part]:
            theirs = {"first.conv": "conv1", "first.norm": "bn2", "second": "conv2", "shortcut": "convShortcut"}
            return f"block{int(group) + 1}.layer.{block}.{theirs['.'.join(part)]}"
    return "fc"


def _blocks(_: Network, parts: Parts) -> str:
    """`block1.0`: groups as sequences of convolution, batch norm and ReLU, counted from the stem."""
    match parts:
        case ["stem", i, kind]:
            return f"block0.{3 * (int(i) // 2) + _PLACE[kind]}"
        case ["groups", group, i, *_, kind]:
            return f"block{int(group) + 1}.{3 * int(i) + _PLACE[kind]}"
    return "classifier"


_PLACES = [
    [(sum(map(len, SECTIONS[:i])) + j, k) for j, (_, _, blocks, _) in enumerate(group) for k in range(blocks)]
    for i, group in enumerate(SECTIONS)
]
"""By group and block, the section of equal blocks and the place in it."""


def _sections(_: Network, parts: Parts) -> str:
    """`blocks.1.0.conv.0`: sections of equal blocks, which are sequences."""
    match parts:
        case ["stem", kind]:
            return f"conv1.{_PLACE[kind]}"
        case ["head", kind]:
            return f"conv2.{_PLACE[kind]}"
        case ["groups", group, block, part, kind]:
            section, place = _PLACES[int(group)][int(block)]
            return f"blocks.{section}.{place}.conv.{3 * ('expand', 'filter', 'last').index(part) + _PLACE[kind]}"
    return "classifier.0"


_THIN = r"resnet(8|14|20|32|44|56|110|8x4|32x4)"
_CRD = "RepDistiller and mdistiller"
_LAYOUTS: tuple[tuple[str, type[Network], str, Callable[[Any, Parts], str]], ...] = (
    (_THIN, PostActivation, _CRD, partial(_layers, numbers=_BASIC, shortcut="downsample", classifier="fc")),
    (_THIN, PostActivation, "pytorch_resnet_cifar10", partial(_layers, numbers=_BASIC)),
    ("resnet50_cifar", PostActivation, _CRD, partial(_layers, numbers=_BOTTLENECK)),
    ("resnet50_cifar", PostActivation, "pytorch-cifar100", _residual_functions),
    (r"wrn_\d+_\d+", WideResNet, _CRD, _wide),
    (r"vgg\d+", PostActivation, _CRD, _blocks),
    ("mobilenetv2_half", MobileNetV2, _CRD, _sections),
    (r"shufflenetv[12]", PostActivation, _CRD, partial(_layers, numbers=_SHUFFLE)),
)
"""Models and their class, whose names they are, and the name of each of our modules there."""


def usual_names(model: str, network: Network) -> dict[str, dict[str, str]]:
    """Other names of the tensors of one of kdbench's own networks, by whose they are: its own name of each by theirs."""
    found = {}
    for models, kind, whose, named in _LAYOUTS:
        if re.fullmatch(models, model) and isinstance(network, kind):
            parts = ((own, *own.rpartition(".")) for own in network.state_dict())
            found[whose] = {f"{named(network, module.split('.'))}.{leaf}": own for own, module, _, leaf in parts}
    return found


@dataclass(frozen=True)
class _Trap:
    """Names of tensors of another network, which could be taken for ours.

    Attributes:
        models: ours.
        has: what some of the names are.
        description: what that network does.
        lacks: what none of the names are.
        image_size: height in pixels of the images on which it does so; None for all.
    """

    models: str
    has: str
    description: str
    lacks: str | None = None
    image_size: int | None = None


_TRAPS = (
    _Trap(r"vgg\d+", r"features\.\d+\.weight", "they are of a VGG that pools after its last group, too, which this one does not"),
    _Trap(
        r"vgg\d+",
        r"block4\.0\.weight",
        "they are of RepDistiller's VGG, which pools once more on images of 64 pixels, and this one does not",
        image_size=64,
    ),
    _Trap(
        _THIN,
        r"layer2\.0\.conv1\.weight",
        "they are of a ResNet whose shortcuts pad with zeros (option A), and the shortcuts of this one are convolutions",
        lacks=r"\.(downsample|shortcut)\.",
    ),
)


def trap(model: str, names: Iterable[str], *, image_size: int | None) -> str:
    """What another network does that has tensors of these names and could be taken for `model`; empty where none is known.

    Args:
        model: the name of one of kdbench's own networks.
        names: of the tensors.
        image_size: height of the images in pixels.
    """
    all_names = "\n".join(names)
    return next(
        (
            known.description
            for known in _TRAPS
            if re.fullmatch(known.models, model)
            and known.image_size in (None, image_size)
            and re.search(known.has, all_names)
            and not (known.lacks and re.search(known.lacks, all_names))
        ),
        "",
    )
