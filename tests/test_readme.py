"""The README shows the example files as they are, and names no file that is not there."""

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SHOWN = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", README, flags=re.DOTALL)


@pytest.mark.parametrize(("file", "text"), SHOWN, ids=[file for file, _ in SHOWN])
def test_an_example_is_shown_as_it_is(file, text):
    assert (ROOT / file).read_text() == text


def test_all_examples_are_shown():
    scripts = {f"examples/{file.name}" for file in (ROOT / "examples").glob("*.py")}
    assert {file for file, _ in SHOWN} == {"examples/suite.yaml", *scripts}


def test_the_result_is_that_of_the_report():
    """The means and standard deviations, and the lowest in bold."""
    names, _, cells = (line.strip("| ").split(" | ") for line in re.search(r"(\|.*\n){3}", README)[0].splitlines())
    with (ROOT / "results" / "reference" / "ft-cifar10-jpeg" / "test_error.csv").open() as file:
        rows = {row["column"]: row for row in csv.DictReader(file)}
    told = {name: f"{float(rows[name]['mean']):.2f} ± {float(rows[name]['std']):.2f}" for name in names}
    assert dict(zip(names, (cell.strip("*") for cell in cells), strict=True)) == told
    assert [name for name, cell in zip(names, cells, strict=True) if cell.startswith("**")] == [min(told, key=told.__getitem__)]


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_a_link_leads_somewhere(target):
    assert (ROOT / target).exists()
