"""The examples run as they stand."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.runner.frame import load_results
from kdbench.suite.resolve import load_suite

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_notebook_runs_the_suite_with_the_method(tmp_path):
    """In fewer epochs than the suite has, of which nothing here depends."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    suite = tmp_path / "examples" / "suite.yaml"
    shorter = suite.read_text().replace("epochs: 4", "epochs: 1").replace("milestones: [3]", "milestones: []")
    assert shorter != suite.read_text()
    suite.write_text(shorter)
    done = subprocess.run([sys.executable, "examples/notebook.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "at.attention" in done.stdout
    assert "kd.divergence" in done.stdout
    results = load_results(tmp_path / "results" / "example")
    assert set(results["status"]) == {"done"}
    assert {"scratch", "kd", "cosine", "cosine+kd"} == set(results["method"])


def test_networks_and_a_data_set_of_ones_own_run_from_the_command_line(tmp_path):
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    plugins = ["--plugin", "examples/own_model.py", "--plugin", "examples/own_dataset.py"]
    kdbench = [sys.executable, "-c", "from kdbench.cli import main; main()"]
    command = [*kdbench, "run", "examples/own_everything.yaml", *plugins, "--device", "cpu", "--seeds", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = load_results(tmp_path / "results")
    assert set(results["dataset"]) == {"own_waves"}
    students = results[results["student"] == "own_network"]
    assert sorted(students["method"]) == ["at", "kd", "scratch"]
    assert (students.loc[students["method"] != "kd", "test_error_pct"] < 50).all(), "of four classes, chance is 75 %"


@pytest.mark.parametrize(
    ("name", "label", "trials"),
    [
        ("own_images", "my photographs (10 % held out)", 15),
        ("large_folder", "my photographs (2 % held out)", 15),
        ("cifar10_folder", "CIFAR-10 (JPEG)", 21),
        ("torchvision", "my photographs", 30),
    ],
)
def test_the_suites_for_folders_of_images_are_valid(name, label, trials):
    suite = load_suite(EXAMPLES / f"{name}.yaml")
    assert suite.trials[0].dataset.label == label
    assert len(suite.trials) == trials
