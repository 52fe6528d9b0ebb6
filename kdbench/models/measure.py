"""The size and the work of a network, and the shapes of its hook points, without computing anything."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
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
    state = {name: value.to("meta") for name, value in (*model.named_parameters(), *model.named_buffers())}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(model, state, (_images(image_shape),))
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
