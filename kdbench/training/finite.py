"""Whether what a network has learnt is made of numbers: one NaN in its weights, and its error is that of a constant answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdbench.errors import KdbenchError


class NotFinite(KdbenchError):
    """Weights or answers hold NaN or infinity, so that nothing can be said of them and nothing learnt from them."""


class Finite:
    """Sees what of some networks' states, by the networks' names, has become NaN or infinite since it was made.

    What held infinity from the start, as masks do, may hold it; what is no part of a state is not looked at.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._networks = networks
        self._start = _worst(self._state())

    def _state(self) -> dict[str, Tensor]:
        found = {}
        for owner, network in self._networks.items():
            for name, value in network.state_dict(keep_vars=True).items():
                if isinstance(value, Tensor) and value.is_floating_point() and not is_lazy(value) and value.numel():
                    found[f"{name} of {owner}"] = value
        return found

    def broken(self, modules: Iterable[nn.Module]) -> str | None:
        """Names and numbers of what is no longer finite in the states of some of the networks' modules; None where all is.

        The host waits for the device once.
        """
        wanted = {id(value) for module in modules for value in module.state_dict(keep_vars=True).values()}
        state = {name: value for name, value in self._state().items() if id(value) in wanted}
        found = [name for name, worst in _worst(state).items() if worst > self._allowed(name, state[name])]
        if not found:
            return None
        first = state[found[0]]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"{found[0]} ({int((~first.isfinite()).sum())} of {first.numel()} values){more}"

    def _allowed(self, name: str, value: Tensor) -> int:
        """The worst that it may hold: no parameter NaN, and what a network has made on its way only infinity, as in a mask."""
        if isinstance(value, nn.Parameter):
            return min(self._start.get(name, _FINITE), _INFINITE)
        return self._start.get(name, _INFINITE)


_FINITE, _INFINITE, _NAN = range(3)


def _worst(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The worst that each tensor holds."""
    if not state:
        return {}
    with torch.no_grad():
        largest = torch.stack([torch.linalg.vector_norm(value, math.inf).double() for value in state.values()]).tolist()
    kinds = (_NAN if math.isnan(value) else _INFINITE if math.isinf(value) else _FINITE for value in largest)
    return dict(zip(state, kinds, strict=True))
