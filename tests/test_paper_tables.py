"""Tables in the style of three papers, from synthetic results, compiled by a real LaTeX where one is installed."""

import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from test_report_tables import trial

from kdbench.report import ReportOptions, compare
from kdbench.report.formats.latex import packages, to_latex
from kdbench.report.formats.latex_names import latex_names
from kdbench.report.tables.gains import interval_headings
from kdbench.report.tables.results import result_table
from kdbench.report.tables.table import Cell, Row, Table

Pairs = Sequence[tuple[str, str]]

SAME: Pairs = (
    *(("wrn_40_2", "wrn_16_2"), ("wrn_40_2", "wrn_40_1"), ("resnet56", "resnet20"), ("resnet110", "resnet20")),
    *(("resnet110", "resnet32"), ("resnet32x4", "resnet8x4"), ("vgg13", "vgg8")),
)
CROSS: Pairs = (
    *(("vgg13", "mobilenetv2_half"), ("resnet50_cifar", "mobilenetv2_half"), ("resnet50_cifar", "vgg8")),
    *(("resnet32x4", "shufflenetv1"), ("resnet32x4", "shufflenetv2"), ("wrn_40_2", "shufflenetv1")),
)
FT100: Pairs = (("resnet110", "resnet56"), ("resnet110", "resnet20"), ("wrn_40_2", "wrn_40_1"), ("wrn_46_4", "vgg13"))

CRD_METHODS = "scratch kd fitnets_hint at sp cc vid rkd pkt ab ft fsp nst crd crd+kd"
PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "paper-tables.md"
SECTIONS = [yaml.safe_load(text)["report"] for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)]
"""Of the page that tells how a table gets its style."""


def results(pairs: Pairs, methods: str, *, dataset: str = "cifar100", seeds: int = 5) -> pd.DataFrame:
    """Errors that are drawn: no training made them."""
    drawn = random.Random(0)
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        level = drawn.uniform(24, 31)
        known = dict.fromkeys(methods.split())
        for method in known:
            mean = level - (drawn.uniform(0.4, 2.2) if method != "scratch" else 0)
            for seed in range(seeds):
                about = {"dataset": dataset, "teacher_error_pct": level - 2.6 if method != "scratch" else None}
                rows.append(trial(method, seed, mean + drawn.gauss(0, 0.2), pair=pair, **about))
    found = pd.DataFrame(rows)
    return found[(found["method"] != "scratch") | ~found.duplicated(["student", "method", "seed"])]


_, CRD, FT_ROWS, IN_GROUPS = SECTIONS
CROSSED = CRD | {"names": {"scratch": "Student"}, "second_best": True, "label": "cross"}
BOTH = CRD | {
    "label": "both",
    "caption": "",
    "spread": "interval",
    "mean": True,
    "names": {},
    "methods": ["scratch", "crd", "ft", "KD"],
    "groups": {"Same architecture": ["vgg13 -> vgg8", "resnet56 -> resnet20"], "Cross architecture": ["vgg13 -> mobilenetv2_half"]},
    "pairs": ["resnet56→resnet20", "vgg13 -> vgg8", "vgg13 -> mobilenetv2_half"],
}
STYLES: dict[str, tuple[dict[str, Any], Pairs, str]] = {
    "methods-as-rows": (CRD, SAME, CRD_METHODS),
    "cross": (CROSSED, CROSS, CRD_METHODS.replace("fsp ", "")),
    "both": (BOTH, (*SAME, *CROSS), CRD_METHODS),
    "pairs-as-rows": (FT_ROWS, FT100, "scratch kd fitnets at ft at+kd ft+kd"),
    "methods-in-groups": (IN_GROUPS, SAME[2:3], "scratch kd dkd dist fitnets at ft crd"),
    "usual": ({}, SAME[:3], "scratch kd ft"),
    "cited": ({**FT_ROWS, "cite": True, "highlight": ["ft"], "label": "cited"}, FT100, "scratch kd fitnets at ft at+kd ft+kd"),
}


def latex(style: str) -> str:
    options, pairs, methods = STYLES[style]
    read = ReportOptions.model_validate(options)
    comparison = compare(results(pairs, methods), pairs=pairs, options=read)
    return to_latex(result_table(comparison), options=read, prefix=style, names=latex_names(comparison))


