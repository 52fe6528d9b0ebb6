"""The command line, tried as a user would: what it prints, what it writes, and with which status it exits."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

import kdbench
from kdbench import cli, progress
from kdbench.data import DATASETS
from kdbench.method import METHODS
from kdbench.models import MODELS
from kdbench.plugins import load_shipped
from kdbench.suite import suite_names

load_shipped()

LINES = {
    "title": "title: Tiny",
    "dataset": "dataset: {name: digits, train_images: 200}",
    "recipe": "recipe: {base: digits-quick, epochs: 1, schedule: {milestones: []}}",
    "seeds": "seeds: [0]",
    "methods": "methods: [scratch, kd]",
    "pairs": "pairs:\n  - {teacher: resnet14, student: resnet8}",
}

PLUGIN = '''
import os
import signal
from pathlib import Path

from kdbench import Method, register


@register("plugin_for_test")
class Mine(Method):
    """CE(z_s, y)"""

    reads = ("logits",)

    def losses(self, student, teacher, batch):
        if batch.epoch == 1 and Path("interrupt").exists():
            number = int(Path("interrupt").read_text())
            Path("interrupt").unlink()
            os.kill(os.getpid(), number)
        if Path("fail").exists():
            raise RuntimeError("a [/mistake] of mine")
        return {"nothing": 0 * student.logits.sum()}
'''


class Result(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """`kdbench` with arguments, in this process; reports are written as Markdown alone unless formats are asked for."""
    monkeypatch.setattr("kdbench.present.FORMATS", ("md",))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    undo = [registry.snapshot() for registry in (METHODS, MODELS, DATASETS)]

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["kdbench", *arguments])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        return Result(status if isinstance(status, int) else 0, *capsys.readouterr())

    yield run
    for restore in undo:
        restore()
    for name in [name for name in sys.modules if name.startswith("kdbench_plugin_plugin")]:
        del sys.modules[name]
    for number, handler in handlers.items():
        signal.signal(number, handler)


def write(file: str = "tiny.yaml", **lines: str) -> str:
    Path(file).write_text("\n".join({**LINES, **lines}.values()) + "\n")
    return file


def write_plugin() -> str:
    Path("plugin.py").write_text(PLUGIN)
    return "plugin.py"


def lines_of(text: str) -> list[str]:
    return text.strip().splitlines()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results directory in which the tiny suite is done. Copy it."""
    root = tmp_path_factory.mktemp("trained")
    suite = root / "tiny.yaml"
    suite.write_text("\n".join(LINES.values()))
    kdbench.run_suite(suite, results=root / "results", device="cpu")
    return root / "results"


@pytest.fixture
def done(trained: Path) -> str:
    """The tiny suite, done, in the present directory."""
    shutil.copytree(trained, "results")
    return write()


# Exit status 0


def test_a_run_trains_prints_tables_and_writes_a_report(call):
    ran = call("run", write(), "--device", "cpu")
    assert ran.status == 0
    assert ran.err == ""
    assert "done scratch, resnet14, seed 0: test error" in ran.out
    assert "done kd, resnet14 -> resnet8, seed 0: test error" in ran.out
    assert "Test error (%) of the last epoch on digits" in ran.out
    assert ran.out.endswith("results/reports/tiny/report.md\n")
    assert Path("results/reports/tiny/report.md").read_text().startswith("# Tiny\n")


def test_output_that_is_piped_is_plain(call, done):
    ran = call("run", done, "--rerun", "all", "--device", "cpu")
    assert ran.status == 0
    assert "\x1b" not in ran.out
    assert "\r" not in ran.out
    assert ran.out.startswith("[0/")is False
    assert any(line.startswith("[") and "epochs" in line and line.endswith("epoch 1: scratch, kd") for line in lines_of(ran.out))


def test_a_second_run_trains_nothing_and_prints_the_tables_again(call, done, monkeypatch):
    monkeypatch.setattr("kdbench.run._Run", None)
    ran = call("run", done)
    assert ran.status == 0
    assert "Test error (%) of the last epoch on digits" in ran.out


def test_the_version(call):
    assert call("--version") == (0, f"kdbench {kdbench.__version__}\n", "")


@pytest.mark.parametrize("command", [(), *[(name,) for name in ("run", "plan", "report", "list", "show")]])
def test_help(command, call):
    helped = call(*command, "--help")
    assert helped.status == 0
    assert helped.out.startswith("Usage: ")


# Exit status 1


def test_a_failed_trial_is_status_1_and_names_its_reason_every_time(call):
    arguments = ("run", write(methods="methods: [scratch, plugin_for_test]"), "--plugin", write_plugin(), "--device", "cpu")
    Path("fail").touch()
    told = "FAILED plugin_for_test, resnet14 -> resnet8, seed 0: RuntimeError: a [/mistake] of mine (plugin.py:24)"
    for _ in range(2):
        ran = call(*arguments)
        assert ran.status == 1
        assert ran.err == ""
        assert lines_of(ran.out)[-2:] == [told, "1 failed; `--rerun failed` tries again."]
        assert "Test error (%) of the last epoch on digits" in ran.out
    Path("fail").unlink()
    assert call(*arguments).status == 1
    assert call(*arguments, "--rerun", "failed").status == 0
    assert call(*arguments).status == 0


# Exit status 3


def test_a_run_that_is_stopped_goes_on_with_the_same_command(call):
    arguments = ("run", write(), "--device", "cpu")
    stopped = call(*arguments, "--stop-after", "0s")
    assert stopped == (3, "stopped before the end; the same command goes on.\n", "")
    assert call(*arguments).status == 0


def test_a_stopped_run_of_all_goes_on_without_rerun(call, done):
    stopped = call("run", done, "--device", "cpu", "--rerun", "all", "--stop-after", "0s")
    assert stopped.status == 3
    assert lines_of(stopped.out)[-1] == "stopped before the end; the same command without --rerun goes on."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_one_line_and_goes_on_from_the_last_epoch(number, call):
    suite = write(
        recipe="recipe: {base: digits-quick, epochs: 2, schedule: {milestones: []}}", methods="methods: [plugin_for_test]"
    )
    plugin = write_plugin()
    Path("interrupt").write_text(str(int(number)))
    stopped = call("run", suite, "--plugin", plugin, "--device", "cpu")
    assert stopped.status == 3
    assert stopped.err == "stopped; the same command goes on from the last whole epoch.\n"
    planned = json.loads(call("plan", suite, "--plugin", plugin, "--json").out)
    assert [trial["status"] for trial in planned["students"]] == ["started"]
    (file,) = Path("results/trials").glob("*/checkpoint.pt")
    assert len(torch.load(open_after_hash(file), weights_only=True)["rows"]) == 1
    assert call("run", suite, "--plugin", plugin, "--device", "cpu").status == 0
    assert len((file.parent / "curves.jsonl").read_text().splitlines()) == 2


def open_after_hash(file: Path) -> Any:
    handle = file.open("rb")
    handle.seek(32)
    return handle
