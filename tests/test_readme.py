"""The README is short and what it shows works; the pages show the example files (as they are: see test_site.py)."""

import csv
import re
from pathlib import Path

import torch

from kdbench import Batch, build_method, build_model
from kdbench.method.interface import METHODS
from kdbench.suite.plugins import load_path, load_shipped
from kdbench.suite.resolve import load_suite

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").rglob("*.md")))]
SHOWN = {file for page in PAGES for file in re.findall(r"<!-- file: (\S+) -->\n```", page)}


def test_all_examples_are_shown():
    scripts = {f"examples/{file.name}" for file in (ROOT / "examples").glob("*.py")}
    assert {"examples/suite.yaml", *scripts} <= SHOWN


def test_the_readme_is_short():
    assert README.count("\n") <= 120


def test_the_method_of_the_readme_runs_in_its_suite(tmp_path):
    """Under the names and with the terms that are written there."""
    (suite,), (method,) = (re.findall(rf"```{language}\n(.*?)```\n", README, flags=re.DOTALL) for language in ("yaml", "python"))
    (tmp_path / "suite.yaml").write_text(suite)
    (tmp_path / "cosine.py").write_text(method)
    load_shipped()
    restore = METHODS.snapshot()
    try:
        load_path(tmp_path / "cosine.py")
        loaded = load_suite(tmp_path / "suite.yaml")
        assert [(trial.method, trial.seed) for trial in loaded.trials] == [
            (m, s) for m in ("scratch", "kd", "cosine") for s in range(3)
        ]
        outputs = [build_model(name)(torch.randn(4, 3, 32, 32)) for name in ("resnet8", "resnet20")]
        cosine = build_method("cosine", student=outputs[0], teacher=outputs[1])
        batch = Batch(torch.zeros(4, 3, 32, 32), torch.arange(4), torch.arange(4), epoch=0, epochs=1, generator=torch.Generator())
        assert set(cosine.losses(*outputs, batch)) == {"cosine.distance"}
    finally:
        restore()


def test_the_result_is_that_of_the_report():
    """The means and standard deviations, and the lowest in bold."""
    names, _, cells = (line.strip("| ").split(" | ") for line in re.search(r"(\|.*\n){3}", README)[0].splitlines())
    with (ROOT / "results" / "reference" / "ft-cifar10-jpeg" / "test_error.csv").open() as file:
        rows = {row["column"]: row for row in csv.DictReader(file)}
    told = {name: f"{float(rows[name]['mean']):.2f} ± {float(rows[name]['std']):.2f}" for name in names}
    assert dict(zip(names, (cell.strip("*") for cell in cells), strict=True)) == told
    assert [name for name, cell in zip(names, cells, strict=True) if cell.startswith("**")] == [min(told, key=told.__getitem__)]
