"""The classifiers of torchvision and timm by their own names, such as `torchvision/resnet34`, and where their groups end.

A group ends with the last map before the resolution halves; the four deepest groups are taken, the head of mobile networks is none.
Transformers of one resolution are cut into four groups of equal depth.
"""

import importlib
import re
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from kdbench.errors import KdbenchError, nearest
from kdbench.models.network import MODELS, Factory
from kdbench.models.recorded import Call

GROUPS = 4
"""How many of a network's groups are taken at the most, counted from the deepest."""

UNKNOWN_SIZES = (224, 32)
"""Heights of images in pixels that are tried with a network of which nothing is known, after that of its images."""

_NAMED: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(resnet|resnext|wide_resnet)\w+", ("layer1", "layer2", "layer3", "layer4")),
    (r"regnet_\w+", ("trunk_output.block1", "trunk_output.block2", "trunk_output.block3", "trunk_output.block4")),
    (r"shufflenet_v2\w+", ("stage2", "stage3", "stage4")),
    (r"googlenet", ("conv3", "inception3b", "inception4e", "inception5b")),
    (r"inception_v3", ("Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")),
    (r"maxvit_t", ("blocks.0", "blocks.1", "blocks.2", "blocks.3")),
)
AUXILIARY = ("googlenet", "inception_v3")
"""Networks of torchvision that would give a tuple in training, with logits of classifiers halfway, which are left out. Published
weights of theirs are for images that they normalise anew, so that they always do."""

_IN_FEATURES = r"(alexnet|squeezenet|vgg|densenet|mobilenet_v|efficientnet|convnext|swin)\w*"
"""Families of torchvision whose body is one sequence, `features`."""


def torchvision_models() -> ModuleType:
    """The module `torchvision.models`, which takes seconds to import."""
    return importlib.import_module("torchvision.models")


def timm() -> Any:
    """The module `timm`.

    Raises:
        KdbenchError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as problem:
        raise KdbenchError(f"timm/ networks need {problem.name}. Install it: pip install 'kdbench[timm]'.") from None


def _torchvision(match: re.Match[str]) -> Factory:
    models = torchvision_models()
    name, known = match[1], models.list_models(module=models)
    if name not in known:
        raise KdbenchError(
            f"unknown model 'torchvision/{name}'.{_nearest('torchvision', name, known)} "
            "`torchvision.models.list_models()` gives all."
        )

    def factory(*, num_classes: int, in_channels: int) -> nn.Module:
        if in_channels != 3:
            raise KdbenchError(
                f"torchvision/{name} takes images of 3 channels, and these have {in_channels}. "
                "Give images of 3 channels, or take a timm/ network."
            )
        options = {"aux_logits": False, "transform_input": True, "init_weights": True} if name in AUXILIARY else {}
        network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
        return network

    return factory


def _timm(match: re.Match[str]) -> Factory:
    library, name = timm(), match[1]
    if "." in name:
        model, tag = name.split(".", 1)
        raise KdbenchError(f"'timm/{name}' names weights. Write them apart: {{model: timm/{model}, weights: {tag}}}.")
    if not library.is_model(name):
        known = library.list_models()
        raise KdbenchError(f"unknown model 'timm/{name}'.{_nearest('timm', name, known)} `timm.list_models()` gives all.")

    def factory(*, num_classes: int, in_channels: int) -> nn.Module:
        network: nn.Module = library.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels)
        return network

    return factory


def _nearest(library: str, name: str, known: Iterable[str]) -> str:
    return nearest(f"{library}/{name}", (f"{library}/{other}" for other in known))


MODELS.register_family(r"torchvision/(\w+)", _torchvision)
MODELS.register_family(r"timm/([\w.-]+)", _timm)


def is_published(name: str) -> bool:
    """Whether the network is torchvision's or timm's, by its name."""
    return name.startswith(("torchvision/", "timm/"))


def in_doubt(name: str, call: Call) -> bool:
    """Whether it is to be tried out how the output of one of a network's usual modules becomes maps."""
    layouts = {point.layout for point in call.readings}
    return len(layouts) > 1 or (name.startswith("timm/") and "tokens" in layouts)


def sizes(name: str, body: nn.Module, image_size: int | None) -> tuple[int, ...]:
    """Heights in pixels of square images that the network `name` is made for, or may be: that of its images, and the usual ones."""
    if name.startswith("timm/"):
        return (vars(body)["default_cfg"]["input_size"][1],)
    if name.startswith("torchvision/"):
        return (224,)
    return (*([image_size] if image_size else []), *UNKNOWN_SIZES)


def usual_groups(name: str, body: nn.Module, calls: Sequence[Call]) -> tuple[str, ...]:
    """The modules with which the groups of the network `name` end, shallow to deep; empty where its family is not known."""
    if name.startswith("timm/"):
        return _by_feature_info(body, calls)
    family = name.removeprefix("torchvision/")
    if family == name:
        return ()
    if re.fullmatch(r"vit_\w+", family):
        return _evenly([f"encoder.layers.{child}" for child, _ in body.get_submodule("encoder.layers").named_children()])
    if re.fullmatch(_IN_FEATURES, family):
        children = [(f"features.{child}", module) for child, module in body.get_submodule("features").named_children()]
        if type(children[-1][1]).__name__ == "Conv2dNormActivation":
            children.pop()  # the head, a 1x1 convolution to the width that is pooled
        return _by_resolution([child for child, module in children if not isinstance(module, nn.MaxPool2d)], calls)
    return next((groups for pattern, groups in _NAMED if re.fullmatch(pattern, family)), ())


def _by_feature_info(body: nn.Module, calls: Sequence[Call]) -> tuple[str, ...]:
    """From timm's own list of the modules that give features, and how far each is reduced."""
    info: Sequence[dict[str, Any]] = getattr(body, "feature_info", ())
    ended = {call.name: call.module for call in calls}
    if any(entry["module"] not in ended for entry in info):
        return ()
    entries = [(entry["module"], entry["reduction"]) for entry in info if not isinstance(ended[entry["module"]], nn.MaxPool2d)]
    ends = {reduction: module for module, reduction in entries}
    if len(ends) == 1:
        return _evenly([module for module, _ in entries])
    return tuple(dict.fromkeys(ends.values()))[-GROUPS:]


def _by_resolution(modules: Sequence[str], calls: Sequence[Call]) -> tuple[str, ...]:
    """The last of the modules at each height of maps."""
    ends: dict[int, str] = {}
    for call in calls:
        if call.name in modules and (point := call.point) and not call.overwritten:
            ends[point.maps(call.made).shape[2]] = call.name
    return tuple(ends.values())[-GROUPS:]


def _evenly(blocks: Sequence[str]) -> tuple[str, ...]:
    """The last of each of four runs of equal length; all of fewer than four."""
    count = min(GROUPS, len(blocks))
    return tuple(blocks[len(blocks) * (i + 1) // count - 1] for i in range(count))
