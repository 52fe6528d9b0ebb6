"""The weight of the cross-entropy: a suite sets it for any composition, and it may change by epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Lab

import kdbench
from kdbench import Batch, KdbenchError, Losses, Method, Outputs, Pair, PairError
from kdbench.catalogue.show import shown
from kdbench.method.composition import Composition
from kdbench.method.specs import setting
from kdbench.results.frames import read_records
from kdbench.suite.resolve import load_suite
from kdbench.training.lane import Lane

RECIPE = {"epochs": 3, "schedule": {"milestones": []}}


def entropies(lab: Lab, methods: list[Any]) -> list[list[float]]:
    """By method and epoch, the part of the loss that the cross-entropy has."""
    suite = lab.suite(methods=methods, recipe=RECIPE)
    lab.run(suite)
    assert [lab.record(trial).reason for trial in suite.trials] == [None] * len(methods)
    return [[row["terms"].get("cross_entropy", 0.0) for row in lab.curves(trial)] for trial in suite.trials]


def test_it_is_what_the_suite_says_in_every_epoch(lab: Lab) -> None:
    """Of methods without terms that reach the student, so that halving it changes nothing but the learning rate."""
    plain, half, late, none = entropies(
        lab,
        [
            {"kd": {"alpha": 0}},
            {"at": {"beta": 0, "ce": 1}},
            {"at": {"beta": 0, "ce": {0: 1, 2: 0.5}}},
            {"at+kd": {"ce": 0, "kd": {"alpha": 0.5}}},
        ],
    )
    assert half == plain and late[:2] == plain[:2]
    assert late[2] == pytest.approx(plain[2] / 2, rel=0.2) and late[2] != plain[2]
    assert none == [0.0] * 3


def test_repdistillers_three_weights() -> None:
    """CE + KL + 0.8 CRD, where kd's own alpha of 1 would leave no cross-entropy."""
    outputs = kdbench.build_model("resnet8", num_classes=4)(torch.randn(8, 3, 8, 8))
    batch = kdbench.Batch(torch.randn(8, 3, 8, 8), torch.arange(8) % 4, torch.arange(8), 0, 1, torch.Generator())
    given = {"student": outputs, "teacher": outputs, "labels": batch.labels, "kd": {"alpha": 1}, "crd": {"beta": 0.8}}
    method = kdbench.build_method("crd+kd", ce=1, **given)
    method.losses(outputs, outputs, batch)
    assert method.ce_weight == 1
    with pytest.raises(
        PairError, match=r"kd trains without the cross-entropy, and crd with it. .*`crd\+kd: \{ce: 1\}`, or 0 for none"
    ):
        kdbench.build_method("crd+kd", **given)


def test_it_changes_by_epoch_in_a_loop_of_ones_own() -> None:
    outputs = kdbench.build_model("resnet8", num_classes=4)(torch.randn(8, 3, 8, 8))
    method = kdbench.build_method("kd", student=outputs, teacher=outputs, ce={0: 1, 2: 0.5, 3: 0})
    seen = []
    for epoch in range(5):
        batch = kdbench.Batch(torch.randn(8, 3, 8, 8), torch.arange(8) % 4, torch.arange(8), epoch, 5, torch.Generator())
        method.losses(outputs, outputs, batch)
        seen.append(method.ce_weight)
    assert seen == [1, 1, 0.5, 0, 0]


PAIR = {"teacher": "wrn_10_1", "student": "resnet8"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"methods": ["simkd+kd"]},
            r"methods\[0\]: simkd trains without the cross-entropy, and kd with it. Say .* or 0 for none\.$",
        ),
        ({"methods": ["kd", {"at+kd": {"kd": {"alpha": 1}}}]}, r"methods\[1\].at\+kd: kd trains without the cross-entropy, and at"),
        (
            {"methods": ["at+kd"], "pairs": [{**PAIR, "methods": {"kd": {"alpha": 1}}}]},
            r"methods\[0\]: kd trains without the cross-",
        ),
        (
            {"methods": [{"simkd+norm": {"ce": 1}}]},
            "simkd and norm each predict in their own way, where a student has one; keep one",
        ),
        (
            {"methods": ["kd"], "pairs": [{**PAIR, "teacher": {"model": "resnet8", "method": "ab+kd", "teacher": "resnet14"}}]},
            r"pairs\[0\].teacher.method: ab trains without the cross-entropy, and kd with it",
        ),
        (
            {"methods": ["at+kd"], "tune": {"budget": 2, "grid": {"at+kd": {"kd": {"alpha": [1]}}}}},
            r"tune.grid.at\+kd: kd trains without the cross-entropy, and at with it",
        ),
    ],
    ids=["simkd", "its parameters", "a pair's", "predict", "teacher", "tuned"],
)
def test_a_composition_whose_parts_disagree_is_refused_when_the_suite_is_read(lab: Lab, changes: Any, message: str) -> None:
    with pytest.raises(KdbenchError, match=message):
        lab.suite(**changes)


class Picky(Method):
    """Trains without the cross-entropy, and needs three classes."""

    def build(self, pair: Pair) -> None:
        if pair.student.logits != (3,):
            raise PairError("it needs three classes")
        self.ce_weight = 0.0

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {}


