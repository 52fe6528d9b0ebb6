"""What may stand in one table: which trials belong together, what each method is called, what a reader must be told."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.wording import assigned, counted

_NAMES = {
    **{name: name.upper() for name in ("ab", "at", "cc", "crd", "dist", "dkd", "dml", "fsp", "ft")},
    **{name: name.upper() for name in ("kd", "nst", "ofd", "pkt", "rkd", "sp", "vid")},
    "fitnets": "FitNets",
    "fitnets_hint": "FitNets hint",
    "ft_repdistiller": "FT (RepDistiller)",
    "kd_standardized": "KD standardised",
    "reviewkd": "ReviewKD",
    "simkd": "SimKD",
}
"""What the literature calls the shipped methods; any other keeps its registered name."""

_REASONS = {"stale": "code or a teacher has changed since, and `kdbench run` trains anew"}
"""Why a trial is not done that gives no reason of its own."""

_ALONE = "Report one suite by itself, as `kdbench report SUITE`, or filter the frame."

_MUST_AGREE: tuple[tuple[str, list[str], str, str], ...] = (
    ("protocol", [], "protocol versions", "Run the older trials again, or report each version alone."),
    ("precision", [], "precisions", _ALONE),
    ("recipe", ["dataset", "student"], "recipes", _ALONE),
    ("epochs", ["dataset", "student"], "numbers of epochs", _ALONE),
    ("teacher_weights_sha256", ["dataset", "teacher", "student", "seed"], "teachers of one name", _ALONE),
    ("dataset_params", ["dataset"], "settings of the data", "Run each under a `label` of its own."),
    ("data_fingerprint", ["dataset"], "versions of the data", "Run the older trials again on the present data."),
    ("method_code", ["method", "student"], "versions of the method's code", "Run the older trials again."),
    ("stages", ["method", "dataset", "student"], "ways to train what a method learns from the teacher alone, in trials", _ALONE),
)
"""Column; the columns within whose groups it must be one; what several of it are called; the fix."""

_NUMBERS = [
    *("test_error_pct", "best_test_error_pct", "teacher_error_pct"),
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
    """

    dataset: str
    teacher: str
    student: str
    name: str
    trials: pd.DataFrame

    @property
    def done(self) -> pd.DataFrame:
        """The trials that have numbers."""
        return self.trials[self.trials["status"] == "done"]

    def by_seed(self, label: str, column: str = "test_error_pct") -> pd.Series[float]:
        """`column` of the finished trials of one method that have it, indexed by seed."""
        rows = self.done[self.done["label"] == label]
        return rows.set_index("seed")[column].dropna().sort_index()

    @property
    def teacher_errors(self) -> pd.Series[float]:
        """Of its teacher, one for each training of it, in percent."""
        return self.done.dropna(subset="teacher_error_pct").drop_duplicates("teacher_weights_sha256")["teacher_error_pct"]

    def ranked(self, column: str = "test_error_pct") -> pd.Series[float]:
        """By method, the means of `column` that may be held against each other: over seeds that all of them have.

        Of the methods and the seeds that they share this is the largest block: a method of which much is missing is left out, and
        seeds that few methods have.
        """
        seeds = self.done.dropna(subset=column).groupby("label", sort=False)["seed"].agg(frozenset)
        blocks = [(shared, [label for label, found in seeds.items() if found >= shared]) for shared in seeds.unique()]
        if not blocks:
            return pd.Series(dtype=float)
        shared, labels = max(blocks, key=lambda block: (len(block[0]) * len(block[1]), len(block[0])))
        return pd.Series({str(label): self.by_seed(str(label), column).loc[sorted(shared)].mean() for label in labels})


@dataclass(frozen=True)
class Comparison:
    """Trials that were found comparable.

    Attributes:
        results: every trial that takes part, once, with the column `label`.
        pairs: the same by pair; a trial without a teacher stands in every pair with its student.
        labels: the methods, in the order of columns.
        datasets: the labels of the data sets.
    """

    results: pd.DataFrame
    pairs: tuple[PairTrials, ...]
    labels: tuple[str, ...]
    datasets: tuple[str, ...]


def compare(results: pd.DataFrame, *, pairs: Sequence[tuple[str, str]], methods: Sequence[str] = ()) -> Comparison:
    """Arrange the trials of `pairs`, (teacher, student), for tables and plots.

    `methods` gives the order of the columns; methods that it does not name follow in the order of the frame.

    Raises:
        KdbenchError: the trials are not comparable, or a pair has none.
    """
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
    arranged = [block for dataset in datasets for pair in pairs for block in _pair_trials(chosen, dataset, pair, len(datasets) > 1)]
    for pair in pairs:
        if not any((block.teacher, block.student) == pair for block in arranged):
            raise KdbenchError(f"the results hold no trial of the pair {' → '.join(pair)}. Run the suite first, or drop the pair.")
    return Comparison(chosen, tuple(arranged), tuple(labels), datasets)


def _pair_trials(results: pd.DataFrame, dataset: str, pair: tuple[str, str], several_datasets: bool) -> Iterator[PairTrials]:
    """The pair on the data set; nothing where it has no trial there but trials on another data set."""
    teacher, student = pair
    with_pair = (results["teacher"] == teacher) & (results["student"] == student)
    teacherless = results["teacher"].isna() & (results["student"] == student)
    here = results["dataset"] == dataset
    trials = results[here & (with_pair | teacherless)]
    if (with_pair & here).any() or (not with_pair.any() and len(trials)):
        arrow = f"{teacher} → {student}"
        yield PairTrials(dataset, teacher, student, f"{dataset}: {arrow}" if several_datasets else arrow, trials)


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
                f"trials {first} and {second} have the same pair, method, parameters and seed, and a table has one place for them. "
                "Leave one of them out."
            )


def _groups(frame: pd.DataFrame, columns: list[str]) -> Iterator[tuple[Hashable, pd.DataFrame]]:
    """The groups by `columns` with the value of the first one; the whole frame under the empty name where there are none."""
    if not columns:
        yield "", frame
        return
    for values, rows in frame.groupby(columns, sort=False):
        yield values[0] if isinstance(values, tuple) else values, rows


def method_labels(results: pd.DataFrame) -> pd.Series[str]:
    """What readers call the method of each row: `KD`, `AT+KD`, `FitNets`.

    Where one pair has a method in several settings, every label of that method ends with the parameters that differ: `FT (k=2)`.
    A method that has one setting for each pair keeps its plain name, and `footnotes` says which.
    """
    labels = results["method"].map(_plain_label)
    for _, rows in results.groupby("method", sort=False):
        if _settings_in_a_pair(rows) > 1:
            labels.loc[rows.index] += " (" + _differing_params(rows) + ")"
    return labels


def _plain_label(method: str) -> str:
    return "+".join(_NAMES.get(part, part) for part in method.split("+"))


def _settings_in_a_pair(rows: pd.DataFrame) -> int:
    return int(rows.groupby(["dataset", "teacher", "student"], dropna=False)["method_params"].nunique().max())


def _differing_params(rows: pd.DataFrame) -> pd.Series[str]:
    """For each row of one method the parameters in which the rows differ: `k=2, beta=500`."""
    settings = pd.DataFrame([_flat(text) for text in rows["method_params"]], rows.index)
    differing = settings.loc[:, settings.nunique(dropna=False) > 1]
    return differing.apply(lambda setting: ", ".join(setting.dropna()), axis=1)


def _flat(method_params: str) -> dict[str, str]:
    """`{"ft": {"k": 2.0}}` as `{"k": "k=2"}`; a composition's parameters are named `ft.k`. They stay in the method's order."""
    parts = json.loads(method_params)
    return {
        (full := name if len(parts) == 1 else f"{part}.{name}"): assigned(full, value)
        for part, params in parts.items()
        for name, value in params.items()
    }


def footnotes(results: pd.DataFrame) -> list[str]:
    """Sentences that must stand under a table of these trials.

    How many seeds, and what they share; what the images are; several environments; parameters that change from pair to pair, or are
    not the defaults; longer trainings; what records note of a pair; and every failed or missing trial with its reason.
    """
    results = _placed(results)
    done = results[results["status"] == "done"]
    return [
        seeds_sentence(done),
        *shared_stages(results),
        *_data(done),
        *_environments(done),
        *_versions(done),
        *_recipes(results),
        *_settings(results),
        *changed_parameters(results),
        *_stages(done),
        *_noted(done),
        *_not_done(results),
    ]


def not_done(results: pd.DataFrame) -> list[str]:
    """Sentences on every failed or missing trial with its reason: what a table of means leaves out."""
    return _not_done(_placed(results))


def _placed(results: pd.DataFrame) -> pd.DataFrame:
    """With the columns `label` and `at`: what the method is called, and its pair."""
    return results.assign(label=method_labels(results), at=_where(results))


def _where(results: pd.DataFrame) -> pd.Series[str]:
    """`cifar10, resnet56 → resnet20` for each row: no data set where there is only one, and no teacher where there is none."""
    pair = results["student"].where(results["teacher"].isna(), results["teacher"].astype(str) + " → " + results["student"])
    return pair if results["dataset"].nunique() == 1 else results["dataset"] + ", " + pair


def seeds_sentence(done: pd.DataFrame) -> str:
    """How many seeds the cells of these finished trials have; `done` has the column `label`."""
    counts = done.groupby(["dataset", "teacher", "student", "label"], dropna=False)["seed"].nunique()
    if counts.empty:
        return "n = 0: no trial is done."
    low, high = int(counts.min()), int(counts.max())
    if high == 1:
        return "n = 1 seed, which gives no standard deviation."
    return f"n = {high} seeds." if low == high else f"n = {low} to {high} seeds."


def shared_stages(results: pd.DataFrame) -> list[str]:
    """What ± and intervals over seeds leave out, where all seeds share a stage; `results` has the column `label`."""
    shared = results[(results["status"] == "done") & (results["stages"] == "per-teacher")]["label"].unique()
    if not len(shared):
        return []
    return [
        f"{', '.join(shared)}: all seeds share one training of the stage that learns from the teacher alone; ± and intervals over "
        "seeds leave out how far another draw of it would move the result."
    ]


def _data(done: pd.DataFrame) -> list[str]:
    """How many images there are and what must be known of them, by data set; frames of earlier versions do not say."""
    if "data" not in done:
        return []
    notes = []
    for name, rows in done.groupby("dataset", sort=False):
        told = [sentence for column in ("data", "data_notes") for sentence in rows[column].dropna().unique()]
        notes += [f"{name}: {sentence}." for sentence in told if sentence]
    return notes


def _environments(done: pd.DataFrame) -> list[str]:
    counts = done["environment"].value_counts()
    if len(counts) < 2:
        return []
    told = "; ".join(f"{name} ({counted(count, 'trial')})" for name, count in counts.items())
    return [f"From {len(counts)} environments: {told}."]


def _versions(done: pd.DataFrame) -> list[str]:
    """Differences that one protocol allows and a reader should know: in the core's code, in a pair's teacher, in what a student
    started from."""
    notes = []
    if (count := done["core_code"].nunique()) > 1:
        notes.append(f"From {count} versions of kdbench's code, which share one protocol.")
    if (done.groupby(["dataset", "teacher"])["teacher_weights_sha256"].nunique() > 1).any():
        notes.append("Some pairs have seeds from several trainings of the teacher.")
    if (done.groupby(["dataset", "student"])["start_weights_sha256"].nunique() > 1).any():
        notes.append("Some students started from other tensors under one name of weights.")
    return notes


