"""VGG networks with batch norm for small images: three max poolings, and one linear layer after global average pooling.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, arXiv:1409.1556.
"""

from functools import partial

from torch import nn

from kdbench.models.grouped import PostActivation
from kdbench.models.layers import ConvNorm, init_classifier, init_convolutions
from kdbench.models.network import register_model


def _convolutions(in_channels: int, width: int, count: int) -> list[ConvNorm]:
    return [ConvNorm(in_channels if i == 0 else width, width, 3, bias=True) for i in range(count)]


def _norm(block: nn.Module) -> nn.BatchNorm2d:
    return block.get_submodule("1.norm" if isinstance(block, nn.Sequential) else "norm")  # type: ignore[return-value]


def vgg(*, stem: int, groups: tuple[int, int, int, int], num_classes: int, in_channels: int) -> PostActivation:
    """A VGG network with `stem` convolutions of 64 channels and `groups` ones of 128, 256, 512 and 512.

    A max pooling stands before each group but the last, whose 512 channels the classifier reads.
    """
    first, *rest = _convolutions(in_channels, 64, stem)
    blocks = [
        _convolutions(*widths, count) for widths, count in zip(((64, 128), (128, 256), (256, 512), (512, 512)), groups, strict=True)
    ]
    network = PostActivation(
        stem=nn.Sequential(first, *(layer for convolution in rest for layer in (nn.ReLU(inplace=True), convolution))),
        groups=[*([nn.Sequential(nn.MaxPool2d(2), entry), *others] for entry, *others in blocks[:3]), blocks[3]],
        norm_of=_norm,
        classifier=nn.Linear(512, num_classes),
    )
    init_convolutions(network)
    init_classifier(network.classifier)
    return network


for _name, _stem, _groups in (
    ("vgg8", 1, (1, 1, 1, 1)),
    ("vgg11", 1, (1, 2, 2, 2)),
    ("vgg13", 2, (2, 2, 2, 2)),
    ("vgg16", 2, (2, 3, 3, 3)),
    ("vgg19", 2, (2, 4, 4, 4)),
):
    register_model(_name)(partial(vgg, stem=_stem, groups=_groups))
