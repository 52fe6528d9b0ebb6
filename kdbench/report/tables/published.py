"""Our errors beside published ones: what a reader who knows the papers looks for first."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.report.compare import Comparison, PairTrials
from kdbench.report.notes import changed_parameters, shared_stages
from kdbench.report.tables.cells import mean_and_std, method_row, on_data, pair_heading
from kdbench.report.tables.selection import tested
from kdbench.report.tables.table import NONE, Cell, Table
from kdbench.spec.metrics import Metric

LAST = "last epoch"


def plain(dataset: str) -> str:
    """`CIFAR-100 (JPEG)` and `cifar100` are the same data set to a reader who is told of the difference."""
    return re.sub(r"[^a-z0-9]", "", dataset.split("(")[0].lower())


def published_table(comparison: Comparison, published: pd.DataFrame) -> Table:
    """For each pair and method our test error and, in a column for each source, what was published, with the difference; accuracies
    where these are compared.

    Args:
        comparison: our trials.
        published: what `kdbench.report.published_numbers.read_published` gives.

    Raises:
        KdbenchError: a file of `published` has no number for any row.
    """
    metric = tested(comparison.metric)
    comparison = comparison.of(metric)
    entries = [_entries(comparison, pair, published) for pair in comparison.pairs]
    matching = pd.concat([numbers for pair in entries for _, _, numbers in pair])
    _refuse_unused(published, matching, comparison)
    sources = [source for source in published["source"].unique() if source in set(matching["source"])]
    rows = []
    for pair, found in zip(comparison.pairs, entries, strict=True):
        for label, ours, numbers in found:
            beside = [_published_cell(numbers[numbers["source"] == source], ours, metric) for source in sources]
            rows.append(method_row(comparison, pair, (Cell(label), ours, *beside), first=label == "teacher"))
    columns = (*pair_heading(comparison), "Method", "Ours", *(source.split(" (")[0] for source in sources))
    protocols = [_protocol(matching[matching["source"] == source], metric) for source in sources]
    changed = changed_parameters(comparison.results)
    about = (
        f"In parentheses: our {metric.short} minus the published one, in points. Above 0, our {metric.short} is higher. This is no "
        "test of significance: most published numbers are of one run, or come without a standard deviation.",
        "The teachers differ too: read the row of the teacher first.",
    )
    notes = (*about, *_data(comparison), *shared_stages(comparison.results), *changed, *_settings(matching), *protocols)
    title = f"{metric.heading} beside published numbers{on_data(comparison, with_pair=True)}"
    return Table("published", title, columns, tuple(rows), notes, naming=columns.index("Ours"))


def _entries(comparison: Comparison, pair: PairTrials, published: pd.DataFrame) -> list[tuple[str, Cell, pd.DataFrame]]:
    """For the teacher and each method of the pair: its label, our error, and its numbers, with what ours differ in."""
    dataset, teacher_model, student_model = pair.place
    of_pair = (published["teacher"] == _model(teacher_model)) & (published["student"] == _model(student_model))
    here = published[of_pair & (published["dataset"].map(plain) == plain(dataset))]
    teacher, of_teacher = pair.of_teacher, here[here["method"] == "teacher"].assign(label="teacher", epochs_here=float("nan"))
    entries = [("teacher", mean_and_std(teacher, len(teacher), decimals=pair.metric.decimals), of_teacher)]
    for label in comparison.labels:
        trials = pair.trials[pair.trials["label"] == label]
        if len(trials):
            numbers = _of_method(here, published, *trials[["method", "method_params"]].iloc[0])
            ours = mean_and_std(pair.by_seed(label), trials["seed"].nunique(), decimals=pair.metric.decimals)
            gap = float(
                pair.metric.gain(
                    pair.by_seed(label, replace(pair.metric, column="best_test_error_pct")), over=pair.by_seed(label)
                ).mean()
            )
            if trials["evaluate_every"].iloc[0] > 1:
                gap = float("nan")  # the best of a few epochs says little of the best of all
            entries.append((label, ours, numbers.assign(label=label, best_epoch_gains=gap, epochs_here=trials["epochs"].iloc[0])))
    return entries


def _model(network: str) -> str:
    """A network without the weights that it starts from, which stand in parentheses; a teacher with a teacher of its own stays."""
    taught = " from " in network or " (by " in network or " and " in network
    return network if taught else network.split(" (")[0]


def _of_method(here: pd.DataFrame, published: pd.DataFrame, method: str, method_params: str) -> pd.DataFrame:
    """The numbers of a pair for trials of a method with these parameters.

    Where some number anywhere in `published` is for parameters that the trials have, no number of the plain method is for them.
    """
    trial = {part: params for part, params in json.loads(method_params).items() if isinstance(params, dict)}
    named = published.loc[published["method"].map(_in_order) == _in_order(method), "params"].unique()
    fitting = [text for text in named if _has(trial, json.loads(text))]
    most = max(fitting, key=lambda text: sum(map(len, json.loads(text).values())), default="{}")
    return here[(here["method"].map(_in_order) == _in_order(method)) & (here["params"] == most)]


def _has(trial: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(
        name in trial.get(part, {}) and trial[part][name] == value
        for part, params in wanted.items()
        for name, value in params.items()
    )


def _in_order(method: str) -> str:
    """`kd+at` is `at+kd`."""
    return "+".join(sorted(method.split("+")))


def _refuse_unused(published: pd.DataFrame, matching: pd.DataFrame, comparison: Comparison) -> None:
    for file in published["file"].unique():
        if file not in set(matching["file"]):
            pairs = "; ".join(f"{pair.name} on {pair.dataset}" for pair in comparison.pairs)
            raise KdbenchError(
                f"{file} has no number for any method of this report ({pairs}). Leave it out, or give a file of your own with "
                "--published-csv."
            )


def _published_cell(numbers: pd.DataFrame, ours: Cell, metric: Metric) -> Cell:
    if numbers.empty:
        return Cell(NONE)
    number = numbers.iloc[0]
    value, std = metric.of(float(number["error_pct"])), number["std"]
    text = metric.number(value) if pd.isna(std) else f"{metric.number(value)} ± {metric.number(std)}"
    if "mean" not in ours.values:
        return Cell(text, values={"published": value})
    difference = ours.values["mean"] - value
    return Cell(f"{text} ({metric.difference(difference)})", values={"published": value, "ours_minus_published": difference})


def _data(comparison: Comparison) -> list[str]:
    """What the label of a data set says of ours and of nobody else's."""
    special = dict.fromkeys(pair.dataset for pair in comparison.pairs if "(" in pair.place.dataset)
    return [f"Our numbers are on {' and '.join(special)}. The published numbers are not."] if special else []


