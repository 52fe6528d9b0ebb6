"""Convolutions of whose weights this CPU computes wrong gradients, by torch 2.11 to 2.15.

`python tests/chaos/random_layers.py` looks for more of them.
"""

from __future__ import annotations

import torch
from torch import nn

from kdbench.models.measure import called_convolutions
from kdbench.spec.trial import TrialSpec
from kdbench.training.builder import Builder


def why_miscomputed(builder: Builder, trial: TrialSpec) -> str | None:
    """Which layer of a trial's network the builder's device would train with wrong gradients, and the fix; None for a sound one.

    Args:
        builder: of the data set, which may be without its images.
        trial: gives the network and how it is trained.
    """
    recipe = trial.recipe
    if builder.device.type != "cpu" or not (recipe.precision == "bf16" or lacks_avx512()):
        return None
    layers = called_convolutions(builder.blank(*trial.network), image_shape=builder.dataset.image_shape)
    for name, layer, maps in layers:
        if why := why_wrong(layer, maps, bf16=recipe.precision == "bf16", stacked=recipe.stack):
            return f"torch computes wrong gradients for its convolution {name}, which {why}"
    return None


def why_wrong(layer: nn.Conv2d, maps: tuple[int, int], *, bf16: bool, stacked: bool = False) -> str | None:
    """What is special about a convolution of maps (H, W), if a CPU computes wrong gradients of its weights, and the fix.

    In bf16 they come from memory that nobody has written: of weights that meet nothing but padding, or of dilated groups, which
    stacked students are, too. Without AVX-512, those of few channels are written beyond their end.
    """
    single = max(layer.kernel_size) == 1
    if bf16 and not single and any(size < stride for size, stride in zip(maps, layer.stride, strict=True)):
        return "has a stride that is larger than its maps, in bf16. Write `precision: default`, or give larger images"
    if bf16 and not single and max(layer.dilation) > 1 and (layer.groups > 1 or stacked):
        return "is dilated and has groups, in bf16. Write `precision: default`"
    narrow = single and max(layer.stride) > 1 and layer.groups == 1 and layer.in_channels < 8
    if narrow and not bf16 and not stacked and lacks_avx512():
        return "is 1x1 with a stride and fewer than 8 input channels, without AVX-512. Give it 8, or write `precision: bf16`"
    return None


def lacks_avx512() -> bool:
    """Whether torch computes on this CPU with AVX2, and nothing wider."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2"
