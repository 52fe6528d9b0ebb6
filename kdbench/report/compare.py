"""Which trials may stand in one table: those of a pair side by side, and a refusal to mix what is not comparable."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from kdbench.errors import KdbenchError, refuse_no_list
from kdbench.report.method_labels import method_labels, plain_label
from kdbench.spec.metrics import METRICS, Metric
from kdbench.spec.report_options import DEFAULT, ReportOptions
from kdbench.wording import counted

_ALONE = "Report one suite alone with `kdbench report SUITE`, or filter the frame."

_MUST_AGREE: tuple[tuple[str, list[str], str, str], ...] = (
    ("protocol", [], "protocol versions", "Run the older trials again, or report each version alone."),
    ("precision", [], "precisions", _ALONE),
    ("recipe", ["dataset", "student"], "recipes", _ALONE),
    ("epochs", ["dataset", "student"], "numbers of epochs", _ALONE),
    ("teacher_weights_sha256", ["dataset", "teacher", "student", "seed"], "different teachers of one name", _ALONE),
    ("dataset_params", ["dataset"], "settings of the data", "Run each with its own `label`."),
    ("data_fingerprint", ["dataset"], "versions of the data", "Run the older trials again on the present data."),
    ("method_code", ["method", "student"], "versions of the method's code", "Run the older trials again."),
    ("stages", ["method", "dataset", "student"], "settings of `stages`", _ALONE),
)
"""Column; the columns within whose groups it must be one; what several of it are called; the fix."""

_NUMBERS = [
    *dict.fromkeys(column for metric in METRICS.values() for column in (metric.column, metric.teacher_column) if column),
    "best_test_error_pct",
    *("validation_error_pct", "selected_test_error_pct", "selected_epoch"),
    *("student_params", "student_macs", "teacher_params", "teacher_macs", "extra_params"),
    *("train_images_per_s", "inference_images_per_s", "teacher_inference_images_per_s"),
]
"""A column in which some trial has no number may hold Python objects."""

_IDENTITY = ["dataset", "recipe", "teacher", "student", "method", "method_params", "seed"]


@dataclass(frozen=True)
class PairTrials:
    """The trials of one teacher and one student on one data set: a row of a table, a panel of a plot.

    Attributes:
        name: what tables and panels call it; it includes the data set where there are several.
        trials: rows of `results` with the column `label`, those of methods without a teacher included.
        metric: what is compared.
    """

    dataset: str
    teacher: str
    student: str
    name: str
    trials: pd.DataFrame
    metric: Metric

    @cached_property
    def done(self) -> pd.DataFrame:
        """The trials that have numbers."""
        return self.trials[self.trials["status"] == "done"]

    def has(self, label: str) -> bool:
        """Whether any trial, done or not, is of this method."""
        return bool((self.trials["label"] == label).any())

    def by_seed(self, label: str, metric: Metric | None = None) -> pd.Series[float]:
        """What the finished trials of one method have of a metric, the comparison's unless given, indexed by seed."""
        metric = metric or self.metric
        return metric.of(self.column(label, metric.column))

    def column(self, label: str, name: str) -> pd.Series[float]:
        """A column of the frame, of the finished trials of one method that have it, indexed by seed."""
        of_method = (self.done["label"] == label).to_numpy()
        values = pd.Series(self.done[name].to_numpy()[of_method], self.done["seed"].to_numpy()[of_method], name=name)
        return values.rename_axis("seed").dropna().sort_index()

    @property
    def of_teacher(self) -> pd.Series[float]:
        """The metric of its teacher, one for each training of it; empty where the frame does not tell it."""
        column = self.metric.teacher_column
        if column is None:
            return pd.Series(dtype=float)
        return self.metric.of(self.done.dropna(subset=column).drop_duplicates("teacher_weights_sha256")[column])

    def best(self, metric: Metric | None = None, *, decimals: int = 2) -> tuple[str, ...]:
        """The methods that share the best of the means that may be held against each other, where there are several."""
        means = self.ranked(metric).round(decimals)
        if len(means) < 2:
            return ()
        best = means.min() if (metric or self.metric).lower_is_better else means.max()
        return tuple(means.index[means == best])

    def ranked(self, metric: Metric | None = None) -> pd.Series[float]:
        """By method, the means of a metric that may be held against each other: over seeds that all of them have.

        Of the methods and the seeds that they share this is the largest block: a method of which much is missing is left out, and
        seeds that few methods have.
        """
        metric = metric or self.metric
        seeds = self.done.dropna(subset=metric.column).groupby("label", sort=False)["seed"].agg(frozenset)
        blocks = [(shared, [label for label, found in seeds.items() if found >= shared]) for shared in seeds.unique()]
        if not blocks:
            return pd.Series(dtype=float)
        shared, labels = max(blocks, key=lambda block: (len(block[0]) * len(block[1]), len(block[0])))
        return pd.Series({str(label): self.by_seed(str(label), metric).loc[sorted(shared)].mean() for label in labels})


