"""Trains as many things side by side as the device's memory holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from kdbench.errors import KdbenchError
from kdbench.training.cohort import MOST_GRAPHS, SilentOutOfMemory, records_graphs
from kdbench.training.device import refused_allocations

T = TypeVar("T")


@dataclass(frozen=True)
class Work(Generic[T]):
    """What can be trained side by side: students of one cohort, or stages of one teacher.

    Attributes:
        train: `(some of them, graphs) -> bool`, False when it was stopped.
        ended: whether one of them needs no training any more.
        name: of one of them.
        noun: what they are, in the plural.
    """

    train: Callable[[Sequence[T], bool], bool]
    ended: Callable[[T], bool]
    name: Callable[[T], str]
    noun: str


@dataclass(eq=False)
class GroupTrainer:
    """Splits work into groups that train side by side.

    Attributes:
        lanes: how many train at once; fewer from the time that they did not fit.
        say: tells people of it.
    """

    device: torch.device
    lanes: int
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        if records_graphs(self.device):
            self.lanes = min(self.lanes, MOST_GRAPHS)

    def train(self, wanted: Sequence[T], work: Work[T]) -> bool:
        """Train them all, in groups; False when stopped.

        Raises:
            KdbenchError: one of them is too large even alone.
            SilentOutOfMemory: memory was full without anybody being told.
        """
        left = list(wanted)
        while left:  # how many train at once may become fewer on the way
            group, left = left[: self.lanes], left[self.lanes :]
            if not self._train(group, work, graphs=records_graphs(self.device)):
                return False
        return True

    def _train(self, group: Sequence[T], work: Work[T], *, graphs: bool) -> bool:
        """Train a group, or its halves where it is too large for the device's memory.

        One alone that is too large goes on without `graphs`, for which a step's memory is taken twice.
        """
        refused = refused_allocations(self.device)
        try:
            return work.train(group, graphs)
        except torch.OutOfMemoryError:
            if refused_allocations(self.device) > refused + 1:  # more than this one, of which nobody was told
                raise SilentOutOfMemory from None
            left = [one for one in group if not work.ended(one)]
            if not left:
                raise
            if len(left) == 1 and not graphs:
                raise KdbenchError(
                    f"the memory is full although {work.name(left[0])} trains alone. Make room, or leave it out with --methods; "
                    "what is finished is kept."
                ) from None
        # Out of the handler, whose traceback would hold the lanes.
        torch.cuda.empty_cache()
        if len(left) == 1:
            name = work.name(left[0])
            self.say(f"{name} is too large for the device's memory with CUDA graphs. It trains without them, more slowly.")
            return self._train(left, work, graphs=False)
        half = (len(left) + 1) // 2
        self.lanes = min(self.lanes, half)
        self.say(f"{len(left)} {work.noun} at once are too many for the device's memory: {half} at once from here on.")
        return all(self._train(part, work, graphs=graphs) for part in (left[:half], left[half:]))
