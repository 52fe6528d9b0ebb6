"""Which lanes take their steps together, and which by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kdbench.models.stacked_layers import PLACES
from kdbench.training.block import Block
from kdbench.training.inputs import StepInputs
from kdbench.training.isolation import guarded
from kdbench.training.lane import Lane
from kdbench.training.single import Single
from kdbench.training.unit import Unit


class Units:
    """Lanes as they take their steps: in blocks where they are stacked, else by themselves."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._singles = {lane: Single(lane) for lane in lanes if lane.stacked_as is None}
        self._blocks: dict[tuple[Lane, ...], Block] = {}

    def of(self, lanes: Sequence[Lane]) -> list[Unit]:
        """The units of the lanes that have not failed; a block stays the same as long as its lanes do."""
        active = [lane for lane in lanes if not lane.failure]
        kinds: dict[object, list[Lane]] = {}
        for lane in active:
            if lane.stacked_as is not None:
                kinds.setdefault((lane.stacked_as, lane.method.views, lane.graph_refused is None), []).append(lane)
        groups = [tuple(kind[i : i + PLACES]) for kind in kinds.values() for i in range(0, len(kind), PLACES)]
        for block in (self._blocks.pop(group) for group in self._blocks.keys() - set(groups)):
            block.share_costs()
        for group in groups:
            if group not in self._blocks:
                self._blocks[group] = Block(group)
        return [*(self._singles[lane] for lane in active if lane in self._singles), *(self._blocks[group] for group in groups)]

    def prepare(self, lanes: Sequence[Lane], inputs: StepInputs) -> None:
        """Compile for batches like this one, where lanes are compiled and that was not done before."""
        for unit in self.of(lanes):
            guarded(partial(unit.prepare, inputs), *unit.lanes)

    def share_costs(self) -> None:
        """That of each block."""
        for block in self._blocks.values():
            block.share_costs()
