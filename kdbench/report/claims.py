"""What the numbers say, in a sentence or two for each pair."""

from __future__ import annotations

from collections.abc import Container, Sequence

from kdbench.errors import listed
from kdbench.report.compare import Comparison, PairTrials, ranked_at
from kdbench.report.differences import differences_of_all, gains_over_baseline
from kdbench.report.one_class import no_better_clause
from kdbench.report.statistics.comparisons import Difference
from kdbench.report.tables.cells import on_data
from kdbench.report.tables.selection import held_out
from kdbench.spec.metrics import Metric
from kdbench.wording import counted


def claims(comparison: Comparison) -> list[str]:
    """For each pair the method with the best mean, its gain over the baseline and over the next, and how sure these are.

    Methods are ranked over the same seeds. The gain over the baseline has Dunnett's simultaneous interval. The next is found among
    all pairs of methods, so that the gain over it has Tukey's.
    """
    return [f"{pair.name}{on_data(comparison)}: {_claim(comparison, pair)}" for pair in comparison.pairs]


def _claim(comparison: Comparison, pair: PairTrials) -> str:
    metric, baseline = pair.metric, comparison.baseline
    done = {label: errors.mean() for label in comparison.labels if len(errors := pair.by_seed(label))}
    if not done:
        return "no trial is done."
    means = pair.ranked().sort_values(kind="stable", ascending=metric.lower_is_better)
    waiting = _without_result(comparison, pair, done)
    if len(means) < 2:
        alone = _beside(pair, str(means.index[0]), [label for label in done if label not in means], waiting=bool(waiting))
        level = f"{metric.text(means.iloc[0])}{no_better_clause(pair, means.iloc[0])}"
        return " ".join([f"{means.index[0]} has a mean {metric.noun} of {level}{alone}.", *waiting])
    first = list(ranked_at(means, 1, metric))
    best, mean_of_best = str(first[0]), f"{metric.text(means.iloc[0])}{no_better_clause(pair, means.iloc[0])}"
    level = f"the {metric.best} mean {metric.noun} of {len(means)} methods{_over(pair)}, {mean_of_best}."
    unbeaten, tie = first == [baseline], len(first) > 1
    shared = f"{', '.join(map(str, first[:-1]))} and {first[-1]} share"
    sentences = [f"{shared if tie else f'No method beat {baseline}, which has' if unbeaten else f'{best} has'} {level}"]
    named = (*means.index[len(first) :][:1], baseline)
    rivals = dict.fromkeys(str(label) for label in named if label in done and label not in first)
    for rival in rivals:
        name = rival if rival == baseline else f"{rival}, the next"
        family = gains_over_baseline if baseline in (best, rival) else differences_of_all
        sure = _how_sure(family(comparison, pair).find(best, rival), metric)
        mean, of = means.get(rival, done[rival]), f" of {best}" if tie else ""
        sentences.append(f"{'Lead' if unbeaten else 'Gain'}{of} over {name} ({metric.text(mean)}): {sure}.")
    validated = pair.best(held_out(metric))
    if validated and not set(validated) & set(first):
        # Whoever has a validation error need not have the metric.
        known = {**done, **{str(label): mean for label, mean in means.items()}}
        named_best = ", ".join(
            f"{label} ({metric.noun} {metric.text(known[label])})" if label in known else label for label in validated
        )
        sentences.append(f"The {held_out(metric).best} mean {held_out(metric).noun}: {named_best}.")
    if unranked := [label for label in done if label not in means]:
        sentences.append(f"Not ranked, since seeds are missing: {', '.join(unranked)}.")
    return " ".join([*sentences, *waiting])


def _over(pair: PairTrials) -> str:
    """Over which seeds methods are ranked, where some have more: then the table has other means of these."""
    block = pair.block()
    more = any(len(pair.by_seed(str(label))) > len(block) for label in block)
    return f" over the {counted(len(block), 'seed')} that they share" if more else ""


def _beside(pair: PairTrials, first: str, others: Sequence[str], *, waiting: bool) -> str:
    """What stands behind the mean of a method that alone is ranked: which others there are, and which of its seeds they have."""
    if not others:
        return f", and {'no other method has a result' if waiting else 'there is no other method'}"
    seeds = pair.by_seed(first).index
    shared = [f"{label} has {len(seeds.intersection(pair.by_seed(label).index))}" for label in others]
    return f" over {counted(len(seeds), 'seed')}. No other method is ranked, since of these seeds {listed(shared)}"


def _without_result(comparison: Comparison, pair: PairTrials, done: Container[str]) -> list[str]:
    """Sentences that name the methods of a pair that have no result: those that failed or are stale apart from the others."""
    named: dict[str, list[str]] = {"No result yet": [], "Stale": [], "Failed": []}
    for label in comparison.labels:
        if label not in done and pair.has(label):
            status, *others = pair.trials.loc[pair.trials["label"] == label, "status"].unique()
            words = str(status).capitalize()
            named[words if words in named and not others else "No result yet"].append(label)
    return [f"{words}: {listed(labels)}." for words, labels in named.items() if labels]


def _how_sure(gain: Difference | None, metric: Metric) -> str:
    if gain is None:
        return "no seed in common"
    mean = f"{metric.difference(gain.gain)} {metric.points}"
    if gain.bounds is None:
        return f"{mean}, n = {gain.n}, too small to tell it from chance"
    doubt = "" if gain.beyond_chance else ", which may be chance"
    text = f"{mean}, 95 % interval {metric.interval(gain.bounds)}"
    if gain.bounds_with_images:
        wide = metric.interval(gain.bounds_with_images)
        text += (
            " over new seeds, and the same with new images"
            if text.endswith(wide)
            else f" over new seeds, {wide} over new seeds and images"
        )
        doubt = doubt or ("" if gain.beyond_chance_with_images else ", which may be chance with other images")
    return f"{text}, n = {gain.n}{doubt}"