def gains(pairs: Pairs, interval: str) -> Table:
    """A table of gains with both intervals, of four methods for each pair."""
    rows = (
        Row(
            (*map(Cell, (" → ".join(pair) if method == "KD" else "", method, "-36.57", interval, interval, "3")),),
            opens_group=method == "KD" and pair != pairs[0],
        )
        for pair in pairs
        for method in ("KD", "AT", "FitNets hint", "AT+KD")
    )
    columns = ("Pair", "Method", "Gain (points)", *interval_headings(images=True), "n")
    return Table("gain", "Gain over scratch, paired by seed", columns, tuple(rows), (), naming=2)


def compiled(folder: Path, body: str, *, options: str = "") -> str:
    """The log of LaTeX; `paper.pdf` lies in the folder."""
    text = rf"\documentclass[{options}]{{article}}\usepackage{{booktabs,longtable}}\begin{{document}}{body}\end{{document}}"
    (folder / "paper.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-3000:]
    return (folder / "paper.log").read_text(errors="replace")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex is installed")
@pytest.mark.parametrize("options", ["", "twocolumn"])
def test_papers_tables_are_compiled_and_fit_their_page(options, tmp_path):
    tables = [text for text in map(latex, STYLES) if (r"{table*}" in text) == (options == "twocolumn")]
    tables += [] if options else [to_latex(gains(pairs, "-50.77 to -22.38")) for pairs in (SAME[:2], CROSS[:2], 3 * CROSS)]
    log = compiled(tmp_path, "\n".join(tables), options=options)
    assert re.findall(r"Overfull \\hbox.*|.*multiply.defined.*|Float too large.*", log) == []


def test_a_table_that_is_longer_than_a_page_is_broken_over_pages_but_not_over_two_columns():
    long = gains(3 * CROSS, "-0.7 to 2.3")
    text = to_latex(long)
    assert r"\begin{longtable}" in text and r"\begin{table}" not in text
    assert "% For text in one column. In two columns: `kdbench report --latex 'table*'`" in text.splitlines()[1]
    assert packages([to_latex(gains(CROSS, "-0.7 to 2.3")), text]) == r"% \usepackage{booktabs,longtable}"
    assert packages([to_latex(gains(CROSS, "-0.7 to 2.3"))]) == r"% \usepackage{booktabs}"
    over_columns = to_latex(long, options=ReportOptions(latex="table*"))
    assert "longtable" not in over_columns and over_columns.startswith("% Longer than a page")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex is installed")
def test_a_name_that_begins_like_an_argument_is_none(tmp_path):
    rows = tuple(Row((Cell(name), Cell("1.0"))) for name in ("[1] KD", "[2] FT", "* AT", "* FitNets"))
    table = Table("cost", "Cost", ("[0] Method", "Error\n[1]"), rows, ())
    compiled(tmp_path, "\n".join([to_latex(table), to_latex(replace(table, rows=rows * 20))]))
    printed = re.findall(r"^(?:\{\})?(\S.*?) & 1.0", to_latex(table), re.MULTILINE)
    assert printed == ["[1] KD", "[2] FT", "* AT", "* FitNets"]


def test_a_table_that_fits_in_no_letters_says_so_before_it():
    row = Row(tuple(map(Cell, ("a method", *["12.3"] * 60))))
    wide = Table("shared_errors", "Shared errors", ("Method", *["method"] * 60), (row,) * 60, ())
    assert re.search(r"^% About [\d,]+ points wider than the text: show fewer methods", to_latex(wide), re.MULTILINE)


def test_a_name_in_a_note_has_quotation_marks():
    table = replace(gains(SAME[:1], "-0.7 to 2.3"), notes=["Set `weights` and `ce`."])
    assert "Set `weights' and `ce'." in to_latex(table)


@pytest.mark.parametrize(
    ("pairs", "interval", "over_rows"), [(CROSS[:2], "-50.77 to -22.38", True), ([("a", "b"), ("c", "b")], "-0.7 to 2.3", False)]
)
def test_tables_of_few_columns_have_letters_that_can_be_read(pairs, interval, over_rows):
    text = to_latex(gains(pairs, interval))
    assert r"\footnotesize" in text.split(r"\begin{tabular}")[0], "long names of pairs stand over their rows"
    assert (r"\multicolumn{5}{l}{\emph{vgg13 $\to$ mobilenetv2\_half}} \\" in text) == over_rows
    assert ("Pair & Method" in text) != over_rows