def _settings(matching: pd.DataFrame) -> list[str]:
    """Which numbers stand there several times, because a pair has their method in several settings."""
    of_number = matching.groupby(["source", "teacher", "student", "method", "params"])["label"].unique()
    several = dict.fromkeys(", ".join(labels) for labels in of_number if len(labels) > 1)
    return [f"{labels}: the same published number is shown for each." for labels in several]


def _protocol(numbers: pd.DataFrame, metric: Metric) -> str:
    """A source in full, how its protocol differs from ours, and what its single methods are."""
    selections = numbers["selection"].unique()
    differences = []
    if others := [selection for selection in selections if selection != LAST]:
        differences.append(f"{'; '.join(others)}, where ours is the last epoch{_if_best(numbers, metric)}")
    if LAST in selections:
        differences.append("last epoch, as ours" if len(selections) == 1 else "some last epoch, as ours")
    epochs = numbers.dropna(subset=["epochs", "epochs_here"])
    noun = "epoch" if epochs["epochs"].max() == 1 else "epochs"
    if (differing := epochs[epochs["epochs"] != epochs["epochs_here"]]).size:
        there, here = (_listed(differing[column]) for column in ("epochs", "epochs_here"))
        differences.append(f"{there} {noun}, ours {here}")
    elif epochs.empty:
        differences.append("epochs not known")
    else:
        differences.append(f"{_listed(epochs['epochs'])} {noun}, as ours")
    parts = numbers[numbers["note"] != ""].assign(note=lambda noted: noted["note"].str.split("; ")).explode("note")
    methods = parts.groupby("note", sort=False)["label"].unique()
    remarks = "".join(f" {', '.join(labels)}: {part}." for part, labels in methods.items())
    return f"{numbers['source'].iloc[0]}: {'; '.join(differences)}.{remarks}"


def _if_best(numbers: pd.DataFrame, metric: Metric) -> str:
    """What the choice of the best test epoch would give us; nothing where the source made another choice, or we have none."""
    chosen = numbers["selection"].str.contains("best") & numbers["selection"].str.contains("test")
    gain = numbers.loc[chosen, "best_epoch_gains"].mean()
    better = "lower" if metric.lower_is_better else "higher"
    return "" if pd.isna(gain) else f" (with the same choice, ours would be {metric.number(gain)} points {better} on average)"


def _listed(epochs: pd.Series[int]) -> str:
    return " or ".join(str(int(count)) for count in sorted(epochs.unique()))
