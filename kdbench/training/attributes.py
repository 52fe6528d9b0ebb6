"""What modules remember beside parameters and buffers: numbers, text and tensors, alone or in lists, tuples and dicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

_MACHINERY = vars(nn.Module()).keys()


class Attributes:
    """What some modules remember, as it was when this was made."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._own = {id(tensor) for module in modules for tensor in (*module.parameters(), *module.buffers())}
        self._saved = [tree_map(_copied, self._remembered(module)) for module in modules]

    @property
    def changed(self) -> str | None:
        """The name of one that is other than it was."""
        for module, saved in zip(self._modules, self._saved, strict=True):
            found = self._remembered(module)
            for name in found | saved:
                if name not in found or name not in saved or not _same(found[name], saved[name]):
                    return f"{type(module).__name__}.{name}"
        return None

    def restore(self) -> None:
        """Put all of it back."""
        for module, saved in zip(self._modules, self._saved, strict=True):
            for name in self._remembered(module).keys() - saved.keys():
                delattr(module, name)
            for name, value in saved.items():
                if not _same(vars(module).get(name), value):
                    setattr(module, name, tree_map(_copied, value))

    def _remembered(self, module: nn.Module) -> dict[str, Any]:
        def plain(leaf: object) -> bool:
            return leaf is None or (isinstance(leaf, bool | int | float | str | Tensor) and id(leaf) not in self._own)

        return {name: value for name, value in _own(module).items() if all(map(plain, tree_leaves(value)))}


class Constants:
    """The numbers and the text among what some modules remember, as they were when this was made; nobody waits for the device."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._saved = _constants(modules)

    @property
    def changed(self) -> bool:
        """Whether one is other than it was."""
        return not _same(_constants(self._modules), self._saved)


def _constants(modules: Sequence[nn.Module]) -> list[dict[str, Any]]:
    def constant(leaf: object) -> bool:
        return leaf is None or isinstance(leaf, bool | int | float | str)

    return [
        {name: tree_map(_copied, value) for name, value in _own(module).items() if all(map(constant, tree_leaves(value)))}
        for module in modules
    ]


def _own(module: nn.Module) -> dict[str, Any]:
    """What torch has not put there."""
    return {name: value for name, value in vars(module).items() if name not in _MACHINERY}


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _same(one: object, other: object) -> bool:
    (leaves, form), (others, other_form) = tree_flatten(one), tree_flatten(other)
    return form == other_form and all(map(_equal, leaves, others))


def _equal(one: Any, other: Any) -> bool:
    """NaN, which differs from itself, is equal here."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        known = (one.dtype, one.device, one.shape) == (other.dtype, other.device, other.shape)
        return known and bool(((one == other) | ((one != one) & (other != other))).all())
    return type(one) is type(other) and (one == other or (one != one and other != other))
