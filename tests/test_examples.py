"""The examples run as they stand."""

import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbench import cli
from kdbench.data import DATASETS
from kdbench.method.interface import METHODS
from kdbench.models import MODELS
from kdbench.runner.frame import load_results
from kdbench.suite.resolve import load_suite

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy in the present directory; what they register is forgotten, and reports are written as Markdown alone."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kdbench.report.command.FORMATS", ("md",))
    undo = [registry.snapshot() for registry in (METHODS, MODELS, DATASETS)]
    yield tmp_path / "examples"
    for restore in undo:
        restore()


def test_the_notebook_runs_the_suite_with_the_method(examples, capsys):
    """In fewer epochs and with fewer images than the suite has, of which nothing here depends."""
    suite = examples / "suite.yaml"
    shorter = {"epochs: 4": "epochs: 1", "milestones: [3]": "milestones: []", "digits\n": "{name: digits, train_images: 200}\n"}
    for old, new in shorter.items():
        assert old in suite.read_text()
        suite.write_text(suite.read_text().replace(old, new))
    runpy.run_path("examples/notebook.py", run_name="__main__")
    told = capsys.readouterr().out
    assert "at.attention" in told
    assert "kd.divergence" in told
    results = load_results("results/example")
    assert set(results["status"]) == {"done"}
    assert {"scratch", "kd", "cosine", "cosine+kd"} == set(results["method"])


@pytest.mark.usefixtures("examples")
def test_networks_and_a_data_set_of_ones_own_run_from_the_command_line():
    plugins = ["--plugin", "examples/own_model.py", "--plugin", "examples/own_dataset.py"]
    command = ["run", "examples/own_everything.yaml", *plugins, "--device", "cpu", "--seeds", "0"]
    assert not cli.app(command, standalone_mode=False), "the exit status"
    results = load_results("results")
    assert set(results["dataset"]) == {"own_waves"}
    students = results[results["student"] == "own_network"]
    assert sorted(students["method"]) == ["at", "kd", "scratch"]
    assert (students.loc[students["method"] != "kd", "test_error_pct"] < 50).all(), "of four classes, chance is 75 %"


@pytest.mark.parametrize(
    ("name", "label", "trials"),
    [
        ("own_images", "my photographs (10 % held out)", 15),
        ("large_folder", "my photographs (2 % held out)", 15),
        ("cifar10_folder", "CIFAR-10 (JPEG)", 35),
        ("torchvision", "my photographs", 30),
    ],
)
def test_the_suites_for_folders_of_images_are_valid(name, label, trials):
    suite = load_suite(EXAMPLES / f"{name}.yaml")
    assert suite.trials[0].dataset.label == label
    assert len(suite.trials) == trials
