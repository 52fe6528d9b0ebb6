"""The README shows the example files as they are, and names no file that is not there."""

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


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_a_link_leads_somewhere(target):
    assert (ROOT / target).exists()
