"""Activations that a network's `forward` applies itself: what they give is no module's, so that no hook sees it."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor
from torch.autograd.graph import Node

from kdbench.models.recorded import Call

FUNCTIONS = {
    "ReluBackward0": "relu",
    "LeakyReluBackward0": "leaky_relu",
    "HardtanhBackward0": "relu6",
    "GeluBackward0": "gelu",
    "SiluBackward0": "silu",
    "MishBackward0": "mish",
    "EluBackward0": "elu",
    "HardswishBackward0": "hardswish",
}
"""By what autograd calls an activation, the function that applies it."""

AS_A_MODULE = "In a network of your own make that a module, such as `self.relu = nn.ReLU()`"
"""What mends an activation that `forward` applies itself, where no hook sees it."""


def bare_function(node: Node | None, calls: Sequence[Call]) -> str:
    """The function that made something, if it is an activation and no module gives what it makes; else nothing."""
    name = FUNCTIONS.get(node.name(), "") if node else ""
    return "" if any(call.node is node for call in calls) else name


def followed_by(made: Iterable[Call], calls: Sequence[Call]) -> dict[str, str]:
    """By module, the activation that `forward` itself applies directly to what it gives, where there is one.

    Args:
        made: the calls of the modules that are asked about.
        calls: what `record` gives.
    """
    made = list(made)
    ends = {(call.node, call.made.output_nr): call.name for call in made if isinstance(call.made, Tensor)}
    found: dict[str, str] = {}
    seen: set[Node] = set()
    ahead = [calls[-1].node]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [earlier for earlier, _ in node.next_functions]
        if node.name() in FUNCTIONS and node.next_functions[0] in ends and (function := bare_function(node, calls)):
            found[ends[node.next_functions[0]]] = function
    return {call.name: found[call.name] for call in made if call.name in found}


def read_before(found: Mapping[str, str]) -> str:
    """A sentence, without its full stop, on modules by which methods read maps before an activation; `found` is by module."""
    named, functions = ", ".join(found), " or ".join(dict.fromkeys(found.values()))
    what = f"{named}: methods read the maps before {functions}, which `forward` applies itself"
    return f"{what}. {AS_A_MODULE}, and name it as the hook"
