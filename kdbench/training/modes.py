"""Which modules are in training mode while a segment is trained."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from kdbench.method.composition import Composition


class Modes:
    """Puts a student and a method into training mode, but for what their stages have trained and what is frozen for good."""

    def __init__(self, student: nn.Module | None, method: Composition) -> None:
        self._networks = [network for network in (student, method) if network is not None]
        self._staged = [module for _, stage in method.stages() for module in stage.modules]
        self._frozen = _frozen(method)

    def set_for(self, trained: Iterable[nn.Module]) -> None:
        """The modes of a segment that trains these modules."""
        for network in self._networks:
            network.train()
        for module in self._staged:
            module.train(module in trained)
        for module in self._frozen:
            module.training = False


def _frozen(module: nn.Module) -> list[nn.Module]:
    """What a method has built in evaluation mode and without anything to learn, such as a network that it compares with."""
    if module.training:
        return [found for child in module.children() for found in _frozen(child)]
    return [] if any(parameter.requires_grad for parameter in module.parameters()) else list(module.modules())
