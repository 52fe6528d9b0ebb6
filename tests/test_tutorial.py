"""The tutorial shows what the first command prints for the suite on its page."""

import re
from pathlib import Path

from typer.testing import CliRunner

from kdbench.cli import app

PAGE = (Path(__file__).parent.parent / "docs" / "start" / "first-suite.md").read_text()


def test_the_plan_is_the_one_that_is_printed(tmp_path, monkeypatch):
    (tmp_path / "first.yaml").write_text(re.search(r"```yaml\n(.*?)```\n", PAGE, flags=re.DOTALL)[1])
    monkeypatch.chdir(tmp_path)
    printed = CliRunner().invoke(app, ["plan", "first.yaml"]).stdout
    assert printed == re.search(r"```text\n(.*?)```\n", PAGE, flags=re.DOTALL)[1]
