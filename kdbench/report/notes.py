"""What a reader of a table must be told: the notes under it."""

from __future__ import annotations

import re

import pandas as pd

from kdbench.errors import listed
from kdbench.report.added_seeds import added_seeds, listed_seeds
from kdbench.results.method_labels import LITERATURE_NAMES, differing_params, labelled, plain_label
from kdbench.wording import counted, plural

_REASONS = {"stale": "its code or its teacher has changed; `kdbench run` trains it again"}
"""Why a trial is not done that gives no reason of its own."""

_MOST_NAMED = 20
"""Methods, seeds or trials that a sentence names; of more it tells the number."""

_HASHED = {
    "normalised": "images normalised with the network's own mean and std, which the suite has under `normalise`",
    "hooks": "read at modules that the suite names under `hooks`",
    "weights": "started from a file that the suite names under `weights`",
}
"""By the word before a hash in what tables call a network, what was done."""

_WITH_ADVICE = re.compile(
    r"^(in some epoch, (?:the transfer terms are .* in (?:loss|gradient)(?=; (?:raise|lower|change) )"
    r"|no transfer term reaches the student(?=: it is detached))).*"
)
"""What records of earlier versions note of the balance of losses: the fact, and then advice, which is nothing for a table."""


def footnotes(results: pd.DataFrame) -> list[str]:
    """Sentences that must stand under a table of these trials.

    How many seeds, which of them were added after a look, and what they share; what the images are; what hashes in the names of
    networks stand for; several environments;
    parameters that change from pair to pair, or are not the defaults; longer trainings; what records note of a pair; and every
    failed or missing trial with its reason.
    """
    results = _placed(results)
    done = results[results["status"] == "done"]
    return [
        _seeds(done),
        *added_seeds(done),
        *shared_stages(results),
        *_data(done),
        *_hashes(results),
        *_environments(done),
        *_versions(done),
        *_recipes(results),
        *_settings(results),
        *changed_parameters(results),
        *_other_names(results),
        *_stages(done),
        *_noted(done),
        *_not_done(results),
    ]


def not_done(results: pd.DataFrame) -> list[str]:
    """Sentences on every failed or missing trial with its reason: what a table of means leaves out."""
    return _not_done(_placed(results))


def _placed(results: pd.DataFrame) -> pd.DataFrame:
    """With the columns of `labelled`, and `at`: what the method is called, and its pair."""
    return (results if "called" in results else labelled(results)).assign(at=_where(results))


def _where(results: pd.DataFrame) -> pd.Series[str]:
    """`cifar10, resnet56 → resnet20` for each row: no data set where there is only one, and no teacher where there is none."""
    pair = results["student"].where(results["teacher"].isna(), results["teacher"].astype(str) + " → " + results["student"])
    return pair if results["dataset"].nunique() == 1 else results["dataset"] + ", " + pair


def seeds_sentence(done: pd.DataFrame) -> str:
    """How many seeds the cells of these finished trials have, and which they are unless they are the first ones, from 0 or 1.

    `done` has the column `label`.
    """
    counts = done.groupby(["dataset", "teacher", "student", "label"], dropna=False)["seed"].nunique()
    if counts.empty:
        return "n = 0: no trial is done."
    low, high = int(counts.min()), int(counts.max())
    seeds = sorted(map(int, done["seed"].unique()))
    which = "" if seeds[0] in (0, 1) and seeds[-1] - seeds[0] < len(seeds) else f" ({listed_seeds(seeds)})"
    if high == 1:
        return f"n = 1 seed{which}: one value has no standard deviation."
    return f"n = {high} seeds{which}." if low == high else f"n = {low} to {high} seeds{which}."


def _seeds(done: pd.DataFrame) -> str:
    """How many seeds the cells have; by pair where each pair has a number of its own."""
    taught = done[done["teacher"].notna()]
    places = taught.groupby(["at", "label"], sort=False)["seed"].nunique().groupby("at", sort=False).agg(["min", "max"])
    if (places["min"] < places["max"]).any() or places["min"].nunique() < 2:
        return seeds_sentence(done)
    counts = places["min"].astype(int)
    at = [f"{counted(int(n), 'seed')} ({listed(list(counts.index[counts == n]))})" for n in counts.unique()]
    return f"n = {'; '.join(at)}."


def shared_stages(results: pd.DataFrame) -> list[str]:
    """What ± and intervals over seeds leave out, where all seeds share a stage; `results` has the column `label`."""
    shared = results[(results["status"] == "done") & (results["stages"] == "per-teacher")]["label"].unique()
    if not len(shared):
        return []
    return [
        f"{', '.join(shared)}: the stage that learns from the teacher alone was trained once and is shared by all seeds. So ± and "
        "intervals do not show how much the result would change with another training of that stage."
    ]


def _data(done: pd.DataFrame) -> list[str]:
    """How many images there are and what must be known of them, by data set; frames of earlier versions do not say."""
    if "data" not in done:
        return []
    notes = []
    for name, rows in done.groupby("dataset", sort=False):
        sentences = [sentence for column in ("data", "data_notes") for sentence in rows[column].dropna().unique()]
        notes += [f"{name}: {sentence}." for sentence in sentences if sentence]
    return notes


def _hashes(results: pd.DataFrame) -> list[str]:
    """What each hash stands for in what tables call the networks, such as `normalised d21d` in `resnet20 (normalised d21d)`."""
    names = pd.concat([results["teacher"], results["student"]]).dropna().unique()
    found = dict.fromkeys(match for name in names for match in re.findall(r"\b(normalised|hooks|weights) ([0-9a-f]{4,8})\b", name))
    notes = [f"{word} {digits}: {_HASHED[word]}" for word, digits in found]
    return [f"{'; '.join(notes)}. The digits are of a hash, which tells them from others."] if notes else []


def _environments(done: pd.DataFrame) -> list[str]:
    """How many trials ran where; and which methods, where they are not all: what sets them apart may be the environment."""
    counts = done["environment"].value_counts()
    if len(counts) < 2:
        return []
    methods = {str(name): rows["label"].unique().tolist() for name, rows in done.groupby("environment")}
    everywhere = done["label"].nunique()
    some = {name: f": {listed(labels, most=_MOST_NAMED)}" for name, labels in methods.items() if len(labels) < everywhere}
    text = "; ".join(f"{name} ({counted(count, 'trial')}{some.get(str(name), '')})" for name, count in counts.items())
    return [f"The trials ran in {len(counts)} environments: {text}."]


def _versions(done: pd.DataFrame) -> list[str]:
    """Differences that one protocol allows and a reader should know: in the core's code, in a pair's teacher, in what a student
    started from."""
    notes = []
    if (count := done["core_code"].nunique()) > 1:
        notes.append(f"The trials ran with {count} versions of kdbench's code. All follow the same protocol.")
    if (done.groupby(["dataset", "teacher"])["teacher_weights_sha256"].nunique() > 1).any():
        notes.append("In some pairs, different seeds learnt from different trainings of the teacher.")
    if (done.groupby(["dataset", "student"])["start_weights_sha256"].nunique() > 1).any():
        notes.append("Some students started from different weights that have the same name.")
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
    for label, rows in results.groupby("label", sort=False):
        if rows["method_params"].nunique() > 1:
            settings = rows.assign(setting=differing_params(rows)).drop_duplicates("at")
            values = "; ".join(f"{setting} ({at})" for setting, at in zip(settings["setting"], settings["at"], strict=True))
            notes.append(f"{label} has different parameters in each pair: {values}.")
    return notes


def changed_parameters(results: pd.DataFrame) -> list[str]:
    """A sentence with the parameters that are not the methods' defaults, those aside that change from pair to pair."""
    found = []
    for _, rows in _placed(results).dropna(subset="setting").groupby("label", sort=False):
        if rows["method_params"].nunique() == 1:
            method, called, setting = rows[["method", "called", "setting"]].iloc[0]
            found += [called + parameters] if (parameters := setting.removeprefix(method)) else []
    return [f"Parameters that are not the defaults: {', '.join(found)}."] if found else []


def _other_names(results: pd.DataFrame) -> list[str]:
    """Which methods the report calls by what the literature calls another one."""
    usual = {called.casefold(): method for method, called in LITERATURE_NAMES.items()}
    shown = results.drop_duplicates("method")[["method", "called"]].itertuples(index=False, name=None)
    found = [f"{called} is `{method}`" for method, called in shown if usual.get(called.casefold(), method) != method]
    return [f"By the names that were chosen for the report, {', '.join(found)}."] if found else []


def _stages(done: pd.DataFrame) -> list[str]:
    """Which methods train their students for longer."""
    longer = done[done["stage_epochs"].fillna(0) > 0]
    lengths = longer.groupby("label")["stage_epochs"].nunique()
    several = set(lengths.index[lengths > 1])
    text = ", ".join(
        f"{label} {epochs:g}" + (f" ({', '.join(rows['at'].unique())})" if label in several else "")
        for (label, epochs), rows in longer.groupby(["label", "stage_epochs"], sort=False)
    )
    return [f"Extra epochs, in stages that train the student before the main training: {text}."] if text else []


def _noted(done: pd.DataFrame) -> list[str]:
    """What records note, such as `dkd: with two classes ...`: a sentence for all methods and pairs of which the same is said.

    A note that names no method, such as `mixed images: ...`, is of all; where not all have it, those that have it are named.
    """
    if "notes" not in done:
        return []
    rows = done.explode("notes").dropna(subset="notes")
    if rows.empty:
        return []
    rows[["head", "colon", "note"]] = rows["notes"].str.partition(": ").to_numpy()
    rows["note"] = rows["note"].str.replace(_WITH_ADVICE, r"\1", regex=True)
    everyone = set(done["label"][done["teacher"].notna()])
    sentences = []
    for note, group in rows.groupby("note", sort=False):
        parts = [*zip(group["method"], group["label"], group["head"], strict=True)]
        heads = dict.fromkeys(label if method == head else plain_label(head) for method, label, head in parts)
        labels = dict.fromkeys(label for _, label, _ in parts)
        if all(head not in (method, *method.split("+")) for method, _, head in parts) and not everyone <= labels.keys():
            note, heads = f"{listed([*heads], most=_MOST_NAMED)}: {note}", labels
        sentences.append(f"{', '.join(heads)} ({', '.join(group['at'].unique())}): {note}.")
    return sentences


def _not_done(results: pd.DataFrame) -> list[str]:
    """A sentence for all methods and pairs that share status, reason and seeds; failed trials, with their ids, have one each."""
    rows = results[results["status"] != "done"].assign(reason=lambda frame: frame["reason"].fillna("").astype(str))
    methods: dict[tuple[str, ...], list[str]] = {}
    for keys, group in rows.groupby(["status", "label", "at", "reason"], sort=False):
        status, label, at, reason = map(str, keys)
        seeds = _named("seed", group["seed"])
        trials = f" ({plural('trial', len(group))} {', '.join(group['trial'])})" if status == "failed" else ""
        methods.setdefault((status, reason, at, seeds + trials), []).append(label)
    pairs: dict[tuple[str, ...], list[str]] = {}
    for (status, reason, at, which), labels in methods.items():
        pairs.setdefault((status, reason, listed(labels, most=_MOST_NAMED), which), []).append(at)
    notes = []
    for (status, reason, called, which), places in pairs.items():
        reason = reason or _REASONS.get(status, "")
        because = f": {' '.join(reason.split()).rstrip('.')}" if reason else ""
        notes.append(f"{status.capitalize()}: {called} ({listed(places)}), {which}{because}.")
    return notes


def _named(noun: str, values: pd.Series[int]) -> str:
    """`seed 0`, `seeds 0, 1`."""
    names = [str(value) for value in values]
    return f"{plural(noun, len(names))} {listed(names, most=_MOST_NAMED)}"
