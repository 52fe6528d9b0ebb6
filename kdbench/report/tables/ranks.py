"""Methods over several pairs: mean ranks, how much more they gain than KD, and in how many pairs they win."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from kdbench.errors import listed
from kdbench.report.compare import Comparison
from kdbench.report.differences import differences_of_all, gains_over_baseline, means_of_pairs
from kdbench.report.statistics.comparisons import MIN_SEEDS, Difference
from kdbench.report.statistics.several_pairs import average_relative_improvement, performance_profile, ranks, win_tie_loss
from kdbench.report.tables.cells import on_data
from kdbench.report.tables.table import NONE, Cell, Row, Table


def ranks_table(comparison: Comparison) -> Table | None:
    """Mean rank over pairs, in how many pairs a method is beyond chance better or worse than the baseline, and its average relative
    improvement over KD; None where fewer than two pairs have all of two methods.
    """
    means, baseline = means_of_pairs(comparison), comparison.baseline
    lower_is_better = comparison.metric.lower_is_better
    found = ranks(means if lower_is_better else -means)
    if found.pairs < 2 or len(found.mean_ranks) < 2:
        return None
    gains = [gains_over_baseline(comparison, pair) for pair in comparison.pairs]
    scratch, kd = (_label_of(comparison, method) for method in ("scratch", "kd"))
    improvement: dict[str, tuple[float, int]] = {}
    chance: Mapping[str, float] = {}
    if scratch and kd:
        chance = _gains_by_chance(comparison, means, over=kd, start=scratch)
        shares = average_relative_improvement(means if lower_is_better else -means, over=kd, start=scratch)
        known = zip(shares.index, shares["improvement_pct"], shares["pairs"], strict=True)
        improvement = {str(name): (float(percent), int(pairs)) for name, percent, pairs in known if pairs}
    rows = []
    for label, rank in found.mean_ranks.items():
        method = str(label)
        cells = [Cell(method), Cell(f"{rank:.2f}", values={"mean_rank": float(rank), "pairs": found.pairs})]
        outcomes = [one for family in gains if (one := family.find(method, baseline)) and one.bounds]
        wins, losses = (sum(one.beyond_chance and (one.gain > 0) == better for one in outcomes) for better in (True, False))
        outcome = {"wins": wins, "ties": len(outcomes) - wins - losses, "losses": losses}
        cells.append(Cell(" / ".join(map(str, outcome.values())), values=outcome) if outcomes else Cell(NONE))
        if improvement:
            percent, pairs = improvement.get(method, (0.0, 0))
            values = {"improvement_pct": percent, "improvement_pairs": pairs}
            mark = "†" if means.loc[[*chance], method].notna().any() else ""
            cells.append(Cell(f"{percent:+.1f}", values=values, mark=mark) if pairs else Cell(NONE))
        rows.append(Row(tuple(cells), {"method": method}))
    notes = [found.procedure, *([] if found.p is None else _not_independent(comparison, found.pairs_left_out))]
    if any(row.cells[2].values for row in rows):
        notes.append(
            f"Better / level / worse: pairs in which the 95 % interval of the gain over {baseline} is above 0, has 0, is below 0."
        )
    notes += _not_counted(one for family in gains for one in family.differences if one.method in found.mean_ranks)
    columns = ["Method", "Mean rank", f"Better / level /\nworse than {baseline}"]
    if improvement:
        columns.append(f"Relative improvement\nover {kd} (%)")
        notes.append(
            f"Relative improvement: the gain over {scratch} minus that of {kd}, divided by that of {kd}, averaged over the pairs "
            f"in which {kd} gains."
        )
    if improvement and chance:
        metric = comparison.metric
        those = listed([f"{pair} ({metric.difference(gain)} {metric.points})" for pair, gain in chance.items()])
        notes.append(
            f"† It divides by a gain of {kd} over {scratch} that may be chance, so that it may be of any size: {those}. "
            "Read the ranks instead."
        )
    title = f"Ranks by the mean {comparison.metric.noun}{on_data(comparison)}"
    return Table("ranks", title, tuple(columns), tuple(rows), tuple(notes))


def _gains_by_chance(comparison: Comparison, means: pd.DataFrame, *, over: str, start: str) -> dict[str, float]:
    """By pair what `over` gains over `start`, where it gains and may do so by chance, or nobody can tell for want of seeds."""
    family = gains_over_baseline if comparison.baseline in (over, start) else differences_of_all
    gaining = (means[start] - means[over]) * (1 if comparison.metric.lower_is_better else -1) > 0
    found = [(pair.name, family(comparison, pair).find(over, start)) for pair in comparison.pairs if gaining[pair.name]]
    return {name: gain.gain for name, gain in found if gain and not gain.beyond_chance}


def _not_counted(differences: Iterable[Difference]) -> list[str]:
    """A sentence where some of them have no interval."""
    if all(difference.bounds for difference in differences):
        return []
    return [f"A pair in which two methods share fewer than {MIN_SEEDS} seeds has no interval of them, and is not counted."]


def _not_independent(comparison: Comparison, left_out: Iterable[str]) -> list[str]:
    """A sentence where some of the pairs that are tested share a student, and with it the trainings from scratch."""
    students = [pair.place[::2] for pair in comparison.pairs if pair.name not in {*left_out}]
    if len(set(students)) == len(students):
        return []
    return ["Some of these pairs share a student. The test takes them as independent, which they are not: p may be too small."]


def _label_of(comparison: Comparison, method: str) -> str | None:
    """What the method is called here; None where it is not there, or with several settings."""
    labels = comparison.results.loc[comparison.results["method"] == method, "label"].unique()
    return str(labels[0]) if len(labels) == 1 else None


def win_tie_loss_table(comparison: Comparison) -> Table | None:
    """In how many pairs a row's method is better than a column's, level with it, and worse; None where there is one pair."""
    if len(comparison.pairs) < 2:
        return None
    families = {pair.name: differences_of_all(comparison, pair) for pair in comparison.pairs}
    outcomes = win_tie_loss(families)
    numbers = outcomes[["wins", "ties", "losses"]].to_dict("records")
    counted = dict(zip(zip(outcomes["method"], outcomes["over"], strict=True), numbers, strict=True))
    labels = [label for label in comparison.labels if any(label in two for two in counted)]
    if not labels:
        return None
    rows = []
    for method in labels:
        cells = [Cell(method)]
        for over in labels:
            values = {str(name): int(count) for name, count in counted.get((method, over), {}).items()}
            cells.append(Cell(" / ".join(map(str, values.values())) or NONE, values=values))
        rows.append(Row(tuple(cells), {"method": method}))
    notes = [
        "Each cell: in how many pairs the row's method is better than the column's / level with it / worse. Better and worse: the "
        "95 % interval of their difference leaves out 0.",
        "95 % intervals: Tukey's, for all pairs of methods of one pair of networks together.",
        *_not_counted(one for family in families.values() for one in family.differences),
    ]
    title = f"Wins, ties and losses over {len(comparison.pairs)} pairs{on_data(comparison)}"
    return Table("win_tie_loss", title, ("Method", *labels), tuple(rows), tuple(notes))


def profile_table(comparison: Comparison) -> Table | None:
    """The performance profile: the share of pairs in which a method is within a factor of the best; None where there is one pair.

    Only of what is better where it is lower, since a multiple of an accuracy says little.
    """
    if len(comparison.pairs) < 2 or not comparison.metric.lower_is_better:
        return None
    means = means_of_pairs(comparison).dropna(axis=1, how="all")
    profile = performance_profile(means)
    labels = [str(label) for label in profile.columns]
    rows = tuple(
        Row((Cell(f"{factor:.3f}", values={"factor": float(factor)}), *(_share(share) for share in shares)))
        for factor, shares in zip(profile.index, profile.to_numpy(), strict=True)
    )
    notes = [
        f"Each cell: the share of the {len(comparison.pairs)} pairs in which the method's mean {comparison.metric.noun} is at "
        "most so many times the lowest of the pair (Dolan and Moré, 2002).",
    ]
    if lacking := [str(label) for label in means if means[label].isna().any()]:
        notes.append(
            f"Seeds or pairs are missing, and such a pair counts as one in which the method never is: {', '.join(lacking)}."
        )
    return Table("performance_profile", f"Performance profile{on_data(comparison)}", ("Factor", *labels), rows, tuple(notes))


def _share(share: float) -> Cell:
    return Cell(f"{share:.2f}", values={"share": float(share)})