@dataclass(frozen=True)
class Comparison:
    """Trials that were found comparable.

    Attributes:
        results: every trial that takes part, once, with the column `label`.
        pairs: the same by pair; a trial without a teacher stands in every pair with its student.
        labels: the methods, in the order of columns.
        datasets: the labels of the data sets.
        options: what is compared, and how it is shown.
    """

    results: pd.DataFrame
    pairs: tuple[PairTrials, ...]
    labels: tuple[str, ...]
    datasets: tuple[str, ...]
    options: ReportOptions

    @property
    def metric(self) -> Metric:
        """What is compared."""
        return self.pairs[0].metric

    def of(self, metric: Metric) -> Comparison:
        """The same trials, compared by another metric."""
        return replace(self, pairs=tuple(replace(pair, metric=metric) for pair in self.pairs))

    @property
    def baseline(self) -> str:
        """The label of the method that gains are given over, whether or not it has trials."""
        return plain_label(self.options.baseline) if self.options.baseline not in self.labels else self.options.baseline


def compare(
    results: pd.DataFrame,
    *,
    pairs: Sequence[tuple[str, str]],
    methods: Sequence[str] = (),
    options: ReportOptions = DEFAULT,
) -> Comparison:
    """Arrange the trials of `pairs`, (teacher, student), for tables and plots.

    Args:
        results: one row for each trial, done or not; errors in percent, speeds in images per second.
        pairs: (teacher, student), in the order of rows.
        methods: the order of columns; methods that it does not name follow in the order of the frame.
        options: what is compared, and how it is shown.

    Raises:
        KdbenchError: the trials are not comparable, a pair has none, or no finished trial has the metric.
    """
    refuse_no_list("methods", methods, example=["kd", "ft"])
    refuse_no_list("pairs", pairs, example=[("resnet56", "resnet20")])
    metric = options.compared
    teacherless = results["teacher"].isna() & results["student"].isin([student for _, student in pairs])
    paired = pd.Series([pair in pairs for pair in zip(results["teacher"], results["student"], strict=True)], results.index)
    chosen = results[teacherless | paired]
    missing = [name for name in (*_NUMBERS, "stages") if name not in chosen]  # of a file that an earlier kdbench wrote
    chosen = chosen.reindex(columns=[*chosen, *missing])
    check_comparable(chosen)
    chosen = chosen.astype(dict.fromkeys(_NUMBERS, float)).assign(label=method_labels(chosen))
    rank = {method: position for position, method in enumerate(methods)}
    labelled = chosen.drop_duplicates("label")
    labels = labelled.iloc[labelled["method"].map(lambda method: rank.get(method, len(rank))).argsort(kind="stable")]["label"]
    datasets = tuple(chosen["dataset"].unique())
    if chosen[metric.column].isna().all() and (chosen["status"] == "done").any():
        raise KdbenchError(f"no finished trial has the {metric.noun} (column {metric.column}). Choose another metric.")
    arranged = [
        block for dataset in datasets for pair in pairs for block in _pair_trials(chosen, dataset, pair, len(datasets) > 1, metric)
    ]
    for pair in pairs:
        if not any((block.teacher, block.student) == pair for block in arranged):
            raise KdbenchError(f"the results hold no trial of the pair {' → '.join(pair)}. Run the suite first, or drop the pair.")
    return Comparison(chosen, tuple(arranged), tuple(labels), datasets, options)


def _pair_trials(
    results: pd.DataFrame, dataset: str, pair: tuple[str, str], several_datasets: bool, metric: Metric
) -> Iterator[PairTrials]:
    """The pair on the data set; nothing where it has no trial there but trials on another data set."""
    teacher, student = pair
    with_pair = (results["teacher"] == teacher) & (results["student"] == student)
    teacherless = results["teacher"].isna() & (results["student"] == student)
    here = results["dataset"] == dataset
    trials = results[here & (with_pair | teacherless)]
    if (with_pair & here).any() or (not with_pair.any() and len(trials)):
        arrow = f"{teacher} → {student}"
        yield PairTrials(dataset, teacher, student, f"{dataset}: {arrow}" if several_datasets else arrow, trials, metric)


def check_comparable(results: pd.DataFrame) -> None:
    """Refuse finished trials that may not stand in one table.

    Raises:
        KdbenchError: they mix protocols, precisions, recipes or data, or the code of one method, or one trial stands there twice.
    """
    done = results[results["status"] == "done"]
    for column, within, noun, fix in _MUST_AGREE:
        for where, rows in _groups(done, within):
            if rows[column].nunique() > 1:
                examples = "; ".join(
                    f"{value} ({counted(len(group), 'trial')}, such as {group['trial'].iloc[0]})"
                    for value, group in rows.groupby(column)
                )
                of = f" of {where}" if where else ""
                raise KdbenchError(f"one table cannot mix {noun}{of}: {examples}. {fix}")
    for _, rows in done.groupby(_IDENTITY, dropna=False):
        if len(rows) > 1:
            first, second = rows["trial"].iloc[:2]
            raise KdbenchError(
                f"trials {first} and {second} have the same pair, method, parameters and seed, and a table has one cell for them. "
                "Leave one of them out."
            )


def _groups(frame: pd.DataFrame, columns: list[str]) -> Iterator[tuple[Hashable, pd.DataFrame]]:
    """The groups by `columns` with the value of the first one; the whole frame under the empty name where there are none."""
    if not columns:
        yield "", frame
        return
    for values, rows in frame.groupby(columns, sort=False):
        yield values[0] if isinstance(values, tuple) else values, rows
