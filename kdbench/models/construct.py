"""Networks made by the factories of the registry."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from kdbench.errors import KdbenchError, first_line
from kdbench.models.foreign import is_published
from kdbench.models.network import MODELS
from kdbench.models.recorded import CLASSES


def constructed(name: str, *, num_classes: int = CLASSES, in_channels: int) -> nn.Module:
    """What the factory of that name gives, on torch's present device, even where that is meta and the constructor computes.

    Raises:
        KdbenchError: nothing of that name, what its library refuses to build, no module, or one with layers of unknown size.
    """
    make = partial(MODELS.get(name), num_classes=num_classes, in_channels=in_channels)
    try:
        model = _anywhere(make)
    except KdbenchError:
        raise
    except Exception as reason:
        if not is_published(name):
            raise
        raise KdbenchError(
            f"{name} cannot be built for {num_classes} classes and images of {in_channels} channels ({first_line(reason)}). "
            "Choose another network."
        ) from reason
    if not isinstance(model, nn.Module):
        raise KdbenchError(f"model '{name}' gives a {type(model).__name__}. Let it give a torch.nn.Module.")
    if lazy := [module for module, layer in model.named_modules() if any(map(is_lazy, layer.parameters(recurse=False)))]:
        raise KdbenchError(f"model '{name}' has lazy layers ({', '.join(lazy)}). Give their sizes, as in nn.Linear(64, 10).")
    return model


class _Unfilled(TorchFunctionMode):
    """Passes over what fills tensors of the meta device: they hold nothing, and it takes most of the time there."""

    FILLS = {getattr(Tensor, name) for name in ("normal_", "uniform_", "fill_", "zero_", "clamp_", "erfinv_", "mul_", "add_")}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return args[0] if func in self.FILLS and args[0].is_meta else func(*args, **(kwargs or {}))


def _anywhere(make: Callable[[], nn.Module]) -> nn.Module:
    device = torch.get_default_device()
    if device.type != "meta":
        return make()
    try:
        with _Unfilled():
            return make()
    except Exception:  # where numbers are asked of a meta tensor, torch and NumPy raise this and that
        pass
    with torch.device("cpu"):
        return make().to(device)
