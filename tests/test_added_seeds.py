"""A report tells which seeds were planned when others were done, and never what one run has planned."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
import pytest

from kdbench.report.added_seeds import added_seeds

Trials = Iterable[dict[str, Any]]


def trials(methods: str, seeds: Iterable[int], *, planned: str | None, finished: str, teacher: str = "big") -> Trials:
    """Finished ones of some methods and seeds; times are days of November and hours."""
    for seed in seeds:
        for method in methods.split():
            of = None if method == "scratch" else teacher
            at = f"{of} → small" if of else "small"
            times = {"planned": planned and f"2026-11-{planned}:00:00+00:00", "finished": f"2026-11-{finished}:00:00+00:00"}
            yield {"dataset": "d", "teacher": of, "student": "small", "label": method, "at": at, "seed": seed, **times}


def told(*parts: Trials) -> list[str]:
    return added_seeds(pd.DataFrame([row for part in parts for row in part]))


FIRST = dict(planned="24T10", finished="24T12")
LATER = dict(planned="25T09", finished="25T10")

TOLD: dict[str, tuple[list[Trials], list[str]]] = {
    "two seeds": (
        [trials("scratch kd", range(3), **FIRST), trials("scratch kd", [3, 4], **LATER)],
        ["Seeds 3 and 4 were planned on 2026-11-25, when seeds 0 to 2 were done."],
    ),
    "one, after one": (
        [trials("scratch kd", [7], **FIRST), trials("scratch kd", [2], **LATER)],
        ["Seed 2 was planned on 2026-11-25, when seed 7 was done."],
    ),
    "twice": (
        [
            trials("scratch kd", [0, 2, 5], **FIRST),
            trials("scratch kd", [6], **LATER),
            trials("scratch kd", [7], planned="26T09", finished="26T10"),
        ],
        [
            "Seed 6 was planned on 2026-11-25, when seeds 0, 2 and 5 were done.",
            "Seed 7 was planned on 2026-11-26, when seeds 0, 2, 5 and 6 were done.",
        ],
    ),
    "with a new method": (
        [trials("scratch kd", range(3), **FIRST), trials("ft", range(5), **LATER), trials("scratch kd", [3, 4], **LATER)],
        ["Seeds 3 and 4 were planned on 2026-11-25, when seeds 0 to 2 were done."],
    ),
    "without scratch": (
        [trials("kd ft", [0], **FIRST), trials("kd ft", [1], **LATER)],
        ["Seed 1 was planned on 2026-11-25, when seed 0 was done."],
    ),
    "scratch was there for another pair": (
        [trials("scratch", range(5), **FIRST), trials("kd", range(3), **FIRST), trials("kd", [3, 4], **LATER)],
        ["Seeds 3 and 4 were planned on 2026-11-25, when seeds 0 to 2 were done."],
    ),
    "the first are of an earlier version": (
        [trials("scratch kd", [0, 1], planned=None, finished="24T12"), trials("scratch kd", [2], **LATER)],
        ["Seed 2 was planned on 2026-11-25, when seeds 0 and 1 were done."],
    ),
    "one pair of two": (
        [
            trials("scratch kd", range(3), **FIRST),
            trials("kd", range(5), **LATER, teacher="huge"),
            trials("scratch kd", [3, 4], **LATER),
        ],
        ["big → small: seeds 3 and 4 were planned on 2026-11-25, when seeds 0 to 2 were done."],
    ),
    "both pairs": (
        [
            trials("scratch kd", [0], **FIRST),
            trials("kd", [0], **FIRST, teacher="huge"),
            trials("kd", [1], **LATER, teacher="huge"),
            trials("scratch kd", [1], **LATER),
        ],
        ["Seed 1 was planned on 2026-11-25, when seed 0 was done."],
    ),
}

NOT_TOLD: dict[str, list[Trials]] = {
    "one run, seed after seed": [trials("scratch kd", [seed], planned="24T10", finished=f"{24 + seed}T12") for seed in range(4)],
    "a method later": [trials("scratch kd", range(3), **FIRST), trials("ft", range(3), **LATER)],
    "a pair later, with more seeds of the scratch that both share": [
        trials("scratch", range(3), **FIRST),
        trials("scratch", [3, 4], **LATER),
        trials("kd", range(5), **LATER),
    ],
    "methods that were alone before": [
        trials("scratch", range(3), **FIRST),
        trials("scratch", [3], **LATER),
        trials("kd ft", range(4), **LATER),
    ],
    "all of an earlier version": [trials("scratch kd", range(5), planned=None, finished="24T12")],
    "an earlier version's trained again": [
        trials("scratch kd", [0], **FIRST),
        trials("scratch kd", [1], planned=None, finished="25T12"),
    ],
    "planned in the hour of the first end": [
        trials("scratch kd", [0], **FIRST),
        trials("scratch kd", [1], planned="24T12", finished="24T13"),
    ],
    "one method": [trials("kd", [0], **FIRST), trials("kd", [1], **LATER)],
}


@pytest.mark.parametrize("case", TOLD)
def test_seeds_after_a_look_are_told(case: str) -> None:
    parts, sentences = TOLD[case]
    assert told(*parts) == sentences


@pytest.mark.parametrize("case", NOT_TOLD)
def test_what_adds_no_seeds_is_not_told(case: str) -> None:
    assert told(*NOT_TOLD[case]) == []


def test_training_the_first_seeds_again_does_not_hide_the_look() -> None:
    frame = pd.DataFrame(
        [*trials("scratch kd", range(3), planned="24T10", finished="26T12"), *trials("scratch kd", [3, 4], **LATER)]
    )
    first = frame["finished"].where(frame["seed"] > 2, "2026-11-24T12:00:00+00:00").where(frame["seed"] < 3)
    assert added_seeds(frame.assign(first_finished=first)) == TOLD["two seeds"][1]


def test_a_frame_of_an_earlier_version_tells_nothing() -> None:
    frame = pd.DataFrame([*trials("scratch kd", [0, 1], **FIRST)])
    assert added_seeds(frame.drop(columns="planned")) == []
