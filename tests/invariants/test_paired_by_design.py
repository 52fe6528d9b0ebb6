"""1. Paired by design: for one seed, every method gets the same initial student and the same augmented batches."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Lab
from torch import Tensor

from invariants.everything import Everything
from invariants.probes import around_steps, digest, short
from kdbench.training.lane import Lane


def test_every_method_starts_from_the_same_student(each_method: str, everything: Everything) -> None:
    assert everything.of(each_method)[0].student == everything.of("scratch")[0].student


def test_every_method_sees_the_same_batches(each_method: str, everything: Everything) -> None:
    mine, scratch = ([step.batch for step in everything.of(name) if step.segment == "main"] for name in (each_method, "scratch"))
    assert mine == scratch
    assert len(set(mine)) == len(mine)


def test_students_of_one_seed_see_the_same_batches_beside_any_teacher(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: dict[Lane, list[str]] = defaultdict(list)

    def look(lane: Any, images: Tensor, indices: Tensor) -> Iterator[None]:
        if lane._segment.name == "main" and lane.seed:
            batches[lane].append(digest(images, indices))
        yield

    around_steps(monkeypatch, look)
    pairs = [{"teacher": "wrn_10_1", "student": "resnet8"}, {"teacher": "resnet8", "student": "resnet14"}]
    suite = lab.suite(methods=["scratch", *short("ft", "fitnets")], pairs=pairs, seeds=[1, 2])
    lab.run(suite, lanes=2)
    assert len(batches) == len(suite.trials)
    for_seed = {seed: {tuple(seen) for lane, seen in batches.items() if lane.seed == seed} for seed in (1, 2)}
    assert [len(seen) for seen in for_seed.values()] == [1, 1]
    assert for_seed[1].isdisjoint(for_seed[2])
