"""What code sends to the device, operation by operation."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FREE = {
    *("detach", "empty", "view", "_unsafe_view", "t", "expand", "permute", "transpose", "unsqueeze", "squeeze", "select", "slice"),
    "lift_fresh",  # torch 2.11 alone counts it
}
"""Operations that compute nothing."""


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's has no types
    """Notes what computes something.

    Args:
        free: the names of operations that are passed over.

    Attributes:
        written: the bytes of what each operation gives, by its name.
    """

    def __init__(self, free: Collection[str] = FREE) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._free = free
        self.written: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if (name := func.overloadpacket.__name__) not in self._free:
            self.written.append((name, sum(leaf.nbytes for leaf in tree_leaves(given) if isinstance(leaf, Tensor))))
        return given

    @property
    def found(self) -> Counter[str]:
        """How often each was sent."""
        return Counter(name for name, _ in self.written)
