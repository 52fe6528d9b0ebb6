"""What a reader of times must be told: where the machine had other work, and where no time is of one training alone."""

from __future__ import annotations

import pandas as pd

from kdbench.errors import listed
from kdbench.report.compare import Comparison
from kdbench.wording import counted

UNEVEN = 1.25
"""By what factor speeds of one thing may differ between trials that are said to be timed alike."""


def stacked(done: pd.DataFrame) -> bool:
    """Whether some of these finished trials were stacked: their times are shares of a block's, and not what each costs alone."""
    return any("stacked" in str(precision).split(", ") for precision in done["precision"].unique())


def timing_notes(comparison: Comparison) -> list[str]:
    """Sentences on the times of finished trials; none where nothing shows that the machine had other work."""
    return [*_uneven(comparison), *_apart(comparison), *_shared(comparison.results.query("status == 'done'"))]


def _apart(comparison: Comparison) -> list[str]:
    """Which methods were timed in another run than the baseline: with some seed, one was planned when the other was done."""
    found: dict[tuple[str, ...], list[str]] = {}
    for pair in comparison.pairs:
        if not {"planned", "finished"} <= {*pair.done} or stacked(pair.done):
            continue
        planned = pair.done["planned"].astype(object)
        for column in ("first_finished", "planned_again"):  # earlier versions have the first alone, which tells "not before"
            planned = pair.done.get(column, planned).astype(object).fillna(planned)
        timed = pair.done.assign(planned=planned).dropna(subset=["planned", "finished", "train_s"])
        beside = timed.merge(timed[timed["label"] == comparison.baseline], on=["environment", "seed"], suffixes=("", "_baseline"))
        later, earlier = beside["planned"] > beside["finished_baseline"], beside["planned_baseline"] > beside["finished"]
        if labels := tuple(map(str, beside.loc[later | earlier, "label"].unique())):
            found.setdefault(labels, []).append(pair.name)
    return [
        f"{listed(labels)}: timed in another run than {comparison.baseline}"
        + (f" ({listed(pairs)})" if len(pairs) < len(comparison.pairs) else "")
        + f". So the time against {comparison.baseline} tells how busy the machine was in each run, too, not what the method costs "
        "alone. `kdbench run` with a new folder for --results times all in one run."
        for labels, pairs in found.items()
    ]


def _uneven(comparison: Comparison) -> list[str]:
    """Whether trainings were timed under other loads, as the speed of one teacher shows, or of one method with other seeds."""
    speeds = []
    for pair in comparison.pairs:
        at = f" ({pair.name})" if len(comparison.pairs) > 1 else ""
        for _, rates in pair.done.groupby(["environment", "teacher_weights_sha256"])["teacher_inference_images_per_s"]:
            speeds.append((rates.max() / rates.min(), f"one teacher processed {_range(rates)} images/s{at}"))
        for (_, label), rates in pair.done.groupby(["environment", "label"])["train_images_per_s"]:
            speeds.append((rates.max() / rates.min(), f"{label} trained at {_range(rates)} images/s, by seed{at}"))
    uneven = [(factor, text) for factor, text in speeds if factor > UNEVEN]  # none is NaN, as where nothing was measured
    if not uneven:
        return []
    _, text = max(uneven)
    return [f"The machine was not equally busy in all trials: {text}. So speeds and times are rough."]


def _range(rates: pd.Series[float]) -> str:
    return f"{rates.min():,.0f} to {rates.max():,.0f}"


def _shared(done: pd.DataFrame) -> list[str]:
    """What must be said of times where trials trained while other jobs ran on their machine; nothing where each was alone."""
    beside = done.reindex(columns=["jobs_on_machine"])["jobs_on_machine"].fillna(1)  # an earlier version's export lacks it
    if not (shared := int((beside > 1).sum())):
        return []
    return [
        f"{shared} of {counted(len(done), 'trial')} trained while other jobs ran on the same machine, up to {int(beside.max())} at "
        "once: their times and speeds are rough. `kdbench run` with --engine here --lanes 1 times each method alone."
    ]
