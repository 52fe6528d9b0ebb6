"""The statistics of a pair of networks: which methods differ, from its errors by seed and from the images that they got wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.statistics.comparisons import Comparisons, against_baseline, all_pairs
from kdbench.report.statistics.teachers import teacher_shares


def gains_over_baseline(comparison: Comparison, pair: PairTrials) -> Comparisons:
    """What each method with results gains over the baseline, with simultaneous intervals; nothing where the baseline has none."""
    values, wrong = by_seed(comparison, pair), wrong_images(comparison, pair)
    return against_baseline(values, comparison.baseline, wrong=wrong, lower_is_better=pair.metric.lower_is_better)


def differences_of_all(comparison: Comparison, pair: PairTrials) -> Comparisons:
    """What each method gains over each other, with simultaneous intervals."""
    values, wrong = by_seed(comparison, pair), wrong_images(comparison, pair)
    return all_pairs(values, wrong=wrong, lower_is_better=pair.metric.lower_is_better)


def by_seed(comparison: Comparison, pair: PairTrials) -> pd.DataFrame:
    """The metric: one row for each seed, one column for each method that has results."""
    found = {label: values for label in comparison.labels if len(values := pair.by_seed(label))}
    return pd.DataFrame(found)


def means_of_pairs(comparison: Comparison) -> pd.DataFrame:
    """The metric's means over the seeds that a pair's methods share: one row for each pair, one column for each method.

    A method that lacks many seeds of a pair has no mean there.
    """
    return pd.DataFrame(
        [pair.ranked().reindex(comparison.labels) for pair in comparison.pairs], [pair.name for pair in comparison.pairs]
    )


def wrong_images(comparison: Comparison, pair: PairTrials) -> Mapping[str, pd.DataFrame]:
    """By method which test images were wrong: one row for each seed, one column for each image.

    Only where the metric is a share of wrong images; without the trials and methods of which it was not kept.
    """
    if pair.metric.column != "test_error_pct":
        return {}
    rows = pair.done[pair.done["trial"].isin(list(comparison.outcomes))]
    return {
        str(label): pd.DataFrame(
            np.stack([comparison.outcomes[trial].wrong for trial in trials["trial"]]), index=pd.Index(trials["seed"])
        ).sort_index()
        for label, trials in rows.groupby("label", sort=False)
    }


def share_of_teachers(comparison: Comparison, pair: PairTrials) -> list[str]:
    """A sentence on how much of the spread is the teacher's, where the pair has several trainings of it."""
    taught = pair.done.dropna(subset="teacher_weights_sha256")
    teachers = taught.drop_duplicates("seed").set_index("seed")["teacher_weights_sha256"]
    values = by_seed(comparison, pair)
    teachers = teachers[teachers.index.isin(values.index)]
    shares = teacher_shares(values[[label for label in values if label in set(taught["label"])]].loc[teachers.index], teachers)
    return [shares.sentence] if shares else []
