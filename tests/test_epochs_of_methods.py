"""A method's warm-up that is longer than the training is told by the plan and by the record."""

import json

import pytest
from conftest import Lab
from typer.testing import CliRunner

from kdbench.cli import app
from kdbench.method.interface import METHODS
from kdbench.method.specs import EPOCHS_OF_THE_TRAINING, build_part, never_reached, resolve_methods
from kdbench.suite.contradictions import _tiny_pair

LONG = "dkd: warm_up_epochs is 20, and the training ends after 2 epochs; give fewer, or train longer"


def test_a_plan_and_a_record_say_what_the_training_never_reaches(lab: Lab) -> None:
    suite = lab.suite(methods=["dkd"])
    called = [CliRunner().invoke(app, ["plan", str(lab.root / "tiny.yaml"), *json]) for json in ([], ["--json"])]
    assert [line for line in called[0].output.splitlines() if "note: " in line] == [f"  note: {LONG}."]
    assert json.loads(called[1].output)["notes"] == [LONG]
    lab.run(suite)
    assert [[note for note in lab.record(trial).notes if "epochs" in note] for trial in suite.trials] == [[LONG]]


@pytest.mark.parametrize(("name", "epochs", "told"), [("wkd_l", 150, False), ("wkd_l", 149, True), ("sskd", 1, False)])
def test_no_more_epochs_than_the_training_has_are_no_reason(lab: Lab, name: str, epochs: int, told: bool) -> None:
    (trial, *_) = lab.suite(methods=[name], recipe={"epochs": epochs, "schedule": {"milestones": []}}).trials
    assert bool(never_reached(trial)) == told


@pytest.mark.parametrize("name", METHODS.names())
def test_every_number_of_epochs_is_of_the_training_or_of_a_stage(name: str) -> None:
    for key in METHODS.get(name).Params.model_fields:
        if key.endswith("_epochs") and key not in EPOCHS_OF_THE_TRAINING:
            part = build_part(resolve_methods(name, {name: {key: 7}})[0], _tiny_pair())
            assert 7 in [stage.epochs for stage in part.stages()]
