"""The figures of a report: which ones it has, in how many files, and what is said of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from kdbench.report.compare import Comparison
from kdbench.report.figures.by_method import results
from kdbench.report.figures.cost_front import cost, only_front_named
from kdbench.report.figures.critical_difference import ranks
from kdbench.report.figures.files import save
from kdbench.report.figures.gain_forest import forest
from kdbench.report.figures.learning_curves import curves as draw_curves
from kdbench.report.figures.profile_curves import profile
from kdbench.report.figures.sheet import DoesNotFitError, NothingToDrawError
from kdbench.report.notes import seeds_sentence
from kdbench.report.statistics.comparisons import MIN_SEEDS
from kdbench.report.tables.selection import tested
from kdbench.report.timing import timing_notes
from kdbench.spec.figure_options import FigureName

_DRAWN: Mapping[FigureName, Callable[[Comparison], Figure]] = {
    "results": results,
    "forest": forest,
    "ranks": ranks,
    "cost": cost,
    "profile": profile,
}


@dataclass(frozen=True)
class WrittenFigure:
    """A figure of a report.

    Attributes:
        title: what it shows, in a few words.
        caption: how to read it, how many seeds it is of, and where it was measured.
        files: a PNG and a PDF file for each page.
    """

    title: str
    caption: str
    files: tuple[Path, ...]


def write_figures(comparison: Comparison, curves: pd.DataFrame, *, directory: Path, formats: Sequence[str]) -> list[WrittenFigure]:
    """Draw and save the figures that the options ask for, or the usual ones that there is something to draw for.

    Raises:
        KdbenchError: a figure does not fit its size, or one that is asked for has nothing to draw.
    """
    options, written = comparison.options.figures, []
    for name in options.only or usual_figures(comparison):
        try:
            pages = _pages(name, comparison, curves)
        except NothingToDrawError:
            if options.only:
                raise
            continue
        stem = f"test_{comparison.metric.name}" if name == "results" else name
        stems = [stem] if len(pages) == 1 else [f"{stem}-{number}" for number in range(1, len(pages) + 1)]
        files = [file for page, stem in zip(pages, stems, strict=True) for file in save(page, directory / stem, formats=formats)]
        written.append(WrittenFigure(*_words(name, comparison), tuple(files)))
    return written


def usual_figures(comparison: Comparison) -> list[FigureName]:
    """Those of a report that asks for none. Gains have intervals from three seeds on, and ranks a test from five pairs on."""
    enough = any(len(pair.by_seed(comparison.baseline)) >= MIN_SEEDS for pair in comparison.pairs)
    return ["results", "forest", "ranks", "curves", "cost"] if enough else ["results", "ranks", "curves", "cost"]


def _pages(name: FigureName, comparison: Comparison, curves: pd.DataFrame) -> list[Figure]:
    """One figure, or several with some of the pairs each where one has no room for all."""
    pairs = comparison.pairs
    try:
        return [draw_curves(comparison, curves) if name == "curves" else _DRAWN[name](comparison)]
    except DoesNotFitError as problem:
        if not problem.most or len(pairs) == 1:
            raise
        each = math.ceil(len(pairs) / math.ceil(len(pairs) / problem.most))
    parts = (replace(comparison, pairs=pairs[start : start + each]) for start in range(0, len(pairs), each))
    return [page for part in parts for page in _pages(name, part, curves)]


def _words(name: FigureName, comparison: Comparison) -> tuple[str, str]:
    """Title and caption."""
    metric, baseline = comparison.metric, comparison.baseline
    during = tested(metric)
    with_teacher = any(len(pair.of_teacher) for pair in comparison.pairs)
    with_spread = any(len(pair.by_seed(label)) > 1 for pair in comparison.pairs for label in comparison.labels)
    teacher = ", the dashed line is the teacher" if with_teacher else ""
    spread = ", with one standard deviation over seeds" if with_spread else ""
    title, how = {
        "results": (
            f"{metric.title} of the last epoch by method",
            f"A dot is one seed, the bar is the mean{teacher}. Methods share their seeds, so intervals of single methods would "
            "mislead.",
        ),
        "forest": (
            f"Gain over {baseline} in {metric.noun}",
            "Right of 0 is better. Thick: the 95 % interval over new seeds. Thin, where it is known: over new seeds and new test "
            "images. A hollow mark: the interval over new seeds has 0 in it.",
        ),
        "ranks": (
            f"Mean rank by {metric.noun}",
            "1 is best. A black bar joins methods whose ranks may differ by chance (Nemenyi's test, 5 %).",
        ),
        "curves": (f"{during.title} during training", "The main training, mean over seeds."),
        "cost": (
            f"{metric.title} and training time",
            f"A point is the mean of the last epoch{spread}, and the median time of training one student alone. Dotted: the Pareto "
            "front; no method is both cheaper and better than one on it.",
        ),
        "profile": (
            "Performance profile",
            "How large a share of pairs a method comes close to the best in: within a factor of the lowest mean of the pair.",
        ),
    }[name]
    done = comparison.results[comparison.results["status"] == "done"]
    if name == "cost":
        few = f"Of so many methods, those on the front, far off, and {baseline} have names and bars; the table of costs has all."
        how = " ".join([how, *([few] if only_front_named(comparison) else []), *timing_notes(comparison)])
    return title, f"{title}. {how} {seeds_sentence(done)} Measured on {'; '.join(map(str, done['environment'].unique()))}."
