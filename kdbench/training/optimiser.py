"""The optimiser of a segment: which parameters it trains, with which settings, and its learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.spec.optimiser import SGD, Optimiser


@dataclass(frozen=True)
class Trained:
    """A module that an optimiser trains, and how.

    Attributes:
        module: holds the parameters.
        lr_factor: what the learning rate is multiplied by.
        weight_decay: in place of the optimiser's; None for the optimiser's.
        named_by: holds the networks that name what weight decay spares, where `module` is a bare list of their parameters.
    """

    module: nn.Module
    lr_factor: float = 1.0
    weight_decay: float | None = None
    named_by: nn.Module | None = None


def build_optimiser(
    settings: Optimiser, trained: Iterable[Trained], *, fixed: Iterable[int], device: torch.device
) -> torch.optim.Optimizer:
    """torch's optimiser for the parameters of some modules, which are thawed.

    Args:
        settings: the recipe's, or a stage's own.
        trained: the modules. A parameter that stands in several belongs to the first.
        fixed: the `id` of each parameter that stays as it is.
        device: where the parameters are. A graph would keep a number for good: on CUDA the learning rate is a tensor.
    """
    seen = set(fixed)
    groups: list[dict[str, Any]] = []
    for part in trained:
        learnt = [parameter.requires_grad_() for parameter in part.module.parameters() if id(parameter) not in seen]
        seen |= set(map(id, learnt))
        decay = settings.weight_decay if part.weight_decay is None else part.weight_decay
        spared = set() if settings.decay_norms_and_biases else _without_decay(part.named_by or part.module)
        for weight_decay, are_spared in ((decay, False), (0.0, True)):
            if parameters := [parameter for parameter in learnt if (id(parameter) in spared) is are_spared]:
                lr = settings.lr * part.lr_factor
                rate = torch.tensor(lr, device=device) if device.type == "cuda" else lr
                groups.append({"params": parameters, "lr": rate, "weight_decay": weight_decay, "lr_factor": part.lr_factor})
    if isinstance(settings, SGD):
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=True)
    on_cuda = device.type == "cuda"
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, capturable=on_cuda, fused=True)


def _without_decay(module: nn.Module) -> set[int]:
    """The `id` of each parameter that weight decay spares: of one dimension, or named by a network as timm's name them."""
    found = {id(parameter) for parameter in module.parameters() if parameter.ndim <= 1}
    for inner in module.modules():
        if callable(names := getattr(inner, "no_weight_decay", None)):
            own = dict(inner.named_parameters())
            found |= {id(own[name]) for name in names() if name in own}
    return found


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate, which each group multiplies by its factor; a tensor stays the same one."""
    for group in optimiser.param_groups:
        rate = lr * group["lr_factor"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def restore_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take over a state; a learning rate that is a tensor stays the same one."""
    rates = [group["lr"] for group in optimiser.param_groups]
    optimiser.load_state_dict(dict(state))
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate
