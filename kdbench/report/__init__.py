"""Tables and plots of a comparison, as functions of a data frame with one row for each trial. Nothing here reads a file."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Group
from rich.text import Text

from kdbench.errors import KdbenchError, refuse_no_list
from kdbench.report.compare import compare
from kdbench.report.costs import cost_table
from kdbench.report.notes import seeds_sentence
from kdbench.report.published_table import published_table
from kdbench.report.render import to_csv, to_latex, to_markdown, to_terminal
from kdbench.report.selection import selection_table
from kdbench.report.tables import Table, best_epoch_table, claims, error_table, gain_table

FORMATS = ("md", "tex", "csv", "png", "pdf")

_FIGURES = {
    "test_error": "Test error of the last epoch by method: every seed, mean and 95 % interval",
    "curves": "Test error against epoch",
    "cost": "Test error against the time of training",
}


def write_report(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    *,
    pairs: Sequence[tuple[str, str]],
    title: str,
    directory: Path,
    methods: Sequence[str] = (),
    formats: Sequence[str] = FORMATS,
    published: pd.DataFrame | None = None,
) -> list[Path]:
    """Write the report of a comparison and return its files.

    Args:
        results: one row for each trial, done or not; errors in percent, speeds in images per second.
        curves: one row for each trial and epoch; without two tested epochs there is no figure of them.
        pairs: (teacher, student), in the order of rows.
        title: the heading.
        directory: made where it does not exist.
        methods: the order of columns; methods that it does not name follow in the order of `results`.
        formats: `md` writes report.md, `tex` tables.tex, `csv` results.csv and a file for each table, `png` and `pdf` the figures.
        published: what `kdbench.report.published_numbers.read_published` gives; it adds a table.

    Raises:
        KdbenchError: an unknown format, a pair without trials, trials that are not comparable, or published numbers of others.
    """
    refuse_no_list("formats", formats, example=["md", "tex"])
    refuse_no_list("methods", methods, example=["kd", "ft"])
    refuse_no_list("pairs", pairs, example=[("resnet56", "resnet20")])
    for name in formats:
        if name not in FORMATS:
            raise KdbenchError(f"unknown report format '{name}'. Choose from {', '.join(FORMATS)}.")
    comparison = compare(results, pairs=pairs, methods=methods)
    tables = _tables(results, published, pairs=pairs, methods=methods)
    directory.mkdir(parents=True, exist_ok=True)
    figures = _write_figures(results, curves, pairs=pairs, methods=methods, directory=directory, formats=formats)
    texts: dict[str, str] = {}
    if "md" in formats:
        stated = [f"* {claim}" for claim in claims(results, pairs=pairs, methods=methods)]
        head = [f"# {title}", "", *stated, "", _facts(comparison.results), ""]
        texts["report.md"] = "\n".join([*head, *map(to_markdown, tables), *_embedded(figures)])
    if "tex" in formats:
        texts["tables.tex"] = "\n".join(["% \\usepackage{booktabs}", *map(to_latex, tables)])
    if "csv" in formats:
        texts["results.csv"] = comparison.results.to_csv(index=False)
        best = best_epoch_table(results, pairs=pairs, methods=methods)
        texts |= {f"{table.name}.csv": to_csv(table) for table in (*tables, best)}
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [*(directory / name for name in texts), *figures]


def _tables(
    results: pd.DataFrame, published: pd.DataFrame | None, *, pairs: Sequence[tuple[str, str]], methods: Sequence[str]
) -> list[Table]:
    errors, gains, selection, costs = (
        table(results, pairs=pairs, methods=methods) for table in (error_table, gain_table, selection_table, cost_table)
    )
    beside = None if published is None else published_table(results, published, pairs=pairs, methods=methods)
    return [table for table in (errors, beside, gains, selection, costs) if table]


def _write_figures(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    *,
    pairs: Sequence[tuple[str, str]],
    methods: Sequence[str],
    directory: Path,
    formats: Sequence[str],
) -> list[Path]:
    kinds = [kind for kind in ("png", "pdf") if kind in formats]
    if not kinds or not (results["status"] == "done").any():
        return []
    from kdbench.report import plots  # its libraries are slow to import, and most reports need none

    figures = {"test_error": plots.error_plot(results, pairs=pairs, methods=methods)}
    if len(curves) and curves.loc[curves["test_error_pct"].notna(), "epoch"].nunique() > 1:  # one test is no curve
        figures["curves"] = plots.curves_plot(curves, results, pairs=pairs, methods=methods)
    figures["cost"] = plots.cost_plot(results, pairs=pairs, methods=methods)
    return [file for name, figure in figures.items() for file in plots.save(figure, directory / name, formats=kinds)]


def _embedded(figures: Sequence[Path]) -> list[str]:
    """Markdown that shows the PNG files and links to the others."""
    return [f"{'!' if file.suffix == '.png' else ''}[{_FIGURES[file.stem]}]({file.name})\n" for file in figures]


def _facts(results: pd.DataFrame) -> str:
    """Hardware, versions, protocol, n and, where the frame has `finished`, the dates: what a claim needs beside it."""
    done = results[results["status"] == "done"]
    if done.empty:
        return "No trial is done."

    def all_of(column: str) -> str:
        return "; ".join(map(str, done[column].unique()))

    facts = [
        f"Measured on {all_of('environment')}.",
        f"Recipe: {all_of('recipe')}; {all_of('precision')}; protocol {all_of('protocol')}.",
        seeds_sentence(done),
    ]
    if "finished" in done:
        days = dict.fromkeys(day[:10] for day in (done["finished"].min(), done["finished"].max()))
        facts.append(f"Finished {' to '.join(days)}.")
    return " ".join(facts)


def terminal_tables(
    results: pd.DataFrame,
    *,
    pairs: Sequence[tuple[str, str]],
    title: str,
    methods: Sequence[str] = (),
    width: int | None = None,
    published: pd.DataFrame | None = None,
) -> Group:
    """The title, the claims and the tables, to be printed by a rich console of `width` characters, the terminal's unless given.

    Raises:
        KdbenchError: a pair without trials, trials that are not comparable, or published numbers of others.
    """
    width = width or shutil.get_terminal_size().columns
    tables = _tables(results, published, pairs=pairs, methods=methods)
    stated = [Text(claim) for claim in claims(results, pairs=pairs, methods=methods)]
    return Group(Text(title, style="bold"), *stated, "", *(to_terminal(table, width=width) for table in tables))
