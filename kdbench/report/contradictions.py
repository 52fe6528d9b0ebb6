"""What in a trial's numbers cannot be so: a record that does not fit its own curve, its test images, or another seed."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from kdbench.results.layout import SHORT
from kdbench.spec.record import PROTOCOL

_ALMOST = 1e-6
"""Sums and percentages may be rounded by whoever stored or exported them; what is told here differs by far more."""


def with_contradictions(results: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The frame with a note on each finished trial that has numbers which cannot be so.

    The notes say what does not fit, and nothing of why: a mistake in copying leaves the same traces as a change by hand. Trials of
    another protocol are passed over: their numbers may be defined otherwise.

    Args:
        results: a frame of `load_results`.
        curves: that of `load_curves`; a trial without a curve is not held against one.
    """
    found: dict[str, list[str]] = {}
    trained = results[(results["status"] == "done") & (results["epochs"] > 0) & (results["protocol"] == PROTOCOL)]
    for trial, said in [*_of_test_images(trained), *_of_curves(trained, curves), *_of_seeds(trained)]:
        found.setdefault(trial, []).append(f"trial {trial[:SHORT]}: {said}")
    if not found:
        return results
    rows = zip(results["notes"], results["trial"], strict=True)
    notes = [(*before, *found[trial]) if trial in found else before for before, trial in rows]
    return results.assign(notes=pd.Series(notes, results.index, dtype=object))


def _of_test_images(trained: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """A share of N images is one of N + 1 numbers."""
    known = trained.dropna(subset=["test_images"])
    for trial, images, error in known[["trial", "test_images", "test_error_pct"]].itertuples(index=False):
        wrong = int(images) * error / 100
        if abs(wrong - round(wrong)) > _ALMOST * int(images) or not 0 <= error <= 100:
            yield trial, f"no number of wrong images among the {int(images):,} test images gives this test error"


def _of_curves(trained: pd.DataFrame, curves: pd.DataFrame) -> Iterator[tuple[str, str]]:
    if curves.empty:
        return
    epochs = dict(tuple(curves.groupby("trial")))
    numbers = ["trial", "epochs", "test_error_pct", "train_s", "train_images_per_s"]
    for trial, asked, error, seconds, speed in trained[numbers].itertuples(index=False):
        if trial not in epochs:
            continue
        main = epochs[trial][epochs[trial]["stage"] == "main"]
        if len(main) != asked:
            yield trial, "the curve has not as many epochs as the recipe"
        elif abs(main["test_error_pct"].iloc[-1] - error) > _ALMOST:
            yield trial, "the test error is not that of the last epoch of the curve"
        if abs(epochs[trial]["train_s"].sum() - seconds) > _ALMOST * seconds:
            yield trial, "the seconds of training are not those of the curve"
        if abs((main["images"] / main["train_s"]).median() - speed) > _ALMOST * speed:
            yield trial, "the speed of training is not that of the curve"


def _of_seeds(trained: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Another seed gives another start and other batches, so no two end with the same weights."""
    for _, same in trained.groupby(["dataset", "student", "weights_sha256"], sort=False):
        if same["seed"].nunique() > 1:
            for trial in same["trial"]:
                yield trial, "the weights are, bit for bit, those of a trial with another seed"
