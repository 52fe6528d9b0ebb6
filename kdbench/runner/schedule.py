"""When a run would end: tasks at places, as the driver gives jobs to them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Task(NamedTuple):
    """Something that takes a place for some seconds.

    Attributes:
        needs: what must be there before; what no task gives is there.
        gives: what is there when all tasks have ended that give it.
    """

    seconds: float
    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()


def end_s(tasks: Sequence[Task], places: int) -> float:
    """Seconds until all have ended, where every place that is free takes the first task that can start."""
    open_ = Counter(given for task in tasks for given in task.gives)
    users: dict[str, list[int]] = {}
    missing = [0] * len(tasks)
    for i, task in enumerate(tasks):
        for need in task.needs & open_.keys():
            users.setdefault(need, []).append(i)
            missing[i] += 1
    ready = [i for i in range(len(tasks)) if not missing[i]]  # sorted, and so a heap
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < places:
            i = heapq.heappop(ready)
            heapq.heappush(running, (now + tasks[i].seconds, i))
        now, ended = heapq.heappop(running)
        for given in tasks[ended].gives:
            open_[given] -= 1
            for user in () if open_[given] else users.get(given, ()):
                missing[user] -= 1
                if not missing[user]:
                    heapq.heappush(ready, user)
    return now
