"""What the page shows, as values: made from a comparison and its tables, without reading a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kdbench.report.claims import claims
from kdbench.report.compare import Comparison
from kdbench.report.page.figures import MOST_POINTS, looks, pair_data
from kdbench.report.page.html_table import HtmlTable, html_table
from kdbench.report.page.methods import method_cards
from kdbench.report.page.sources import Sources
from kdbench.report.page.trials import titles, trial_curves, trial_facts, trials_table
from kdbench.report.tables.selection import tested
from kdbench.report.tables.table import Table
from kdbench.wording import counted


@dataclass(frozen=True)
class Titled:
    """A heading and, under it, names and what they stand for."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Figure:
    """Where a figure is drawn: `name` is that of its drawing in the page's script."""

    name: str
    title: str
    caption: str


@dataclass(frozen=True)
class Page:
    """All that the template shows.

    Attributes:
        suites: of several, the name of each, how many trials it trained, and the address of its page where there is one.
        data: what the script needs: numbers of figures, trials, and the files that the page offers.
    """

    title: str
    claims: tuple[str, ...]
    facts: str
    tables: tuple[HtmlTable, ...]
    figures: tuple[Figure, ...]
    methods: tuple[Mapping[str, Any], ...]
    trials: HtmlTable
    trials_sentence: str
    suites: tuple[tuple[str, str, str], ...]
    environments: tuple[Titled, ...]
    suite_files: tuple[tuple[str, str], ...]
    commands: str
    downloads: tuple[tuple[str, str], ...]
    data: Mapping[str, Any]


def page_of(
    comparison: Comparison,
    curves: pd.DataFrame,
    *,
    title: str,
    facts: str,
    tables: Sequence[Table],
    files: Mapping[str, str],
    sources: Sources,
) -> Page:
    """The page of a comparison.

    Args:
        comparison: the trials.
        curves: one row for each trial and epoch; may be empty.
        title: the heading.
        facts: hardware, versions, n and dates in a few sentences.
        tables: those of the report.
        files: by name, the text of each file that the page offers.
        sources: what lies on disk beside the frame.
    """
    results, metric = comparison.results, comparison.metric
    pairs = [pair_data(comparison, pair, curves) for pair in comparison.pairs]
    offered = {**files, **sources.suite_files}
    data = {
        "metric": {
            "title": f"{metric.axis}, last epoch {metric.arrow}",
            "gain_title": f"gain over {comparison.baseline} ({metric.points}), right is better",
            "curve_title": tested(metric).axis,
            "decimals": metric.decimals,
            "curve_decimals": tested(metric).decimals,
            "log": tested(metric).lower_is_better,
        },
        "methods": looks(comparison),
        "pairs": pairs,
        "trials": trial_facts(comparison.given),
        "trial_titles": titles(comparison),
        "trial_curves": trial_curves(curves),
        "specs": dict(sources.specs),
        "files": offered,
    }
    return Page(
        title=title,
        claims=tuple(claims(comparison)),
        facts=facts,
        tables=tuple(
            html_table(table, files=[file for file in files if file.rpartition(".")[0] == table.name]) for table in tables
        ),
        figures=_figures(comparison, pairs),
        methods=tuple(method_cards(results, names=comparison.options.names)),
        trials=html_table(trials_table(comparison), files=["results.csv"]),
        trials_sentence=_trials_sentence(results),
        suites=_suites(results, sources),
        environments=_environments(results, sources),
        suite_files=tuple(sources.suite_files.items()),
        commands=sources.commands,
        downloads=tuple((name, _meaning(name, tables)) for name in offered),
        data=data,
    )


def _meaning(file: str, tables: Sequence[Table]) -> str:
    """What a file holds that the page offers."""
    stem, _, kind = file.rpartition(".")
    places = {table.name: place for place, table in enumerate(tables, 1)}
    if stem in places:
        return f"Table {places[stem]}: {'LaTeX, for booktabs and longtable' if kind == 'tex' else 'the numbers, unrounded'}."
    known = {"csv": "Every trial in a row.", "bib": "BibTeX: the papers of the methods, and kdbench."}
    return known.get(kind, "A suite file.")


def _figures(comparison: Comparison, pairs: Sequence[Mapping[str, Any]]) -> tuple[Figure, ...]:
    """The figures for which some pair has numbers."""
    metric, found = comparison.metric, []
    if any(pair["results"] for pair in pairs):
        caption = "Each dot is one seed. A bar is the mean. Point at one to read its numbers."
        found.append(Figure("results", f"{metric.title} of the last epoch by method", caption))
    if any(pair["gains"] for pair in pairs):
        caption = (
            "Thick: 95 % interval over new seeds. Thin: over new seeds and new images. The table of gains has the same numbers."
        )
        found.append(Figure("gains", f"Gain over {comparison.baseline}, paired by seed", caption))
    longest = max((len(row["epochs"]) for pair in pairs for row in pair["curves"]), default=0)
    if longest > 1:
        thinned = f" At most {MOST_POINTS} epochs of a training are drawn, evenly spread." if longest == MOST_POINTS else ""
        found.append(
            Figure(
                "curves",
                f"{tested(metric).title} during training",
                f"Mean over seeds. With at most eight methods, bands show one standard deviation.{thinned}",
            )
        )
    environments = list(dict.fromkeys(pair["cost"]["environment"] for pair in pairs if pair["cost"]["points"]))
    if environments:
        caption = "What each method costs when it trains alone; lines are one standard deviation over seeds. Pareto front: no "
        caption += "method is both cheaper and better than one on it; a dashed line joins those on it, where there are several. "
        caption += "Names stand where there is room: point at a mark to read whose it is."
        found.append(
            Figure("cost", f"{metric.title} against the time of training", f"{caption} Measured on {'; '.join(environments)}.")
        )
    return tuple(found)


def _trials_sentence(results: pd.DataFrame) -> str:
    counts = results["status"].value_counts()
    text = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{counted(len(results), 'trial')}: {text}. Choose one to see its curve, its record and its specification."


def _suites(results: pd.DataFrame, sources: Sources) -> tuple[tuple[str, str, str], ...]:
    counts = results["suite"].value_counts(sort=False)
    if len(counts) < 2 and not sources.suite_pages:
        return ()
    return tuple((str(name), counted(count, "trial"), sources.suite_pages.get(str(name), "")) for name, count in counts.items())


def _environments(results: pd.DataFrame, sources: Sources) -> tuple[Titled, ...]:
    """One heading for each environment, the commonest first."""
    done = results[results["status"] == "done"]
    kinds: dict[tuple[tuple[str, str], ...], int] = {}
    for trial, line in zip(done["trial"], done["environment"], strict=True):
        known = sources.environments.get(trial) or {"ran on": line}
        key = tuple((name, str(value)) for name, value in known.items() if value is not None)
        kinds[key] = kinds.get(key, 0) + 1
    ordered = sorted(kinds.items(), key=lambda item: -item[1])
    several = len(ordered) > 1
    return tuple(
        Titled(f"Environment {place}" if several else "Environment", (*key, ("trials", str(count))))
        for place, (key, count) in enumerate(ordered, 1)
    )
