"""Trials arranged for tables and figures: those of a pair side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import pandas as pd

from kdbench.errors import KdbenchError, refuse_no_list
from kdbench.report.choice import (
    Place,
    check_groups,
    chosen_baseline,
    chosen_methods,
    chosen_places,
    headings,
    highlighted_methods,
    named_methods,
    of_recipes,
    with_whole_names,
)
from kdbench.report.comparable import check_comparable
from kdbench.report.statistics.comparisons import largest_block
from kdbench.results.export import as_loaded
from kdbench.results.method_labels import labelled
from kdbench.results.outcomes import Outcomes
from kdbench.spec.metrics import METRICS, Metric
from kdbench.spec.report_options import DEFAULT, ReportOptions

_NUMBERS = [
    *dict.fromkeys(column for metric in METRICS.values() for column in (metric.column, metric.teacher_column) if column),
    *("best_test_error_pct", "one_class_error_pct"),
    *("validation_error_pct", "selected_test_error_pct", "selected_epoch"),
    *("student_params", "student_macs", "teacher_params", "teacher_macs", "extra_params"),
    *("train_images_per_s", "inference_images_per_s", "teacher_inference_images_per_s"),
]
"""A column in which some trial has no number may hold Python objects."""


@dataclass(frozen=True)
class PairTrials:
    """The trials of one teacher and one student on one data set: a row of a table, a panel of a plot.

    Attributes:
        dataset: what the report calls the data set; `teacher` and `student` likewise.
        name: what tables and panels call it; it includes the data set where there are several.
        trials: rows of `results` with the column `label`, those of methods without a teacher included.
        metric: what is compared.
        place: the pair under the names that suites give.
        timed: the finished trials of the pair, those of methods that are not shown included.
        heading: of the group of pairs that it is in; empty where it is in none.
    """

    dataset: str
    teacher: str
    student: str
    name: str
    trials: pd.DataFrame
    metric: Metric
    place: Place
    timed: pd.DataFrame
    heading: str = ""

    @cached_property
    def done(self) -> pd.DataFrame:
        """The trials that have numbers."""
        return self.trials[self.trials["status"] == "done"]

    def has(self, label: str) -> bool:
        """Whether any trial of this method has the metric, or may have it once it is done."""
        measured = (self.trials["status"] != "done") | self.trials[self.metric.column].notna()
        return bool((measured & (self.trials["label"] == label)).any())

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

    def best(self, metric: Metric | None = None, *, rank: int = 1) -> tuple[str, ...]:
        """The methods that share the best of the means that may be held against each other, where there are several; or the second
        best, of rank 2."""
        return ranked_at(self.ranked(metric), rank, metric or self.metric)

    def ranked(self, metric: Metric | None = None) -> pd.Series[float]:
        """By method, the means of a metric that may be held against each other: over seeds that all of them have."""
        block = self.block(metric)
        return pd.Series({str(label): block[label].mean() for label in block}, dtype=float)

    def block(self, metric: Metric | None = None) -> pd.DataFrame:
        """What is ranked: one row for each seed, one column for each method.

        Of the methods and the seeds that they share this is the largest block: a method of which much is missing is left out, and
        seeds that few methods have.
        """
        metric = metric or self.metric
        measured = self.done.dropna(subset=metric.column)["label"].unique()
        return largest_block(pd.DataFrame({str(label): self.by_seed(str(label), metric) for label in measured}))


def ranked_at(means: pd.Series[float], rank: int, metric: Metric) -> tuple[str, ...]:
    """The methods whose mean, as printed, is the best, or of another rank; none where fewer than two methods have means."""
    printed = means.dropna().map(metric.number).astype(float)  # `round` takes other halves up
    levels = sorted(printed.unique(), reverse=not metric.lower_is_better)
    return tuple(printed.index[printed == levels[rank - 1]]) if len(printed) > 1 and rank <= len(levels) else ()


@dataclass(frozen=True)
class Comparison:
    """Trials that were found comparable.

    Attributes:
        results: every trial that takes part, once, with the column `label`; networks and data sets as the report calls them.
        given: the same rows with the names that suites give.
        pairs: the same by pair; a trial without a teacher stands in every pair with its student.
        labels: the methods as the report calls them, in the order of columns.
        usual_labels: what the literature calls the methods, by label.
        headings: of the groups that the methods are in, by label; empty for those that are in none.
        datasets: the labels of the data sets.
        baseline: the label of the method that gains are given over, whether or not it has trials.
        options: what is compared, and how it is shown.
        highlighted: labels of the methods that are to stand out.
        outcomes: which test images were wrong, by the identity of a trial or of a teacher's; empty where that is not known.
        tuning: the settings that were tried of each method; empty where that is not known.
    """

    results: pd.DataFrame
    given: pd.DataFrame
    pairs: tuple[PairTrials, ...]
    labels: tuple[str, ...]
    usual_labels: Mapping[str, str]
    headings: Mapping[str, str]
    datasets: tuple[str, ...]
    baseline: str
    options: ReportOptions
    highlighted: tuple[str, ...] = ()
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    tuning: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def metric(self) -> Metric:
        """What is compared."""
        return self.pairs[0].metric

    @property
    def scratch(self) -> str:
        """The label of training without a teacher."""
        return self.options.names.get("scratch", "scratch")

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(self.labels)} on {', '.join(pair.name for pair in self.pairs)}>"

    def _repr_html_(self) -> str:
        from kdbench.report.tables.results import result_table  # which knows comparisons

        return result_table(self)._repr_html_()

    def of(self, metric: Metric) -> Comparison:
        """The same trials, compared by another metric."""
        return replace(self, pairs=tuple(replace(pair, metric=metric) for pair in self.pairs))

    def with_outcomes(self, outcomes: Mapping[str, Outcomes]) -> Comparison:
        """The same, with which test images were wrong: what `kdbench.load_outcomes` gives. It adds intervals over new images."""
        return replace(self, outcomes=outcomes)

    def with_tuning(self, tuning: pd.DataFrame) -> Comparison:
        """The same, with the settings that were tried: what `kdbench.runner.frame.tuning_frame` gives. It adds a table."""
        return replace(self, tuning=tuning)


def compare(
    results: pd.DataFrame,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    methods: Sequence[str] = (),
    options: ReportOptions = DEFAULT,
) -> Comparison:
    """Arrange trials for tables and figures.

    Args:
        results: what `kdbench.load_results` or `kdbench.run_suite` gives: one row for each trial, done or not. Or a file
            `results.csv` of a report, or one that `kdbench export` wrote, as pandas reads it.
        pairs: (teacher, student), in the order of rows; all that the frame has unless given.
        methods: the order of columns; methods that it does not name follow in the order of the frame. Those to show are an option.
        options: what is compared and shown, and how.

    Raises:
        KdbenchError: the trials are not comparable, a pair has none, no finished trial has the metric, or an option names what is
            not there. Or a column of lists holds other text.
    """
    refuse_no_list("methods", methods, example=["kd", "ft"])
    results = as_loaded(results)
    if "role" in results:
        results = results[results["role"] != "tuning"]  # they chose parameters, and are no results
    if options.recipes:
        results = of_recipes(results, options)
        there = {*zip(results["teacher"], results["student"], strict=True)}
        pairs = None if pairs is None else [pair for pair in pairs if pair in there]
    if pairs is None:
        results = trained_students(results)
        taught = results[results["teacher"].notna()]
        pairs = sorted({*zip(taught["teacher"], taught["student"], strict=True)})
    refuse_no_list("pairs", pairs, example=[("resnet56", "resnet20")])
    found = labelled(_rows_of(results, pairs), options.names)
    rank = {method: position for position, method in enumerate(methods)}
    known = sorted(named_methods(found), key=lambda named: rank.get(named.method, len(rank)))
    rows_of = _rows_by_place(found, pairs)
    options = with_whole_names(found, options)
    check_groups(list(rows_of), known, options)
    places = chosen_places(list(rows_of), options)
    labels_there = {label for place in places for label in rows_of[place]["label"]}
    shown = chosen_methods([named for named in known if named.label in labels_there], options)
    labels = tuple(named.label for named in shown)
    places = [place for place in places if rows_of[place]["label"].isin(labels).any()]
    taking_part = {row for place in places for row in rows_of[place].index}
    given = found[found.index.isin(taking_part) & found["label"].isin(labels)]
    check_comparable(given)
    metric = options.compared
    if given[metric.column].isna().all() and (given["status"] == "done").any():
        raise KdbenchError(f"no finished trial has the {metric.noun} (column {metric.column}). Choose another metric.")
    printed = _printed(given, options.names)
    datasets = tuple(printed["dataset"].unique())
    blocks = []
    for place, heading in zip(places, headings(places, options), strict=True):
        dataset, teacher, student = (options.names.get(name, name) for name in place)
        rows = rows_of[place]
        arrow = f"{teacher} → {student}"
        name = f"{dataset}: {arrow}" if len(datasets) > 1 else arrow
        trials, timed = printed[printed.index.isin(rows.index)], rows[rows["status"] == "done"]
        blocks.append(PairTrials(dataset, teacher, student, name, trials, metric, place, timed, heading))
    return Comparison(
        results=printed.drop(columns="usual_label"),
        given=given.drop(columns=["usual_label", "called"]),
        pairs=tuple(blocks),
        labels=labels,
        usual_labels={named.label: named.usual for named in shown},
        headings=dict(zip(labels, headings(shown, options), strict=True)),
        datasets=datasets,
        baseline=chosen_baseline(known, options),
        options=options,
        highlighted=highlighted_methods(known, options),
    )


def trained_students(results: pd.DataFrame) -> pd.DataFrame:
    """The students of all records, by method, pair and seed: without teachers that no method has for a student.

    Raises:
        KdbenchError: there are none.
    """
    trained = results[results["epochs"] > 0]  # a teacher that was used as it was is no student, even under a student's name
    taught = trained[trained["teacher"].notna()]
    if taught.empty:
        raise KdbenchError("there is nothing to compare: no trial has a teacher. Run a suite with a method that learns from one.")
    alone = trained["teacher"].isna() & ~trained["student"].isin(taught["student"])
    students = trained[~alone & ~_only_teachers(trained)]
    methods = sorted(students["method"].unique(), key=lambda method: (method != "scratch", method.count("+"), method))
    order = students["method"].map(methods.index)
    by = ["order", "dataset", "teacher", "student", "method_params", "seed"]
    return students.assign(order=order).sort_values(by, kind="stable").drop(columns="order")


def _only_teachers(trained: pd.DataFrame) -> pd.Series[bool]:
    """Which trials taught other networks, and are no student beside others: none that taught nobody has their recipe and seed."""
    place = ["dataset", "student", "recipe", "seed"]
    teachers = trained["role"] == "teacher" if "role" in trained else pd.Series(False, trained.index)
    students = trained[trained["teacher"].notna() & ~teachers]
    return teachers & ~pd.MultiIndex.from_frame(trained[place]).isin(pd.MultiIndex.from_frame(students[place]))


def _rows_of(results: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The rows of the pairs with every column that is read, numbers as such."""
    teacherless = results["teacher"].isna() & results["student"].isin([student for _, student in pairs])
    paired = pd.Series([pair in pairs for pair in zip(results["teacher"], results["student"], strict=True)], results.index)
    chosen = results[teacherless | paired].reset_index(drop=True)
    read = (*_NUMBERS, "stages", "validation_images")
    missing = [name for name in read if name not in chosen]  # of a file that an earlier kdbench wrote
    return chosen.reindex(columns=[*chosen, *missing]).astype(dict.fromkeys(_NUMBERS, float))


def _rows_by_place(results: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> dict[Place, pd.DataFrame]:
    """The rows of each pair on each data set on which it stands.

    Raises:
        KdbenchError: a pair has none.
    """
    found: dict[Place, pd.DataFrame] = {}
    for dataset in results["dataset"].unique():
        for teacher, student in pairs:
            with_pair = (results["teacher"] == teacher) & (results["student"] == student)
            teacherless = results["teacher"].isna() & (results["student"] == student)
            here = results["dataset"] == dataset
            rows = results[here & (with_pair | teacherless)]
            if (with_pair & here).any() or (not with_pair.any() and len(rows)):
                found[Place(dataset, teacher, student)] = rows
    for pair in pairs:
        if not any((place.teacher, place.student) == pair for place in found):
            raise KdbenchError(f"the results hold no trial of the pair {' → '.join(pair)}. Run the suite first, or drop the pair.")
    return found


def _printed(results: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """With the names of networks and data sets that the report prints."""
    columns = ("dataset", "teacher", "student")
    return results.assign(**{column: results[column].map(lambda name: names.get(name, name)) for column in columns})
