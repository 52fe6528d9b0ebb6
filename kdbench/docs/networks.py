"""The page of networks: those that ship, and how those of other libraries are named."""

from pathlib import Path

from kdbench.catalogue.model import describe_model
from kdbench.docs.markdown import code, page, table
from kdbench.models import MODELS
from kdbench.suite.imports import is_core

INTRODUCTION = """\
A suite names a network by its name alone, or as `{model: NAME, ...}`: see [the keys of a network](suite-keys.md#network).
`kdbench list models` lists those that ship, and `kdbench show model NAME` shows where one can be read, and its size.

Parameters and multiply-accumulates (in millions) are for images of 3x32x32 and 10 classes. A group is a run of layers whose maps
have one size; the table gives the channels, the height and the width of the maps after each."""

POINTS = """\
## Which points a network has

Methods read networks at these points. `kdbench show model NAME` shows what a network has. A method says what it misses before any
training."""

BY_KIND = (
    (
        "those in the table",
        "stem; maps of each group, pre-activations, and maps before the norm that follows (`raw`); pooled vector, and the "
        "maps of which it is the mean (`pooled_maps`); logits; batch norms of the groups in all but `shufflenetv2`",
    ),
    (
        "convolutional networks of torchvision and timm",
        "the same, where the modules show it: DenseNets and ShuffleNets have no pre-activations",
    ),
    (
        "transformers whose classifier reads a class token (ViT, DeiT, CaiT)",
        "the same and the class token; no batch norms, and no `pooled_maps`",
    ),
    (
        "distilled transformers (DeiT, PiT)",
        "the same, the distillation token, and the logits of both heads, whose mean is the prediction; no pooled vector",
    ),
    (
        "transformers and MLPs that average their tokens (Swin, BEiT, Mixer)",
        "as transformers, without a class token; Swin has `pooled_maps`",
    ),
)

OTHERS = """\
## Families of wide residual networks

`wrn_DEPTH_WIDTH` is a wide residual network of any depth that is 6n + 4 and of any width, such as `wrn_22_2`.

## Small Swin transformers

`swin_pico` and `swin_nano` are the students of OFA-KD's benchmark, for images of 224x224. They need timm, and hooks:
`{model: swin_pico, hooks: [layers.0, layers.1, layers.2, layers.3]}`.

## torchvision and timm

`torchvision/NAME` and `timm/NAME` name any classifier of these libraries, such as `torchvision/resnet34`. timm comes with
`pip install 'kdbench[timm]'`. kdbench knows where the groups of the usual families end. For others, and for plain classifiers of
your own, `hooks` names the modules, and `kdbench show model NAME --modules` lists them. See
[your own networks](../how-to/own-networks.md) and [pretrained weights](../how-to/pretrained-weights.md)."""


def shipped_networks() -> list[str]:
    """The names of the networks that ship, in alphabetical order."""
    return [name for name in MODELS.names() if is_core(Path(MODELS.entry(name).file))]


def networks_page() -> str:
    """The page as Markdown. It builds every network, which takes some seconds."""
    heads = ["name", "parameters", "multiply-accumulates", "groups", "pooled"]
    return page(
        "Networks", INTRODUCTION, table(heads, map(row, shipped_networks())), POINTS, table(["network", "points"], BY_KIND), OTHERS
    )


def row(name: str) -> list[str]:
    """What the table says of one network."""
    described = describe_model(name, image_shape=(3, 32, 32), num_classes=10)
    shapes = {point["point"]: "x".join(map(str, point["shape"])) for point in described["points"]}
    groups = ", ".join(shape for point, shape in shapes.items() if point.startswith("group"))
    return [code(name), f"{described['params']:,}", f"{described['macs'] / 1e6:.1f}", groups, shapes["pooled"]]
