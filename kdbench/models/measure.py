"""The size and the work of a network, and the shapes of its hook points, without computing anything."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdbench.models import build_model
from kdbench.outputs import Outputs, Shapes

BATCH = 2
"""One image would not do: a batch norm in training mode refuses a single value per channel."""


def _images(image_shape: tuple[int, int, int]) -> Tensor:
    return torch.empty(BATCH, *image_shape, device="meta")


def parameters(module: nn.Module) -> int:
    """How many numbers a module has to learn."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulate operations of the convolutions and linear layers for one image (C, H, W); `model` stays as it is."""
    with torch.no_grad():
        empty = {id(tensor): tensor.to("meta") for tensor in (*model.parameters(), *model.buffers())}
        with FlopCounterMode(display=False) as counter:
            deepcopy(model, empty)(_images(image_shape))  # a copy that has these for its tensors
    return int(counter.get_total_flops()) // (2 * BATCH)


def shapes(name: str, *, image_shape: tuple[int, int, int], num_classes: int) -> Shapes:
    """Shapes of the hook points of the model `name` for images (C, H, W).

    Raises:
        KdbenchError: nothing of that name.
    """
    with torch.device("meta"):
        model = build_model(name, num_classes=num_classes, in_channels=image_shape[0])
    with torch.no_grad():
        outputs: Outputs = model(_images(image_shape))
    return outputs.shapes()
