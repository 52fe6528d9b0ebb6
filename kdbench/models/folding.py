"""Batch norms of a trained network folded into the convolutions before them: the same function with fewer operations."""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kdbench.method.outputs import Outputs
from kdbench.streams import seeded

TOLERANCE = 1e-9
"""Relative, in float64: a batch norm whose folding changes any hook point by more stays."""


def folded(
    network: nn.Module, *, image_shape: tuple[int, int, int], memory_format: torch.memory_format = torch.channels_last
) -> tuple[nn.Module, int]:
    """A copy of a network in evaluation mode without the batch norms that can go, and how many went; itself where none can.

    One can go when a convolution's output is read by it alone; that is tried out on random images (C, H, W), in float64. Hook
    points keep their values but for rounding, some 1e-7 in float32. What is folded has the layout `memory_format`.
    """
    exact = deepcopy(network).cpu().double()
    images = torch.randn(2, *image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = _followed_by_norm(exact, images)
        if not found:
            return network, 0
        expected = _passed(exact, images)

        def harmless(pairs: Sequence[tuple[str, str]]) -> bool:
            unfolded = {name: exact.get_submodule(name) for pair in pairs for name in pair}
            _fold(exact, pairs, memory_format)
            agree = all(map(_agree, expected.tensors(), _passed(exact, images).tensors()))
            for name, module in unfolded.items():
                exact.set_submodule(name, module)
            return agree

        kept = found if harmless(found) else [pair for pair in found if harmless([pair])]
    copy = deepcopy(network)
    _fold(copy, kept, memory_format)
    return copy, len(kept)


def _passed(network: nn.Module, images: Tensor) -> Outputs:
    """Of a network that draws at random in evaluation, too, the same whenever it is asked."""
    with seeded(0, "folding"):
        outputs: Outputs = network(images)
        return outputs


def _followed_by_norm(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch norms that are given just what they return, each called once.

    Classes derived from torch's, as timm's norms with an activation are, compute something else.
    """
    names = {module: name for name, module in network.named_modules()}
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are held, so that no two have one address
    found: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def returned(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        calls[names[module]] += 1
        if isinstance(module, nn.Conv2d):
            made[id(result)] = names[module], result
        elif given and id(given[0]) in made:
            found.append((made[id(given[0])][0], names[module]))

    plain = [m for m in names if type(m) is nn.Conv2d or (type(m) is nn.BatchNorm2d and m.running_mean is not None)]
    hooks = [module.register_forward_hook(returned) for module in plain]
    _passed(network, images)
    for hook in hooks:
        hook.remove()
    return [pair for pair in found if calls[pair[0]] == calls[pair[1]] == 1]


def _fold(network: nn.Module, pairs: Sequence[tuple[str, str]], memory_format: torch.memory_format) -> None:
    for conv_name, norm_name in pairs:
        conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        one = fuse_conv_bn_eval(deepcopy(conv).double(), deepcopy(norm).double()).to(conv.weight.dtype)
        network.set_submodule(conv_name, one.to(memory_format=memory_format).requires_grad_(False))
        network.set_submodule(norm_name, nn.Identity())


def _agree(expected: Tensor, ours: Tensor) -> bool:
    return bool((expected - ours).abs().max() <= TOLERANCE * expected.abs().max())
