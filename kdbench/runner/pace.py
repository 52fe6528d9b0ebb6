"""How many epochs of a run are over, and how long the others will take at the pace so far."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdbench.runner.engines.engine import Place
    from kdbench.runner.progress import EpochReport, LaneReport


@dataclass(eq=False)
class Pace:
    """How fast epochs go by, of main trainings and of stages before them.

    Attributes:
        epochs: how many each trial has, and each stage that learns from a teacher alone, by id, with those that an earlier run
            trained. Lanes may tell of more, in stages that no parameter counts.
        behind: by the same ids, how many are over; at first those that checkpoints have.
        stages: by trial, those that learn from a teacher alone which it needs.
        expected_s: seconds that all of it takes, by earlier trainings; None where these do not tell.
        start: when it began, by the monotonic clock.
        total: how many epochs there are in all.
        done: how many of these are over.
        resumed: how many of them checkpoints had, or other runs have trained.
        begun: where epochs have ended; None is this process. The first that end in each place are not timed: in them the start is.
        untimed: how many epochs these were.
        since: when the first of all ended, by the same clock.
    """

    epochs: dict[str, int] = field(default_factory=dict)
    behind: dict[str, int] = field(default_factory=dict)
    stages: Mapping[str, Set[str]] = field(default_factory=dict)
    expected_s: float | None = None
    start: float = field(default_factory=lambda: time.monotonic())
    total: int = field(init=False)
    done: int = field(init=False)
    resumed: int = field(init=False)
    begun: set[Place | None] = field(default_factory=set)
    untimed: int = 0
    since: float = 0.0

    def __post_init__(self) -> None:
        self.total, self.done = sum(self.epochs.values()), sum(self.behind.values())
        self.resumed = self.done

    @property
    def left_s(self) -> float | None:
        """Seconds left: at the pace so far or, before there is one, of those that were expected; None without either."""
        now = time.monotonic()
        if (timed := self.done - self.resumed - self.untimed) > 0:
            return (now - self.since) / timed * (self.total - self.done)
        left_s = (self.expected_s or 0.0) - (now - self.start)
        return left_s if left_s > 0 else None

    def resume(self, lane: LaneReport) -> None:
        """A lane stands at so many epochs, those of its checkpoint or none where that cannot be used: they took no time."""
        self.resumed += lane.behind - self.behind.get(lane.unit, 0)
        self._set(lane.unit, lane.behind, lane.whole)

    def end(self, trial: str) -> None:
        """A trial has ended, here or in another run: nothing of it, and of what it needs, is left; what others did took no time."""
        for unit in (trial, *self.stages.get(trial, ())):
            whole = self.epochs.get(unit, 0)
            self.resumed += whole - self.behind.get(unit, 0)
            self._set(unit, whole)

    def of(self, units: Iterable[str]) -> Pace:
        """The pace of some of them alone, from now."""
        known = self.epochs.keys() & units
        behind = {unit: self.behind[unit] for unit in known & self.behind.keys()}
        return Pace({unit: self.epochs[unit] for unit in known}, behind)

    def count(self, report: EpochReport, place: Place | None = None) -> None:
        """Lanes have trained one epoch; those that failed in it have none left."""
        before = self.done
        for lane in report.lanes:
            self._set(lane.unit, lane.behind, lane.whole)
        if self.done > before and place not in self.begun:
            if not self.begun:
                self.since = time.monotonic()
            self.begun.add(place)
            self.untimed += self.done - before

    def _set(self, unit: str, behind: int, whole: int = 0) -> None:
        self.done += behind - self.behind.get(unit, 0)
        self.behind[unit] = behind
        if (more := max(behind, whole) - self.epochs.get(unit, 0)) > 0:
            self.epochs[unit] = max(behind, whole)
            self.total += more