def _recipes(results: pd.DataFrame) -> list[str]:
    """Which pairs have which recipe, where they differ."""
    taught = results[results["teacher"].notna()]
    if taught["recipe"].nunique() < 2:
        return []
    places = taught.groupby("recipe", sort=False)["at"].unique()
    return ["Recipes: " + "; ".join(f"{recipe} ({', '.join(at)})" for recipe, at in places.items()) + "."]


def _settings(results: pd.DataFrame) -> list[str]:
    notes = []
    for _, rows in results.groupby("method", sort=False):
        if rows["method_params"].nunique() > 1 and _settings_in_a_pair(rows) == 1:
            settings = rows.assign(setting=_differing_params(rows)).drop_duplicates("at")
            values = "; ".join(f"{setting} ({at})" for setting, at in zip(settings["setting"], settings["at"], strict=True))
            notes.append(f"{rows['label'].iloc[0]} has parameters for each pair: {values}.")
    return notes


def changed_parameters(results: pd.DataFrame) -> list[str]:
    """A sentence with the parameters that are not the methods' defaults, those aside that change from pair to pair."""
    found = []
    for method, rows in results.dropna(subset="setting").groupby("method", sort=False):
        if rows["method_params"].nunique() == 1 or _settings_in_a_pair(rows) > 1:
            given = (setting.removeprefix(str(method)) for setting in rows["setting"].unique())
            found += [_plain_label(str(method)) + parameters for parameters in given if parameters]
    return [f"Parameters that are not the defaults: {', '.join(found)}."] if found else []


def _stages(done: pd.DataFrame) -> list[str]:
    """Which methods train their students for longer."""
    longer = done[done["stage_epochs"].fillna(0) > 0]
    lengths = longer.groupby("label")["stage_epochs"].nunique()
    several = set(lengths.index[lengths > 1])
    told = ", ".join(
        f"{label} {epochs}" + (f" ({', '.join(rows['at'].unique())})" if label in several else "")
        for (label, epochs), rows in longer.groupby(["label", "stage_epochs"], sort=False)
    )
    return [f"Epochs that the student trains in stages before, beside those that all have: {told}."] if told else []


def _noted(done: pd.DataFrame) -> list[str]:
    """What records note, such as `dkd: with two classes ...`: a sentence for all methods and pairs of which the same is said."""
    if "notes" not in done:
        return []
    rows = done.explode("notes").dropna(subset="notes")
    if rows.empty:
        return []
    rows[["head", "colon", "note"]] = rows["notes"].str.partition(": ").to_numpy()
    sentences = []
    for note, group in rows.groupby("note", sort=False):
        heads = dict.fromkeys(_NAMES.get(head, head) for head in group["head"])
        sentences.append(f"{', '.join(heads)} ({', '.join(group['at'].unique())}): {note}.")
    return sentences


def _not_done(results: pd.DataFrame) -> list[str]:
    """One sentence for all seeds of a method and pair that share status and reason; failed trials with their ids."""
    rows = results[results["status"] != "done"].assign(reason=lambda frame: frame["reason"].fillna("").astype(str))
    notes = []
    for (status, label, at, reason), group in rows.groupby(["status", "label", "at", "reason"], sort=False):
        seeds = _listed("seed", group["seed"])
        trials = f" ({_listed('trial', group['trial'])})" if status == "failed" else ""
        reason = reason or _REASONS.get(str(status), "")
        because = f": {' '.join(str(reason).split()).rstrip('.')}" if reason else ""
        notes.append(f"{str(status).capitalize()}: {label}, {at}, {seeds}{trials}{because}.")
    return notes


def _listed(noun: str, values: pd.Series[int] | pd.Series[str]) -> str:
    return f"{noun}{'s' if len(values) > 1 else ''} {', '.join(map(str, values))}"