def test_what_only_the_networks_tell_is_refused_before_anything_trains(
    lab: Lab, register: Callable[[str, type[Method]], None]
) -> None:
    register("picky", Picky)
    suite = lab.suite(methods=["scratch", "at+picky", {"at+kd": {"ce": 1, "kd": {"alpha": 1}}}])
    with pytest.raises(KdbenchError, match="picky trains without the cross-entropy, and at with it"):
        lab.run(suite)
    assert not list(lab.store.root.glob("trials/*"))
    assert Composition({}).ce_weight == 1


@pytest.mark.parametrize(
    ("name", "given", "note"),
    [
        ("kd+mlkd_noaug", {}, "weighs 0.01, 0.1 (kd) and 0.1 (mlkd_noaug) multiplied; `kd+mlkd_noaug: {ce: 1}` sets another"),
        ("byot+kd", {}, "weighs 0.09, 0.9 (byot) and 0.1 (kd) multiplied; `byot+kd: {ce: 1}` sets another"),
        ("kd+mlkd_noaug", {"ce": 1}, None),
        ("at+kd", {}, None),  # a single one lowers it
        ("byot+kd", {"byot": {"alpha": 1}, "kd": {"alpha": 1}}, None),  # both say that there is none
    ],
)
def test_what_several_parts_leave_of_it_is_noted(name: str, given: dict[str, Any], note: str | None) -> None:
    outputs = kdbench.build_model("resnet8", num_classes=4)(torch.randn(8, 3, 8, 8))
    method = kdbench.build_method(name, student=outputs, teacher=outputs, image_shape=(3, 8, 8), **given)
    assert method.notes == ([f"{name}: the cross-entropy {note}"] if note else [])


def test_settings_that_differ_in_it_have_rows_of_their_own(lab: Lab) -> None:
    methods = ["kd", {"kd": {"ce": 1}}, {"at+kd": {"ce": {0: 1, 1: 0}}}]
    suite = lab.suite(methods=methods)
    ids = [trial.id for trial in suite.trials]
    assert len(set(ids)) == 3 and ids[0] == lab.suite(methods=["kd"]).trials[0].id
    assert [setting(trial) for trial in suite.trials] == ["kd", "kd (ce=1)", "at+kd (ce={0: 1.0, 1: 0.0})"]
    lab.run(suite)
    labels = read_records(lab.store.root).set_index("trial")["label"]
    assert [labels[trial] for trial in ids[:2]] == ["KD", "KD (ce=1)"]
    assert lab.suite(methods=[{"kd": {"ce": {0: 1}}}]).trials[0].id == ids[1], "a weight that never changes is one number"


def test_a_suite_written_out_keeps_it(lab: Lab, tmp_path: Path) -> None:
    file = lab.write(methods=["scratch", {"kd": {"ce": 0.5}}, {"at+kd": {"ce": {0: 1, 1: 0.5}}}])
    copy = tmp_path / "copy.yaml"
    copy.write_text(shown("suite", str(file))[1])
    assert [trial.id for trial in load_suite(copy).trials] == [trial.id for trial in load_suite(file).trials]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1, r"kd\.ce: give a weight of the cross-entropy, 0 or more; or weights by epoch from epoch 0 on"),
        ("much", r"kd\.ce: give a weight"),
        ({}, r"kd\.ce: give a weight"),
        ({1: 0.5}, r"kd\.ce: give a weight"),
        ({0: 1, 2: 0.5}, r"kd\.ce: epoch 2 is never reached in 2 epochs. Give less."),
    ],
)
def test_a_weight_that_is_none(lab: Lab, weight: object, message: str) -> None:
    with pytest.raises(KdbenchError, match=message):
        lab.suite(methods=[{"kd": {"ce": weight}}])


def test_no_parameter_may_have_its_name() -> None:
    params = type("Params", (kdbench.MethodParams,), {"__annotations__": {"ce": float}, "ce": 1.0})
    with pytest.raises(KdbenchError, match="`ce` is the weight of the cross-entropy in suites"):
        type("Odd", (kdbench.Method,), {"Params": params})


class Lasting(Method):
    """Leaves a part in the deployed network, and predicts as the student does."""

    def build(self, pair: Pair) -> None:
        self.part = torch.nn.Linear(pair.student.pooled[0], 1)

    def losses(self, student: Outputs, teacher: Outputs, batch: Batch) -> Losses:
        return {"size": self.part(student.pooled).square().mean()}

    def deployed(self) -> tuple[torch.Tensor, ...]:
        return tuple(self.part.parameters())


def test_deployed_parts_that_disagree_on_it_are_tested_kept_and_loaded(lab: Lab, register: Any) -> None:
    register("lasting", Lasting)
    suite = lab.suite(methods=[{"simkd+lasting": {"ce": 1}}], keep_students=True, recipe=RECIPE)
    lab.run(suite)
    (trial,) = suite.trials
    assert lab.record(trial).reason is None
    assert kdbench.load_student(lab.store.folder(trial.id))(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


def test_a_student_that_cannot_predict_fails_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Lane.predictor

    def predictor(lane: Lane) -> Any:
        if "at" in lane.method.parts:
            raise ValueError("no prediction")
        return original(lane)

    monkeypatch.setattr(Lane, "predictor", predictor)
    suite = lab.suite(methods=["scratch", "at", "kd"])
    lab.run(suite)
    failed = {trial.method: lab.record(trial).reason for trial in suite.trials}
    assert failed.pop("at").startswith("ValueError: no prediction") and failed == {"scratch": None, "kd": None}
