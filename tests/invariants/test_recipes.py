"""A recipe of everything at once keeps the invariants: alone or beside others, stopped and resumed, by steps or by graphs."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Lab, Rehearsed
from test_recipes import EVERYTHING

from invariants.probes import give_teacher, only

METHODS = ["kd", "simkd", {"fitnets": {"hint_epochs": 1}}]


@pytest.fixture(scope="module")
def together(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("together"), images)
    suite = lab.suite(methods=METHODS, recipe=EVERYTHING)
    assert lab.run(suite)
    assert [lab.record(trial).reason for trial in suite.trials] == [None] * 3
    return lab


@pytest.mark.parametrize("method", METHODS[1:], ids=["simkd", "fitnets"])
def test_alone_and_stopped_after_every_epoch_as_beside_all_others(
    method: Any, together: Lab, lab: Lab, one_epoch_a_run: dict[str, Any]
) -> None:
    suite = lab.suite(methods=[method], recipe=EVERYTHING)
    give_teacher(lab, together, suite)
    while not lab.run(suite, **one_epoch_a_run):
        pass
    mine = only(suite, method if isinstance(method, str) else next(iter(method))).id
    assert lab.outcomes()[mine] == together.outcomes()[mine]


def test_graphs_do_what_steps_do(rehearsed: None, together: Lab, lab: Lab) -> None:
    suite = lab.suite(methods=METHODS, recipe=EVERYTHING)
    give_teacher(lab, together, suite)
    lab.run(suite)
    assert Rehearsed.made > len(suite.trials)
    assert lab.outcomes() == together.outcomes()
