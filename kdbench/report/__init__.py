"""Tables and figures of a comparison: a data frame with one row for each trial in, tables and files out. Nothing here reads a file.

`compare` arranges a frame, and each table is a function of what it gives. So is each figure of `kdbench.report.figures`, a module
to be imported by its own name, since its libraries are slow to import.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Group

from kdbench.errors import KdbenchError, refuse_no_list
from kdbench.report.claims import claims
from kdbench.report.compare import Comparison, compare
from kdbench.report.formats.latex import packages, to_latex
from kdbench.report.formats.latex_names import latex_names
from kdbench.report.formats.render import Paragraph, TerminalTable, to_csv, to_markdown
from kdbench.report.notes import seeds_sentence
from kdbench.report.page.sources import NO_SOURCES, Sources
from kdbench.report.tables.class_errors import class_errors_table, confusions_table
from kdbench.report.tables.costs import cost_table
from kdbench.report.tables.further import asked_tables, further_tables
from kdbench.report.tables.gains import gain_table
from kdbench.report.tables.pairwise import pairwise_table
from kdbench.report.tables.published import published_table
from kdbench.report.tables.ranks import profile_table, ranks_table, win_tie_loss_table
from kdbench.report.tables.results import best_epoch_table, result_table
from kdbench.report.tables.selection import selection_table
from kdbench.report.tables.shared_errors import beside_teacher_table, shared_errors_table
from kdbench.report.tables.table import Table
from kdbench.report.tables.tuning import tuning_table
from kdbench.spec.report_options import ReportOptions

if TYPE_CHECKING:
    from kdbench.report.figures.written import WrittenFigure

__all__ = [
    "FORMATS",
    "Comparison",
    "ReportOptions",
    "Sources",
    "Table",
    "beside_teacher_table",
    "best_epoch_table",
    "claims",
    "class_errors_table",
    "compare",
    "confusions_table",
    "cost_table",
    "gain_table",
    "latex_names",
    "pairwise_table",
    "profile_table",
    "ranks_table",
    "result_table",
    "selection_table",
    "shared_errors_table",
    "terminal_tables",
    "to_csv",
    "to_latex",
    "to_markdown",
    "tuning_table",
    "win_tie_loss_table",
    "write_report",
]

FORMATS = ("md", "html", "tex", "csv", "bib", "png", "pdf")


def write_report(
    comparison: Comparison,
    curves: pd.DataFrame,
    *,
    title: str,
    directory: Path,
    name: str = "",
    formats: Sequence[str] = FORMATS,
    published: pd.DataFrame | None = None,
    sources: Sources = NO_SOURCES,
) -> list[Path]:
    """Write the report of a comparison and return its files.

    Args:
        comparison: what `compare` gives.
        curves: one row for each trial and epoch; without two tested epochs there is no figure of them.
        title: the heading.
        directory: made where it does not exist.
        name: of the report; labels in LaTeX begin with it.
        formats: `md` writes report.md, `html` report.html, `tex` tables.tex and a file for each table, `csv` results.csv and a file
            for each table, `bib` methods.bib, `png` and `pdf` the figures.
        published: what `kdbench.report.published_numbers.read_published` gives; it adds a table.
        sources: what the page of `html` tells beyond the trials.

    Raises:
        KdbenchError: an unknown format, published numbers of other pairs, or a table or figure is asked for that cannot be made.
    """
    refuse_no_list("formats", formats, example=["md", "tex"])
    for chosen in formats:
        if chosen not in FORMATS:
            raise KdbenchError(f"unknown report format '{chosen}'. Choose from {', '.join(FORMATS)}.")
    tables = _tables(comparison, published)
    directory.mkdir(parents=True, exist_ok=True)
    figures = _figures(comparison, curves, directory=directory, formats=formats)
    texts: dict[str, str] = {}
    if "md" in formats:
        stated = [f"* {claim}" for claim in claims(comparison)]
        head = [f"# {title}", "", *stated, "", _facts(comparison.results), ""]
        texts["report.md"] = "\n".join([*head, *map(to_markdown, tables), *map(_embedded, figures)])
    named = latex_names(comparison)
    tex = {f"{table.name}.tex": to_latex(table, options=comparison.options, prefix=name, names=named) for table in tables}
    if "tex" in formats:
        texts |= {**tex, "tables.tex": "\n".join([packages(tex.values()), *tex.values()])}
    numbers = {"results.csv": comparison.given.to_csv(index=False), **{f"{table.name}.csv": to_csv(table) for table in tables}}
    if "csv" in formats:
        others = (best_epoch_table(comparison), *further_tables(comparison))
        texts |= numbers | {f"{table.name}.csv": to_csv(table) for table in others}
    if "bib" in formats or "html" in formats:
        from kdbench.report.formats.bibtex import to_bibtex  # imports torch, which tables need not

        papers = {"methods.bib": to_bibtex(comparison.results)}
        texts |= papers if "bib" in formats else {}
    if "html" in formats:
        from kdbench.report.page.html import to_html  # needs the libraries of figures, which are slow to import
        from kdbench.report.page.view import page_of

        facts, files = _facts(comparison.results), numbers | tex | papers
        texts["report.html"] = to_html(
            page_of(comparison, curves, title=title, facts=facts, tables=tables, files=files, sources=sources)
        )
    for file, text in texts.items():
        (directory / file).write_text(text, encoding="utf-8")
    return [*(directory / file for file in texts), *(file for figure in figures for file in figure.files)]


def _tables(comparison: Comparison, published: pd.DataFrame | None) -> list[Table]:
    beside = None if published is None else published_table(comparison, published)
    made = (
        *(result_table(comparison), beside, gain_table(comparison), ranks_table(comparison)),
        *(selection_table(comparison), tuning_table(comparison), cost_table(comparison)),
    )
    return [*(table for table in made if table), *asked_tables(comparison)]


def _figures(comparison: Comparison, curves: pd.DataFrame, *, directory: Path, formats: Sequence[str]) -> Sequence[WrittenFigure]:
    kinds = [kind for kind in ("png", "pdf") if kind in formats]
    if not kinds or not (comparison.results["status"] == "done").any():
        return ()
    from kdbench.report.figures.written import write_figures  # its libraries are slow to import, and most reports need none

    return write_figures(comparison, curves, directory=directory, formats=kinds)


def _embedded(figure: WrittenFigure) -> str:
    """Markdown that shows the PNG files, links to the others, and has the caption under them."""
    links = (f"{'!' if file.suffix == '.png' else ''}[{figure.title}]({file.name})" for file in figure.files)
    return "\n".join([*(f"{link}\n" for link in links), f"{figure.caption}\n"])


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
    comparison: Comparison, *, title: str, width: int | None = None, published: pd.DataFrame | None = None
) -> Group:
    """The title, the claims, what they were measured on, and the tables.

    They are to be printed by a rich console of `width` characters, the terminal's unless given.

    Raises:
        KdbenchError: published numbers of other pairs, or a table is asked for that cannot be made.
    """
    width = width or shutil.get_terminal_size().columns
    tables = _tables(comparison, published)
    stated = map(Paragraph, claims(comparison))
    facts = Paragraph(_facts(comparison.results))
    return Group(Paragraph(title, style="bold"), *stated, "", facts, "", *(TerminalTable(table, width) for table in tables))
