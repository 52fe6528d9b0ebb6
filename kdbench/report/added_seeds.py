"""Seeds that were added after a look: a reader must know that how many there are was not decided beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kdbench.wording import plural


def added_seeds(done: pd.DataFrame) -> list[str]:
    """A sentence on the seeds of a pair that were planned when its other seeds were done.

    It tells no more: where folders were merged, nobody knows whether who planned them had seen the others. A seed compares methods
    as soon as two of them have it. So it was planned when its second trial was planned, and it was done when its second trial was
    first finished, though it be trained again since. A method that is added later, and a
    student from scratch that pairs share, add no seed.

    Args:
        done: finished trials with the column `at`, the name of the pair; those without a teacher stand in every pair of their
            student. Trials of earlier versions lack `planned`: they were planned before all others.
    """
    if not {"planned", "finished"} <= {*done}:
        return []
    if "first_finished" in done:
        done = done.assign(finished=done["first_finished"].astype(object).fillna(done["finished"]))
    found: dict[tuple[str, str], list[str]] = {}
    taught = done[done["teacher"].notna()].groupby(["dataset", "student", "at"], sort=False)
    for (dataset, student, at), rows in taught:
        alone = done[done["teacher"].isna() & (done["dataset"] == dataset) & (done["student"] == student)]
        for sentence in _sentences(pd.concat([alone, rows])):
            found.setdefault(sentence, []).append(str(at))
    return [
        f"{noun.capitalize()} {rest}" if len(pairs) == len(taught) else f"{', '.join(pairs)}: {noun} {rest}"
        for (noun, rest), pairs in found.items()
    ]


def _sentences(trials: pd.DataFrame) -> list[tuple[str, str]]:
    """Of one pair: `seeds` and `3 and 4 were planned on 2026-11-25, when seeds 0 to 2 were done.`"""
    seeds = trials.groupby("seed")[["planned", "finished"]].agg(_second).dropna()
    added: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for seed, planned in seeds["planned"].items():
        if known := tuple(seeds.index[seeds["finished"] < planned]):
            added.setdefault((planned[:10], known), []).append(int(str(seed)))
    return [
        (
            plural("seed", len(late)),
            f"{listed_seeds(late)} {_were(late)} planned on {day}, when {plural('seed', len(known))} {listed_seeds(known)} "
            f"{_were(known)} done.",
        )
        for (day, known), late in added.items()
    ]


def _second(times: pd.Series[str]) -> str | None:
    """The second earliest; what is not known comes first."""
    return sorted(times.fillna(""))[1] if len(times) > 1 else None


def _were(seeds: Sequence[int]) -> str:
    return "was" if len(seeds) == 1 else "were"


def listed_seeds(seeds: Sequence[int]) -> str:
    """`0 to 2`, `3 and 4`, `0, 2 and 5`."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 2 and [*seeds] == [*range(first, last + 1)]:
        return f"{first} to {last}"
    return " and ".join(filter(None, (", ".join(map(str, seeds[:-1])), str(last))))
