"""The size and the work of a network, and the shapes of its hook points, without computing anything."""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdbench.errors import KdbenchError, first_line
from kdbench.method.outputs import Outputs, Shapes
from kdbench.method.pair import TeacherParts
from kdbench.models import Network, blank_model
from kdbench.models.hooked import Hooked
from kdbench.models.recorded import images_refused
from kdbench.streams import seeded

BATCH = 2
"""One image would not do: a batch norm in training mode refuses a single value per channel."""


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _images(image_shape: tuple[int, int, int], *, count: int = BATCH) -> Tensor:
    return torch.empty(count, *image_shape, device="meta")


def _pass_over_norms(model: nn.Module) -> None:
    """On the meta device they take most of the time. Those that cannot take what they are given raise as ever."""
    for module in model.modules():
        if type(module) in NORMS:
            module.forward = partial(_as_it_is, module)


def _as_it_is(norm: Any, x: Tensor) -> Tensor:
    norm._check_input_dim(x)
    if x.shape[1] != norm.num_features:
        raise ValueError(f"a batch norm of {norm.num_features} channels is given {x.shape[1]}")
    return x


def parameters(module: nn.Module) -> int:
    """How many numbers a module has to learn."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulate operations of the convolutions and linear layers for one image (C, H, W); `model` stays as it is."""
    with torch.no_grad():
        empty = {id(tensor): tensor.detach().to("meta") for tensor in (*model.parameters(), *model.buffers())}
        copy = deepcopy(model, empty)  # that has these for its tensors
        _pass_over_norms(copy)  # they multiply nothing that counts
        with FlopCounterMode(display=False) as counter, seeded(0, "measure"):  # a network may leave out layers at random
            copy(_images(image_shape))
    return int(counter.get_total_flops()) // (2 * BATCH)


def shapes(name: str, *, image_shape: tuple[int, int, int], num_classes: int, hooks: tuple[str, ...] = ()) -> Shapes:
    """Shapes of the hook points of the model `name` for images (C, H, W).

    Raises:
        KdbenchError: nothing of that name, hooks that it lacks, images that it cannot take, or another number of classes.
    """
    model = _blank(name, image_shape=image_shape, num_classes=num_classes, hooks=hooks)
    _pass_over_norms(model)  # they keep the shape
    found = shapes_of(model, name=name, image_shape=image_shape)
    if found.logits != (num_classes,):
        raise KdbenchError(
            f"{name} gives {'x'.join(map(str, found.logits))} logits for {num_classes} classes. Build its last layer with the "
            "`num_classes` that it is given."
        )
    return found


def macs_of(name: str, *, image_shape: tuple[int, int, int], num_classes: int, hooks: tuple[str, ...] = ()) -> int:
    """`macs` of the model `name` for one image (C, H, W)."""
    return macs(_blank(name, image_shape=image_shape, num_classes=num_classes, hooks=hooks), image_shape)


def parts_of(name: str, *, image_shape: tuple[int, int, int], num_classes: int, hooks: tuple[str, ...] = ()) -> TeacherParts:
    """What methods may read of the model `name` as a teacher, on the meta device: shapes without numbers."""
    return _blank(name, image_shape=image_shape, num_classes=num_classes, hooks=hooks).teacher_parts()


def followed_by_of(
    name: str, *, image_shape: tuple[int, int, int], num_classes: int, hooks: tuple[str, ...] = ()
) -> Mapping[str, Mapping[str, str]]:
    """By hook point and by module, the activation that `forward` itself applies to what methods read of the model `name` there."""
    model = _blank(name, image_shape=image_shape, num_classes=num_classes, hooks=hooks)
    if not isinstance(model, Hooked) or model.reads_raw:  # where maps are asked for as they are before it
        return {}
    found, ends = model.wiring.followed_by, {"stem": [model.wiring.stem], "features": model.wiring.groups}
    return {at: {end.module: found[end.module] for end in made if end and end.module in found} for at, made in ends.items()}


def _blank(name: str, *, image_shape: tuple[int, int, int], num_classes: int, hooks: tuple[str, ...]) -> Network:
    return blank_model(name, num_classes=num_classes, in_channels=image_shape[0], hooks=hooks, image_size=image_shape[1])


def shapes_of(model: Network, *, name: str, image_shape: tuple[int, int, int]) -> Shapes:
    """Shapes of the hook points of a model on the meta device, called `name` in messages, for images (C, H, W).

    Raises:
        KdbenchError: images that it cannot take.
    """
    with torch.no_grad():
        try:
            outputs = model(_images(image_shape))
        except KdbenchError as problem:
            raise KdbenchError(f"{name}: {problem}") from None
        except (RuntimeError, AssertionError, ValueError) as reason:
            size = "x".join(map(str, image_shape))
            raise images_refused(name, model, [f"{size} ({first_line(reason)})"], in_channels=image_shape[0]) from None
    if not isinstance(outputs, Outputs):
        raise KdbenchError(f"{name} gives a {type(outputs).__name__}. Let `forward` of a kdbench.Network return Outputs.")
    return outputs.shapes()


def refuse_one_image(model: Network, *, name: str, image_shape: tuple[int, int, int]) -> None:
    """See that a model on the meta device, called `name` in messages, trains on one image (C, H, W) at a time.

    Raises:
        KdbenchError: a batch norm in it would have a single value for each channel.
    """
    with torch.no_grad():
        try:
            model.train()(_images(image_shape, count=1))
        except ValueError as reason:
            raise KdbenchError(
                f"{name} cannot train on batches of one image ({first_line(reason)}). Raise `batch_size` in the recipe, or train "
                "on more images."
            ) from None


def called_convolutions(model: Network, *, image_shape: tuple[int, int, int]) -> list[tuple[str, nn.Conv2d, tuple[int, int]]]:
    """Of a model on the meta device, for images (C, H, W), each call of a convolution: its name, it, and the size of its maps.

    It leaves hooks on the model, which is of no use afterwards.
    """
    found: list[tuple[str, nn.Conv2d, tuple[int, int]]] = []

    def look(name: str, layer: nn.Conv2d, given: tuple[Tensor, ...]) -> None:
        height, width = given[0].shape[-2:]
        found.append((name, layer, (height, width)))

    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(partial(look, name))
    _pass_over_norms(model)
    with torch.no_grad():
        model(_images(image_shape))
    return found
