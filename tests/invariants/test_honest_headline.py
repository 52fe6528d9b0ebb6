"""8. An honest headline: the number is the last epoch's, and whatever is chosen is chosen on validation images."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import TRAIN_IMAGES, Lab
from torch import Tensor

from invariants.everything import Everything
from invariants.probes import around_steps, short
from kdbench.data import hold_out


def test_the_headline_is_the_last_epoch_and_the_best_is_told_apart(everything: Everything) -> None:
    differ = 0
    for trial in everything.suite.trials:
        record = everything.lab.record(trial)
        errors = [row["test_error_pct"] for row in everything.lab.curves(trial) if row["stage"] == "main"]
        assert record.test_error_pct == errors[-1]
        assert (record.best_test_error_pct, record.best_epoch) == (min(errors), errors.index(min(errors)) + 1)
        assert (record.validation_error_pct, record.selected_test_error_pct, record.selected_epoch) == (None, None, None)
        differ += record.test_error_pct != record.best_test_error_pct
    assert differ, "no trial tells the two apart"


def test_a_student_is_tested_as_often_as_the_recipe_says_and_in_any_case_at_the_end(lab: Lab, another: Lab) -> None:
    suite = lab.suite(recipe={"epochs": 5, "evaluate_every": 2})
    lab.run(suite)
    another.run(another.suite(recipe={"epochs": 5}))
    for trial in suite.trials:
        rows = [row for row in lab.curves(trial) if row["stage"] == "main"]
        assert [row["epoch"] for row in rows if "test_error_pct" in row] == [2, 4, 5]
        assert lab.record(trial).test_error_pct == rows[-1]["test_error_pct"]
        assert lab.record(trial).best_epoch in (2, 4, 5)
    ends = [
        {(record.method, record.weights_sha256) for record in map(place.record, place.suite(recipe=recipe).trials)}
        for place, recipe in ((lab, {"epochs": 5, "evaluate_every": 2}), (another, {"epochs": 5}))
    ]
    assert ends[0] == ends[1], "testing less often changes what is learnt"


def test_selection_looks_at_validation_images_alone_and_they_are_not_trained_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: set[bytes] = set()

    def look(lane: Any, images: Tensor, indices: Tensor) -> Iterator[None]:
        trained_on.update(image.contiguous().numpy().tobytes() for image in images)
        yield

    around_steps(monkeypatch, look)
    settings = {"recipe": {"epochs": 6, "augmentation": {"pad": 0, "flip": False}}, "methods": ["scratch", *short("ft")]}
    suite = lab.suite(dataset={"validation": 0.25}, **settings)
    lab.run(suite)
    differ = 0
    for trial in suite.trials:
        record, rows = lab.record(trial), [row for row in lab.curves(trial) if row["stage"] == "main"]
        validation = [row["validation_error_pct"] for row in rows]
        selected = validation.index(min(validation))
        assert record.validation_error_pct == validation[-1]
        assert record.selected_epoch == selected + 1
        assert record.selected_test_error_pct == rows[selected]["test_error_pct"]
        assert record.test_error_pct == rows[-1]["test_error_pct"]
        differ += record.selected_epoch != record.best_epoch
    assert differ, "no trial tells selection on validation from selection on test images"
    source, params = suite.source
    dataset = source(params, cache=lab.store.cache).load()
    _, held = hold_out(dataset.train, fraction=0.25)
    assert held is not None
    levels = (held.images.permute(0, 3, 1, 2) / 255 - dataset.mean[0]) / dataset.std[0]
    assert len(trained_on) == TRAIN_IMAGES - len(held)
    seen = torch.frombuffer(bytearray(b"".join(trained_on)), dtype=torch.float32).view(-1, 64)
    assert torch.cdist(levels.flatten(1), seen).min() > 0.1
