"""The command line, tried as a user would: what it prints, what it writes, and with which status it exits."""

import errno
import io
import json
import os
import pkgutil
import pty
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from conftest import OWN
from pydantic_core import to_jsonable_python
from synthetic_results import TEACHER, put, trial_spec

import kdbench
from kdbench import cli, conformance
from kdbench.catalogue.images import contents_of
from kdbench.cli.app import loading
from kdbench.cli.arguments import method_names, seconds, seed_numbers
from kdbench.data import DATASETS
from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS
from kdbench.models import MODELS
from kdbench.models.weights import read_checkpoint
from kdbench.report.output_folder import LIST
from kdbench.runner import pace, progress
from kdbench.runner.engines import Place
from kdbench.signals import Interrupted
from kdbench.spec.record import PROTOCOL
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.suite.shipped import suite_names

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
            numbers = Path("interrupt").read_text().split()
            Path("interrupt").unlink()
            for number in numbers:
                os.kill(os.getpid(), int(number))
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
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signals_heard: None) -> Iterator[Call]:
    """`kdbench` with arguments, in this process; reports are written as Markdown alone unless formats are asked for."""
    monkeypatch.setattr("kdbench.report.command.FORMATS", ("md",))
    monkeypatch.setattr("sys.unraisablehook", sys.unraisablehook)
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
    assert "done teacher resnet14, seed 0: test error" in ran.out
    assert "done scratch, resnet8, seed 0: test error" in ran.out
    assert "done kd, resnet14 -> resnet8, seed 0: test error" in ran.out
    assert "Test error (%, ↓) of the last epoch on digits" in ran.out
    assert ran.out.endswith("results/reports/tiny/report.md\n")
    assert Path("results/reports/tiny/report.md").read_text().startswith("# Tiny\n")


def test_output_that_is_piped_is_plain(call, done):
    ran = call("run", done, "--rerun", "all", "--device", "cpu")
    assert ran.status == 0
    assert "\x1b" not in ran.out
    assert "\r" not in ran.out
    assert any(line.startswith("[") and "epochs" in line and line.endswith("epoch 1: scratch, kd") for line in lines_of(ran.out))


def test_what_a_locale_lacks_is_written_as_its_number(call, monkeypatch):
    """A run whose tables could not be printed ended with a trace, and with the status of a failed trial."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert call("plan", write(title="title: Größe")).status == 0
    out.flush()
    assert b"Gr\\xf6\\xdfe: digits" in out.buffer.getvalue()


def test_streams_that_are_closed_from_the_start_are_not_needed(call, done, monkeypatch):
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(sys, name, None)
    assert call("run", done).status == 0
    assert Path("results/reports/tiny/report.md").exists()
    sys.stdin.close()
    sys.stdout.close()


@pytest.mark.parametrize("arguments", [["show", "suite", "tiny.yaml"], ["list", "recipes"], ["show", "recipe", "digits-quick"]])
def test_files_are_utf8_in_every_locale(arguments, call, monkeypatch):
    write(title="# Größe\ntitle: Größe")
    monkeypatch.setattr(io, "text_encoding", lambda given, stacklevel=2: given or "ascii")
    assert call(*arguments).status == 0


def test_a_second_run_trains_nothing_and_prints_the_tables_again(call, done, monkeypatch):
    monkeypatch.setattr("kdbench.runner.run.Phase", None)
    ran = call("run", done)
    assert ran.status == 0
    assert "Test error (%, ↓) of the last epoch on digits" in ran.out


def test_the_version(call):
    assert call("--version") == (0, f"kdbench {kdbench.__version__}\n", "")


@pytest.mark.parametrize(
    "command",
    [
        (),
        *[(name,) for name in ("run", "plan", "report", "list", "show", "check", "new", "merge", "export", "deploy")],
        ("trials", "list"),
    ],
)
def test_help(command, call):
    helped = call(*command, "--help")
    assert helped.status == 0
    assert helped.out.startswith("Usage: ")
    assert "..." not in helped.out.split("\n", 1)[1], "no text is cut"
    assert not re.search("<(list|str)", helped.out), "types of Python mean nothing to a user"
    assert not command or f"\n  Examples:\n    kdbench {command[0]} " in helped.out


# Exit status 1


def test_a_failed_trial_is_status_1_and_names_its_reason_every_time(call):
    arguments = ("run", write(methods="methods: [scratch, plugin_for_test]"), "--plugin", write_plugin(), "--device", "cpu")
    Path("fail").touch()
    told = "FAILED plugin_for_test, resnet14 -> resnet8, seed 0: RuntimeError: a [/mistake] of mine (plugin.py:22); "
    told += "`kdbench check plugin.py` tries the method without training"
    for _ in range(2):
        ran = call(*arguments)
        assert ran.status == 1
        assert ran.err == ""
        *_, trial, log, end = lines_of(ran.out)
        assert (trial, end) == (told, "1 failed; `--rerun failed` tries again.")
        assert "    raise RuntimeError" in Path(log.strip()).read_text()
        assert "Test error (%, ↓) of the last epoch on digits" in ran.out
    Path("fail").unlink()
    assert call(*arguments).status == 1
    assert call(*arguments, "--rerun", "failed").status == 0
    assert call(*arguments).status == 0


# Exit status 3


def test_a_run_that_is_stopped_goes_on_with_the_same_command(call):
    arguments = ("run", write(), "--device", "cpu")
    stopped = call(*arguments, "--stop-after", "0s")
    assert (stopped.status, stopped.err) == (3, "")
    assert lines_of(stopped.out)[-1] == "stopped before the end; the same command continues."
    assert call(*arguments).status == 0


def test_a_stopped_run_of_all_goes_on_without_rerun(call, done):
    stopped = call("run", done, "--device", "cpu", "--rerun", "all", "--stop-after", "0s")
    assert stopped.status == 3
    assert lines_of(stopped.out)[-1] == "stopped before the end; the same command without --rerun continues."


def interrupted_run(call: Call, *numbers: int, epochs: int) -> tuple[Result, Path, Callable[[], Result]]:
    """How a run ended that was sent signals in its second epoch, the checkpoint that it left, and how to run it again."""
    recipe = f"recipe: {{base: digits-quick, epochs: {epochs}, schedule: {{milestones: []}}}}"
    suite, plugin = write(recipe=recipe, methods="methods: [plugin_for_test]"), write_plugin()
    Path("interrupt").write_text(" ".join(str(int(number)) for number in numbers))
    again = partial(call, "run", suite, "--plugin", plugin, "--device", "cpu")
    stopped = again()
    planned = json.loads(call("plan", suite, "--plugin", plugin, "--json").out)
    assert [trial["status"] for trial in planned["students"]] == ["started"]
    (file,) = Path("results/trials").glob("*/checkpoint.pt")
    return stopped, file, again


def epochs_kept(checkpoint: Path) -> int:
    """How many epochs a trial goes on from."""
    state = read_checkpoint(checkpoint)
    assert state is not None
    return len(state["rows"])


def test_a_signal_lets_the_epoch_end(call):
    stopped, checkpoint, again = interrupted_run(call, signal.SIGTERM, epochs=3)
    assert stopped.status == 3
    assert lines_of(stopped.out)[-1] == "stopped before the end; the same command continues."
    assert epochs_kept(checkpoint) == 2
    assert again().status == 0
    assert len((checkpoint.parent / "curves.jsonl").read_text().splitlines()) == 3


def test_a_second_signal_stops_at_once_and_the_run_goes_on_from_the_last_whole_epoch(call):
    stopped, checkpoint, again = interrupted_run(call, signal.SIGINT, signal.SIGINT, epochs=2)
    assert stopped.status == 3
    assert lines_of(stopped.err) == ["stopped; the same command continues from the last whole epoch."]
    assert epochs_kept(checkpoint) == 1
    assert again().status == 0
    assert len((checkpoint.parent / "curves.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "dropped", "told"),
    [
        ([], False, "every trial has ended, and the same command makes the report."),
        (["--rerun", "failed"], True, "every trial has ended, and the same command without --rerun makes the report."),
        (["--seeds", "0,1", "--stop-after", "0s"], False, "the same command continues."),
    ],
)
def test_a_run_that_is_stopped_in_its_report_says_what_is_left(arguments, dropped, told, call, done, monkeypatch):
    def write(*_: object, **__: object) -> list[Path]:
        with suppress(Interrupted) if dropped else nullcontext():  # as some library may
            signal.raise_signal(signal.SIGTERM)
        return []

    monkeypatch.setattr("kdbench.report.command.write_report", write)
    stopped = call("run", done, "--device", "cpu", *arguments)
    assert (stopped.status, stopped.err) == (3, f"stopped while the report was made; {told}\n")


# Exit status 2: one line, nothing started, nothing written


def refusal(refused: Result) -> str:
    """The one message of a command that was refused before anything started."""
    assert refused.status == 2
    assert refused.out == ""
    (line,) = lines_of(refused.err)
    assert not list(Path().rglob("record.json")), "nothing is recorded"
    assert not list(Path().rglob("spec.json")), "nothing is started"
    assert not list(Path().rglob("reports")), "nothing is reported"
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gpu"], "unknown device 'gpu'. Choose auto, all, cpu, cpu:2, cuda or cuda:INDEX."),
        (["--device", "cuda:one"], "unknown device 'cuda:one'. Choose auto, all, cpu, cpu:2, cuda or cuda:INDEX."),
        (
            ["--device", "cuda"],
            "device 'cuda' was asked for and this machine has no usable CUDA device. Choose --device cpu.",
        ),
        (
            ["--stop-after", "soon"],
            "--stop-after: 'soon' is not a time. Give it with its unit, such as 90s, 9m, 2h or 1h30m.",
        ),
        (["--stop-after", "90"], "--stop-after: '90' is not a time. Give it with its unit, such as 90s, 9m, 2h or 1h30m."),
        (["--stop-after=-9m"], "--stop-after: '-9m' is not a time. Give it with its unit, such as 90s, 9m, 2h or 1h30m."),
        (
            ["--claim-timeout", "5m"],
            "--claim-timeout: '5m' is of runs that claim. Give --claim with it, or leave it out.",
        ),
        (["--seeds", "a,b"], "--seeds: 'a,b' is not a list of seeds. Write whole numbers without spaces, as in 0,1,2 or 0-2."),
        (["--seeds", "1,"], "--seeds: '1,' is not a list of seeds. Write whole numbers without spaces, as in 0,1,2 or 0-2."),
        (["--seeds=-1"], "--seeds: -1 cannot be a seed. Give whole numbers from 0 up."),
        (["--seeds", "1,1"], "--seeds: a seed is named twice. Name each once."),
        (["--seeds", "0-2,1"], "--seeds: a seed is named twice. Name each once."),
        (["--seeds", "3-0"], "--seeds: '3-0' is not a range of seeds. Give 0-3."),
        (["--seeds", "0-999999999"], "--seeds: '0-999999999' is not a range of seeds. Give fewer than 100,000."),
        (["--seeds", "1_0"], "--seeds: '1_0' is not a list of seeds. Write whole numbers without spaces, as in 0,1,2 or 0-2."),
        (["--seeds", "0-"], "--seeds: '0-' is not a list of seeds. Write whole numbers without spaces, as in 0,1,2 or 0-2."),
        (["--stop-after", "30m1h"], "--stop-after: '30m1h' is not a time. Give it with its unit, such as 90s, 9m, 2h or 1h30m."),
        (["--methods", "kdd"], f"--methods: unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}"),
        (["--methods", ""], "--methods: '' has an empty name. Put one comma and no space between two names, as in kd,ft."),
        (["--seeds", ""], "--seeds: '' is not a list of seeds. Write whole numbers without spaces, as in 0,1,2 or 0-2."),
        (["--methods", "kd at"], "--methods: 'kd at' has no comma between its names. Write kd,at."),
        (["--methods", "KD,"], "--methods: 'KD,' has an empty name. Put one comma and no space between two names, as in kd,ft."),
        (["--methods", "KD"], f"--methods: unknown method 'KD'. Did you mean 'kd'? See `kdbench list methods`{OWN}"),
        (
            ["--methods", "own"],
            f"--methods: unknown method 'own'. See `kdbench list methods`{OWN}",
        ),
        (["--plugin", "none.py"], "no plugin at none.py. Give a Python file or a folder of them."),
    ],
)
def test_an_option_that_cannot_be(arguments, message, call, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refusal(call("run", write(), *arguments)) == message
    assert not Path("results").exists()


@pytest.mark.parametrize(("text", "numbers"), [("0-3", [0, 1, 2, 3]), ("5, 0-2", [5, 0, 1, 2]), ("7", [7]), ("4-4", [4])])
def test_seeds_are_a_list_of_numbers_and_ranges(text, numbers):
    assert seed_numbers(text) == numbers


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("1d2h3m4s", 93784), ("2d", 172800), ("0s", 0)]
)
def test_a_time_has_units(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("command", ["run", "plan", "report"])
def test_an_unknown_suite(command, call):
    known = "Give a path to a YAML file, or see `kdbench list suites`."
    assert refusal(call(command, "quik")) == f"unknown suite 'quik'. Did you mean 'quick'? {known}"
    assert refusal(call(command, "none.yaml")) == (
        "no suite file at none.yaml. See `kdbench list suites` for those that ship with kdbench."
    )


@pytest.mark.parametrize("command", ["run", "plan", "report"])
def test_a_mistake_in_a_suite(command, call):
    suite = write("below.yaml", pairs="pairs:\n  - {teacherr: resnet14, student: resnet8}")
    assert refusal(call(command, suite)) == "below.yaml, pairs[0].teacherr: unknown key. Did you mean 'teacher'?"
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["frobnicate"], "frobnicate"),
        (["run"], "SUITE"),
        (["run", "tiny.yaml", "--deviec", "cpu"], "--deviec"),
        (["run", "tiny.yaml", "--lanes", "-1"], "--lanes"),
        (["run", "tiny.yaml", "--lanes", "few"], "--lanes"),
        (["run", "tiny.yaml", "--rerun", "some"], "--rerun"),
        (["list", "method"], "'method' is not known here. Did you mean 'methods'? Choose one of methods, models, datasets,"),
        (["show", "methods", "kd"], "'methods' is not known here. Did you mean 'method'? The name comes after it: `kdbench"),
        (["show", "kd"], "'kd' is not known here. The name comes after it: `kdbench show method kd`. Choose one of method, model,"),
        (["new", "dataset"], "'dataset' is not known here. Choose one of method, suite, examples."),
    ],
)
def test_bad_usage_is_told_with_the_word_at_fault(arguments, told, call):
    write()
    refused = call(*arguments)
    assert refused.status == 2
    assert refused.err.startswith("Usage: kdbench")
    assert told in lines_of(refused.err)[-1] or told in refused.err.split("Error:")[1]
    assert "Traceback" not in refused.err
    assert not Path("results").exists()


def test_no_arguments_are_answered_with_the_help(call):
    assert "Commands:" in "".join(call()[1:])


def test_a_pair_that_a_method_cannot_do(call):
    suite = write(
        methods="methods: [scratch, ft, ft+fsp]",
        pairs="pairs:\n  - {teacher: resnet14, student: resnet8}\n  - {teacher: resnet14, student: resnet8x4}",
    )
    message = refusal(call("run", suite, "--device", "cpu"))
    assert message.startswith("resnet14 -> resnet8x4: fsp")
    assert "needs equal channels" in message
    assert message.endswith("Leave the method out with `without: [ft+fsp]`.")
    message = refusal(call("run", suite, "--device", "cpu", "--methods", "kd,fsp,ft+fsp"))
    assert message.count("needs equal channels") == 1
    assert message.endswith("Leave the methods of each pair out with `without: [fsp, ft+fsp]`.")


def test_python_runs_the_package_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kdbench", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("kdbench", run_name="__main__")
    assert not ended.value.code
    assert "Commands:" in capsys.readouterr().out


def test_a_precision_without_effect(call):
    suite = write(recipe="recipe: {base: digits-quick, epochs: 1, schedule: {milestones: []}, precision: tf32}")
    assert refusal(call("run", suite, "--device", "cpu")) == (
        "precision tf32 has no effect on the CPU. Choose default, fp32 or bf16, or a CUDA device."
    )


@pytest.fixture
def pictures() -> Path:
    """Two classes of one image each, and a suite on them in tiny.yaml."""
    from PIL import Image

    for split in ("train", "test"):
        for label in ("cats", "dogs"):
            folder = Path("pictures") / split / label
            folder.mkdir(parents=True)
            Image.new("L", (8, 8), len(label)).save(folder / "1.png")
    write(dataset="dataset: {name: imagefolder, root: pictures, label: pictures, size: 8, channels: 1}")
    return Path("pictures")


def test_images_that_are_missing(call, pictures):
    shutil.rmtree(pictures)
    assert refusal(call("run", "tiny.yaml", "--device", "cpu")) == (
        f"root: there is no folder {Path.cwd() / 'pictures'}; give one that holds train/<class>/ and test/<class>/."
    )
    assert call("plan", "tiny.yaml").err == call("run", "tiny.yaml", "--device", "cpu").err


def test_an_empty_class_folder(call, pictures):
    (pictures / "train/cats/1.png").unlink()
    message = refusal(call("run", "tiny.yaml", "--device", "cpu"))
    assert message == f"{Path.cwd()}/pictures/train/cats has no image; add some as .png or .jpg, or remove the folder."


def test_a_broken_image(call, pictures):
    (pictures / "test/dogs/1.png").write_bytes(b"no image")
    message = refusal(call("run", "tiny.yaml", "--device", "cpu"))
    assert message.startswith(f"cannot read {Path.cwd()}/pictures/test/dogs/1.png: Pillow cannot read it as an image. Put each")
    assert message.endswith("give the data set another `label`; what is finished is kept.")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_results_directory_that_cannot_be_written(place, call):
    Path("file").write_text("")
    ran, planned = (call(command, write(), "--results", place) for command in ("run", "plan"))
    assert refusal(ran) == (
        f"the results directory {place} cannot be written ({refused_as(place)}). Choose another with --results."
    )
    assert (planned.status, planned.err) == (2, ran.err)
    assert "2 trials: 2 missing" in lines_of(planned.out)


def refused_as(file: str) -> str:
    """What the system says when a folder is made below a file."""
    try:
        (Path(file) / "trials").mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        return f"{problem.filename}: {problem.strerror}"
    raise AssertionError


@pytest.mark.parametrize(
    ("act", "name", "commands"),
    [
        ("pathlib.Path.read_bytes", "record.json", ("plan", "report", "run")),
        ("os.listdir", "trials", ("plan", "report", "run")),
        ("pathlib.Path.stat", "checkpoint.pt", ("plan", "run")),
        ("pathlib.Path.read_text", "curves.jsonl", ("report",)),
        ("pathlib.Path.read_text", "tiny.yaml", ("plan", "report", "run")),
    ],
)
def test_a_file_of_another_user_is_told_as_such(act, name, commands, call, done, monkeypatch):
    owner, _, function = act.rpartition(".")
    original = getattr(pkgutil.resolve_name(owner), function)

    def denied(path: Path, *rest: Any, **options: Any) -> Any:
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, *rest, **options)

    shutil.rmtree(min(Path("results/trials").iterdir()))  # a trial that is missing is looked for a checkpoint of
    monkeypatch.setattr(act, denied)
    for command in commands:
        refused = call(command, done)
        assert refused.status == 2
        assert re.fullmatch(
            rf"error: \S*{name}(:| cannot be read \()? ?Permission denied\)?\. .*(owner for access|a file that can).*\.\n",
            refused.err,
        )


@pytest.mark.parametrize("command", [["run", "tiny.yaml"], ["plan", "tiny.yaml"], ["report", "tiny.yaml"], ["report", "results"]])
def test_records_of_another_protocol(command, call, done):
    file = min(Path("results").glob("trials/*/record.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "protocol": 0}))
    refused = call(*command)
    assert refused.status == 2
    assert refused.err == (
        f"error: {file} is of protocol 0, this kdbench writes protocol {PROTOCOL}, and the two are never mixed. "
        "Choose another directory with --results.\n"
    )


def test_a_broken_record_is_set_aside_and_its_trial_is_missing(call, done, caplog):
    records = {json.loads(file.read_text())["method"]: file for file in Path("results").glob("trials/*/record.json")}
    records["kd"].write_text("{")
    planned = call("plan", done)
    assert planned.status == 0
    assert "2 trials: 1 done, 1 missing" in lines_of(planned.out)
    cannot = f"{records['kd']} cannot be used: it is not a whole record (1 mistake)"
    assert caplog.messages == [f"{cannot}."]
    assert records["kd"].exists(), "a plan only reads"
    assert call("run", done, "--device", "cpu").status == 0
    assert f"{cannot}. It was set aside as record.json.broken." in caplog.messages


def test_a_report_of_nothing(call):
    suite = write()
    nothing = "there is nothing to report: no trial is done (2 missing). "
    assert refusal(call("report", suite, "--results", "resluts")) == (
        f"{nothing}There is no folder resluts: start them with `kdbench run`, or give their folder with --results."
    )
    Path("empty").mkdir()
    assert refusal(call("report", suite, "--results", "empty")) == f"{nothing}Start them with `kdbench run`."
    assert refusal(call("report", "empty")) == (
        "no records under 'empty'. Give the directory that `kdbench run --results` wrote to."
    )


def test_a_report_from_the_folder_of_another_suite_says_so(call, done):
    other = write("other.yaml", seeds="seeds: [7]", methods="methods: [at]")
    refused = call("report", other)
    assert refused.status == 2 and refused.err.endswith(" of other suites: `kdbench report results` shows them.\n")


def test_a_python_that_drops_docstrings_is_refused():
    ran = subprocess.run([sys.executable, "-OO", "-m", "kdbench", "list", "methods"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        ran.stderr == "error: kdbench needs the docstrings that Python drops with -OO. Leave -OO out, and unset PYTHONOPTIMIZE.\n"
    )


def refuses(refused: Result, message: str) -> None:
    assert refused == (2, "", f"error: {message}\n")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_report_that_cannot_be_made_is_refused_before_anything_trains(command, call):
    suite = write(report="report: {names: {kdd: Hinton KD}}")
    assert refusal(call(command, suite)).startswith("names: 'kdd' is not in this report. Did you mean 'KD'?")


def test_a_report_in_an_unknown_format(call, done):
    refuses(
        call("report", done, "--format", "md,doc"), "unknown report format 'doc'. Choose from md, html, tex, csv, bib, png, pdf."
    )


def test_a_report_that_cannot_be_written(call, done):
    Path("file").write_text("")
    refused = call("report", done, "--output", "file/below")
    assert refused.status == 2
    assert refused.err == (
        "error: the report cannot be written to file/below (Not a directory). Choose another folder with `kdbench report --output "
        "DIR`.\n"
    )
    assert "Test error (%, ↓) of the last epoch on digits" in refused.out, "the tables can be told all the same"


def test_a_report_of_a_directory_takes_no_choice_of_trials(call, done):
    refuses(
        call("report", "results", "--seeds", "0"),
        "--seeds and --plugin have no effect on the report of a directory. Give a suite with them.",
    )


def test_an_unknown_method_to_show(call):
    refuses(call("show", "method", "kdd"), f"unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}")


# plan


def test_a_plan_in_words(call, done):
    planned = call("plan", write(methods="methods: [scratch, kd, {ft: {k: 1}}, {ft: {k: 2}}]"), "--seeds", "0,1")
    record = json.loads(min(Path("results").glob("trials/*/record.json")).read_text())
    *lines, left, seeds = planned.out.splitlines(keepends=True)
    assert seeds.startswith("seeds: it is not known what they can show")
    assert (planned.status, "".join(lines), planned.err) == (
        0,
        f"""Tiny: {record["dataset"]}, {record["recipe"]}; precision default
  1,437 training images and 360 test images in 10 classes (139 to 147 a class)
  of the training images, 200 are used
  teacher resnet14 (seed 0): done
  stage ft.paraphraser of resnet14: 4 missing
  resnet8              scratch   1 done, 1 missing
  resnet14 -> resnet8  kd        1 done, 1 missing
  resnet14 -> resnet8  ft (k=1)  2 missing
  resnet14 -> resnet8  ft (k=2)  2 missing
8 trials: 2 done, 6 missing
""",
        "",
    )
    assert re.fullmatch(
        r"left: more than \d+ s.* on .+ for 6 students and 4 teacher stages: 2 as measured, 4 from the same student, 4 of unknown "
        r"length and not counted; from 3 measured in this directory\.\n",
        left,
    )


def test_a_plan_of_what_was_never_measured_says_how_to_measure_it(call):
    assert lines_of(call("plan", write()).out)[-2] == (
        "left: 2 students and 1 teacher, 3 epochs. How long that takes is not known: nothing like it was measured in this "
        "directory. `kdbench run` with --stop-after 2m measures it, and keeps what it trains."
    )


@pytest.mark.parametrize("command", ["plan", "run"])
def test_other_images_under_the_label_of_results_are_counted_though_nothing_trains(call, done, monkeypatch, command):
    digits = DATASETS.get("digits")
    found = digits(digits.Params(), cache=Path()).contents()
    other = replace(found, classes=(*range(9), "X"), test=(37, *found.test[1:]))  # some data sets number their classes
    monkeypatch.setattr(digits, "contents", lambda _: other)
    refused = call(command, done)
    assert refused.status == 2
    assert "from other images" in refused.err and "(only then or only now class 9, X; test images 360, now 361)" in refused.err


def test_a_plan_of_what_is_done_has_nothing_left(call, done):
    assert lines_of(call("plan", done).out)[-1] == "2 trials: 2 done"
    assert json.loads(call("plan", done, "--json").out)["remaining"] == []


def test_methods_keep_the_order_in_which_they_are_asked_for(call, done):
    for command in ("plan", "report"):
        assert call(command, done, "--methods", "kd,scratch").status == 0
    report = next(Path("results/reports").rglob("report.md")).read_text()
    assert re.search(r"Teacher error .* KD .* scratch", report)


def test_a_plan_tells_how_numbers_are_rounded(call):
    stacked = "recipe: {base: digits-quick, epochs: 1, schedule: {milestones: []}, precision: bf16, stack: true}"
    assert lines_of(call("plan", write(recipe=stacked)).out)[0].endswith("; precision bf16, stacked")


@pytest.mark.parametrize("option", ["--methods", "--seeds"])
def test_a_list_with_a_space_after_its_comma_is_told_as_such(call, option):
    first, then = {"--methods": ("kd,", "at"), "--seeds": ("0,", "1")}[option]
    for command in ("run", "plan", "report"):
        assert re.match(
            rf"error: {option}: '{first}' .* (no space|without spaces).*\n$", call(command, write(), option, first, then).err
        )


@pytest.mark.parametrize(("word", "told"), [("tune", "write `tune` in the suite"), ("resume", "The same `kdbench run`")])
def test_what_is_no_command_of_its_own_is_told_where_it_is(call, word, told):
    assert told in refusal(call(word, "quick"))


def test_imports_that_take_long_are_told(monkeypatch, capsys):
    names = loading.__wrapped__.__globals__
    monkeypatch.setattr("kdbench.runner.slow.SLOW_S", 0.05)
    for modules, told in (({}, "loading PyTorch; then it begins.\n"), ({"torch": None}, "")):
        monkeypatch.setitem(names, "sys", SimpleNamespace(modules=modules, stderr=sys.stderr))
        with loading("it begins."):
            time.sleep(0.2)
        with loading("it has begun."):
            pass
        time.sleep(0.1)
        assert capsys.readouterr().err == told


def test_examples_in_the_help_of_report_can_be_typed(call):
    text = "".join(call("report", "--help").out.split())
    assert "suchas`kd=HintonKD`" in text and "suchas`logit-based=kd,dkd`" in text


FOLDER = {"dataset": "dataset: {name: imagefolder, label: mine, root: nowhere, size: 8}"}
USELESS = {"recipe": "recipe: {base: digits-quick, epochs: 1, schedule: {milestones: []}, precision: tf32}"}
TOO_MANY = {"dataset": "dataset: {name: digits, label: few, train_images: 9999}"}
TUNED = "tune: {{budget: 2, validation: {}, grid: {{kd: [{{temperature: 2}}]}}}}"
NONE_HELD_OUT = {"tune": TUNED.format(0.001)}
ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA has tf32")


@pytest.mark.parametrize(
    "lines",
    [FOLDER, TOO_MANY, NONE_HELD_OUT, pytest.param(USELESS, marks=ON_CPU), pytest.param({**FOLDER, **USELESS}, marks=ON_CPU)],
)
def test_a_plan_of_what_a_run_refuses_prints_all_it_can_and_ends_as_the_run_does(call, lines):
    suite = write(**lines)
    ran, planned, as_json = call("run", suite), call("plan", suite), call("plan", suite, "--json")
    assert (ran.status, ran.out) == (planned.status, "") == (as_json.status, "") == (2, "")
    assert planned.err == as_json.err == ran.err
    assert f"2 trials: {'1 missing, 1 untuned' if 'tune' in lines else '2 missing'}" in lines_of(planned.out)
    notes = json.loads(as_json.out)["notes"]
    assert len(notes) == len(lines)
    for note in notes:
        assert note.startswith("`kdbench run` refuses this here: ")
        told = note.removeprefix("`kdbench run` refuses this here: ")
        assert told in ran.err and told not in planned.out, "it is told once"


def test_a_plan_refuses_no_held_out_images_that_no_trial_needs(call):
    planned = call("plan", write(**NONE_HELD_OUT), "--methods", "scratch", "--json")
    assert planned.status == 0 and json.loads(planned.out)["notes"] == []


def test_a_plan_tells_of_batches_that_take_all_images(call):
    note = "a batch of 201 takes all 200 training images, so that each epoch is a single step; lower `batch_size` in the recipe"
    for size, notes in ((200, []), (201, [note])):
        recipe = f"recipe: {{base: digits-quick, epochs: 1, schedule: {{milestones: []}}, batch_size: {size}}}"
        assert json.loads(call("plan", write(recipe=recipe), "--json").out)["notes"] == notes
    assert f"  note: {note}." in lines_of(call("plan", write(recipe=recipe)).out)
    tuned = write(recipe=recipe.replace("201", "190"), tune=TUNED.format(0.1))
    assert json.loads(call("plan", tuned, "--json").out)["notes"] == [note.replace("201", "190").replace("200", "180")]


def test_a_plan_for_other_devices_is_judged_by_them_and_they_need_not_be_there(call):
    suite = write(**USELESS)
    assert call("plan", suite, "--device", "cuda:0,cuda:1").status == 0
    assert "precision tf32 has no effect on the CPU" in call("plan", suite, "--device", "cpu:2").err


def test_spaces_around_the_plus_of_a_sum_are_no_matter():
    assert method_names("at + kd, ft") == ["at+kd", "ft"]


def test_one_is_no_plural(call):
    assert lines_of(call("plan", write(methods="methods: [scratch]")).out)[-2:] == [
        "1 trial: 1 missing",
        "left: 1 student, 1 epoch. How long that takes is not known: nothing like it was measured in this directory. "
        "`kdbench run` with --stop-after 2m measures it, and keeps what it trains.",
    ]


def test_a_plan_as_json(call, done):
    planned = json.loads(call("plan", done, "--json").out)
    assert set(planned) == {
        "suite",
        "data",
        "teachers",
        "stages",
        "students",
        "without_weights",
        "remaining",
        "power",
        "notes",
        "tuning",
    }
    assert planned["suite"] == "tiny"
    for trial in (*planned["teachers"], *planned["students"]):
        assert set(trial) == {"trial", "status", "teacher", "student", "method", "params", "seed", "epochs", "precision"}
        assert (Path("results/trials") / trial["trial"]).is_dir()
    assert [trial["params"] for trial in planned["students"]] == [{"scratch": {}}, {"kd": {"temperature": 4.0, "alpha": 0.9}}]
    assert [trial["teacher"] for trial in planned["students"]] == [None, "resnet14"]


def test_a_plan_builds_no_model_opens_no_data_and_writes_nothing(call, monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("kdbench.models.build_model", never)
    monkeypatch.setattr(torch.nn.Module, "__init__", never)
    for source in DATASETS.names():
        monkeypatch.setattr(DATASETS.get(source), "load", never)
        monkeypatch.setattr(DATASETS.get(source), "check", never)
    suite = write()
    for command in (["plan", suite], ["plan", suite, "--json"], *(["plan", name] for name in suite_names())):
        lacking = isinstance(contents_of(load_suite(command[1]).source, cache=Path()), KdbenchError)
        planned = call(*command)
        assert (planned.status, planned.out != "") == (2 if lacking else 0, True)
    assert os.listdir() == [suite]


def test_a_plan_of_ten_thousand_trials_looks_each_up_once(call, monkeypatch):
    looks = {"read_bytes": 0, "exists": 0}
    for name in looks:
        original = getattr(Path, name)

        def counted(path: Path, *, name: str = name, original: Callable[[Path], Any] = original) -> Any:
            looks[name] += 1
            return original(path)

        monkeypatch.setattr(Path, name, counted)
    seeds = ",".join(map(str, range(5000)))
    planned = call("plan", write(), "--seeds", seeds)
    assert lines_of(planned.out)[-3] == "10000 trials: 10000 missing"
    assert looks["read_bytes"] <= 10_100
    assert looks["exists"] <= 10_100


LISTED = """
import numpy as np
import torch
from pathlib import Path
from kdbench import Dataset, KdbenchError, Source, Split, register_dataset
from kdbench.data import Contents

PASSED_OVER, NOTES = {"train/: unknown type (.heic)": 3}, ("7 of 16 test images are training images",)


@register_dataset("listed_for_test")
class Listed(Source):
    def check(self):
        pass

    def contents(self):
        if Path("missing").exists():
            raise KdbenchError("there is no folder. Give one.")
        return Contents(("even", "odd"), (1, 8, 8), (10, 14), (8, 8), PASSED_OVER, NOTES)

    def load(self):
        def split(even, odd):
            labels = torch.tensor([0] * even + [1] * odd)
            images = torch.randint(256, (len(labels), 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(even))
            return Split(images, labels)

        mean, std = np.float32([0.5]), np.float32([0.3])
        return Dataset(split(10, 14), split(8, 8), ("even", "odd"), mean, std, passed_over=PASSED_OVER, notes=NOTES)
"""


def test_what_the_images_are_is_told_before_a_run_by_a_run_and_in_its_report(call):
    Path("plugin.py").write_text(LISTED)
    suite = write(dataset="dataset: {name: listed_for_test, label: mine, validation: 0.25}", methods="methods: [scratch]")
    arguments = (suite, "--plugin", "plugin.py")
    passed_over = "skipped: 3 files, train/: unknown type (.heic)"
    planned = lines_of(call("plan", *arguments).out)
    assert planned[1:3] == [
        f"  24 training images and 16 test images in 2 classes (10 to 14 a class); {passed_over}",
        "  note: 7 of 16 test images are training images.",
    ]
    assert json.loads(call("plan", *arguments, "--json").out)["data"] == {
        "classes": ["even", "odd"],
        "image_shape": [1, 8, 8],
        "train_images": {"images": 24, "fewest_of_a_class": 10, "most_of_a_class": 14, "by_class": [10, 14]},
        "test_images": {"images": 16, "fewest_of_a_class": 8, "most_of_a_class": 8, "by_class": [8, 8]},
        "passed_over_files": {"train/: unknown type (.heic)": 3},
        "notes": ["7 of 16 test images are training images"],
    }
    label = "mine (25 % held out)"
    summary = f"{label}: 18 training images, 6 validation images and 16 test images in 2 classes (8 to 10 a class); {passed_over}"
    ran = call("run", *arguments, "--device", "cpu")
    assert lines_of(ran.out)[:2] == [summary, "note: 7 of 16 test images are training images."]
    report = Path("results/reports/tiny/report.md").read_text()
    for told in (" ".join(ran.out.split()), report):
        assert f"{summary}." in told
        assert f"{label}: 7 of 16 test images are training images." in told
    Path("missing").touch()
    planned = call("plan", *arguments)
    assert (planned.status, planned.err) == (0, "")
    assert json.loads(call("plan", *arguments, "--json").out)["data"] is None


def test_finished_students_whose_weights_are_asked_for_are_told_and_trained_again(call, done):
    suite = write("later.yaml", keep="keep_students: true")
    told = (
        "2 finished students without the weights that `keep_students: true` asks for: these were not kept, or are damaged or of an "
        "earlier kdbench. `kdbench run` with --rerun weights trains the students again."
    )
    assert lines_of(call("plan", suite).out)[-1] == told
    students = json.loads(call("plan", suite, "--json").out)
    assert students["without_weights"] == [trial["trial"] for trial in students["students"]]
    ran = call("run", suite, "--device", "cpu")
    assert (ran.status, lines_of(ran.out)[-1]) == (0, told)
    ran = call("run", suite, "--device", "cpu", "--rerun", "weights")
    assert (ran.status, "done kd, resnet14 -> resnet8" in ran.out, told in ran.out) == (0, True, False)
    assert len(list(Path("results").glob("trials/*/weights.safetensors"))) == 3, "of the teacher, too"
    assert lines_of(call("plan", suite).out)[-1] == "2 trials: 2 done"


# list, show


@pytest.mark.parametrize(
    ("what", "keys", "some"),
    [
        ("methods", {"name", "about", "transfers", "family", "published"}, "ft"),
        ("models", {"name", "about", "params", "macs"}, "resnet8"),
        ("datasets", {"name", "about"}, "digits"),
        ("suites", {"name", "about", "trials", "teachers"}, "quick"),
        ("recipes", {"name", "about"}, "short"),
        ("examples", {"name", "about"}, "own_images.yaml"),
    ],
)
def test_a_list(what, keys, some, call, monkeypatch):
    entries = json.loads(call("list", what, "--json").out)
    assert all(set(entry) == keys for entry in entries)
    assert all(entry["about"] for entry in entries)
    names = [entry["name"] for entry in entries]
    assert names == sorted(names)
    assert some in names
    monkeypatch.setattr("kdbench.catalogue.listing.listing", lambda _: entries)  # measuring all models takes seconds
    listed = call("list", what)
    assert listed.err == ""
    assert [line.split()[0] for line in lines_of(listed.out)] == names


@pytest.mark.parametrize("name", METHODS.names())
def test_a_method_is_shown_in_full(name, call):
    shown = json.loads(call("show", "method", name, "--json").out)
    keys = "name formula text transfers family published paper code deviations reads needs file params"
    assert set(shown) == set(keys.split())
    assert shown["name"] == name
    assert shown["formula"] and Path(shown["file"]).is_file()
    assert shown["params"] == to_jsonable_python(dict(METHODS.get(name).Params()))
    text = call("show", "method", name).out
    assert shown["formula"] in text
    assert f"transfers:  {shown['transfers']} ({shown['family']})\n" in text
    for key, value in shown["params"].items():
        assert f"  {key} = {value}" in text


def test_a_method_without_a_docstring_is_shown(call):
    Path("plugin.py").write_text(PLUGIN.replace('    """CE(z_s, y)"""\n', ""))
    shown = call("show", "method", "plugin_for_test", "--plugin", "plugin.py", "--json")
    assert json.loads(shown.out)["formula"] == ""


def test_what_has_no_effect_is_refused(call):
    refuses(call("list", "methods", "quick"), "a suite and --results have no effect on the list of methods. Leave them out.")
    refuses(call("show", "suite", "quick", "--results", "r"), "--results has no effect on a suite. Leave it out.")
    refuses(call("list", "trials"), "name the suite whose trials to list, such as `kdbench list trials mine.yaml`.")
    refuses(
        call("show", "dataset", "digits", "--classes", "3"),
        "--input, --classes, --hook and --modules have no effect on a dataset. Leave them out.",
    )


def test_trials_are_listed_and_shown(call, done):
    listed = json.loads(call("list", "trials", done, "--json").out)
    assert [trial["method"] for trial in listed] == ["scratch", "scratch", "kd"]
    lines = lines_of(call("list", "trials", done).out)
    assert re.fullmatch(rf"{listed[2]['trial'][:8]}  done    resnet14 -> resnet8  kd       0     \d+\.\d\d %", lines[3].strip())
    assert lines[-1] == "Their folders lie in results/trials. `kdbench show trial TRIAL` prints one."
    assert f"test_error_pct: {listed[2]['test_error_pct']}\n" in call("show", "trial", listed[2]["trial"][:8]).out
    assert json.loads(call("show", "trial", listed[2]["trial"], "--json").out)["record"]["method"] == "kd"
    for name, told in (
        ("zz", "no trial under results/trials begins with 'zz'"),
        ("", "3 trials under results/trials begin with ''"),
    ):
        refuses(call("show", "trial", name), f"{told}. See `kdbench trials list`.")


def test_a_suite_of_plugins_needs_no_option(call):
    write_plugin()
    suite = write(plugins="plugins: [plugin.py]", methods="methods: [scratch, plugin_for_test]")
    for command in ("plan", "run"):
        assert call(command, suite).status == 0
    for command in (["report", suite], ["show", "suite", suite], ["list", "trials", suite]):
        told = call(*command)
        assert (told.status, "plugin_for_test" in told.out) == (0, True)


# report


def test_a_report_prints_the_tables_and_the_paths_of_all_its_files(call, done):
    reported = call("report", done, "--format", "md,tex,csv,png,pdf")
    assert reported.status == 0
    assert reported.err == ""
    for heading in (
        "Test error (%, ↓) of the last epoch on digits",
        "Gain over scratch on digits",
        "Cost of training and inference",
    ):
        assert heading in reported.out
    told = re.search(
        r"^results/reports/tiny: ([^(]+) \((\d+) files\)\n(?=results/reports/tiny/report\.md\n\Z)", reported.out, re.MULTILINE
    )
    assert told and int(told[2]) == len(told[1].split()) > 9 and told[0].count("\n") < 6
    files = [Path("results/reports/tiny", name) for name in (*told[1].split(), "report.md")]
    assert {file.suffix for file in files} == {".md", ".tex", ".csv", ".png", ".pdf"}
    assert all(file.stat().st_size for file in files)
    assert {*files, Path("results/reports/tiny", LIST)} == set(Path("results/reports/tiny").iterdir())


def test_the_page_of_a_folder_links_to_the_pages_of_its_suites(call, done):
    assert call("report", done, "--format", "html,tex").status == 0
    assert r"\label{tab:tiny-test-error}" in Path("results/reports/tiny/tables.tex").read_text()
    assert call("report", "results", "--format", "html").status == 0
    assert '<a href="../tiny/report.html">tiny</a>' in Path("results/reports/all/report.html").read_text()
    assert call("report", "results", "--format", "html", "--output", "page").status == 0
    assert '<a href="../results/reports/tiny/report.html">tiny</a>' in Path("page/report.html").read_text()
    assert '">tiny</a>' not in Path("results/reports/tiny/report.html").read_text()


def test_a_table_for_a_file_is_turned_where_the_lines_of_the_file_are_too_short_for_it(call, done, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("kdbench.report.command.FILE_WIDTH", 60)
    told = call("report", done, "--format", "csv").out
    assert re.search(r"^  Student +resnet8 +$", told, re.MULTILINE), "turned: the student has a line of its own"


def test_a_report_elsewhere_in_one_format(call, done):
    reported = call("report", done, "--format", "tex", "--output", "paper")
    assert lines_of(reported.out)[-1] == "paper: test_error.tex gain.tex cost.tex tables.tex (4 files)"
    assert sorted(os.listdir("paper")) == [LIST, "cost.tex", "gain.tex", "tables.tex", "test_error.tex"]
    assert not Path("results/reports").exists()


def test_a_report_of_a_directory_has_every_pair_in_it(call, done):
    reported = call("report", "results", "--format", "csv")
    assert reported.status == 0
    assert lines_of(reported.out)[0] == "All trials under results"
    assert re.search(r"Teacher error +scratch +KD", reported.out), "whatever the names of their folders"
    assert re.search(r"^results/reports/all: [^(]*\bresults\.csv\b", reported.out, re.MULTILINE)


def test_a_report_names_the_trials_that_are_not_done(call, done):
    reported = call("report", done, "--seeds", "0,1")
    assert reported.status == 0
    assert "Missing: KD" in reported.out


# new, check


PUBLISHED = "dataset,teacher,student,method,value,quantity,selection,source\n"


def test_a_report_stands_beside_published_numbers_of_ones_own(call, done):
    data = json.loads(min(Path("results").glob("trials/*/record.json")).read_text())["dataset"]
    Path("mine.csv").write_text(f'{PUBLISHED}"{data}",resnet14,resnet8,kd,90,top-1 accuracy %,last epoch,My paper (table 1)\n')
    for what in (done, "results"):
        reported = call("report", what, "--published-csv", "mine.csv", "--format", "md,csv")
        assert reported.status == 0
        assert "My paper" in reported.out
        assert "reports/" in reported.out
        assert " published.csv " in reported.out
    assert "| My paper |" in Path("results/reports/tiny/report.md").read_text()


def test_published_numbers_of_other_pairs_are_refused(call, done):
    refused = call("report", done, "--published")
    assert refused.status == 2
    assert re.fullmatch(
        r"error: .+/suites/published\.csv has no number for any method of this report \(resnet14 → resnet8 on digits .+\)\. "
        r"Leave it out, or give a file of your own with --published-csv\.\n",
        refused.err,
    )
    assert not Path("results/reports").exists()


def test_a_mistake_in_published_numbers(call, done):
    Path("mine.csv").write_text(f"{PUBLISHED}digits,resnet14,resnet8,kdd,90,top-1 accuracy %,last epoch,Mine\n")
    refuses(
        call("report", done, "--published-csv", "mine.csv"),
        f"mine.csv, line 2: unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}",
    )


def test_a_new_method_is_written_and_may_be_used(call):
    assert call("new", "method", "plugin_of_mine") == (
        0,
        "wrote plugin_of_mine.py\nwrote test_plugin_of_mine.py\nnext: kdbench check plugin_of_mine.py\n",
        "",
    )
    assert call("show", "method", "plugin_of_mine", "--plugin", "plugin_of_mine.py").status == 0
    refuses(call("new", "method", "kd"), f"the method 'kd' exists already, in {METHODS.entry('kd').file}. Choose another name.")
    assert sorted(file.name for file in Path().glob("*.py")) == ["plugin_of_mine.py", "test_plugin_of_mine.py"]


def test_a_new_suite_is_planned_by_the_command_that_is_told(call):
    written = call("new", "suite", "mine")
    assert written == (0, "wrote mine.yaml\nnext: kdbench plan mine.yaml\n", "")
    planned = call(*lines_of(written.out)[-1].split()[2:])
    assert (planned.status, lines_of(planned.out)[-3]) == (0, "15 trials: 15 missing")
    refuses(call("new", "suite"), "give the suite a name, such as `kdbench new suite my_suite`.")


def test_the_examples_are_written_into_a_folder(call):
    written = call("new", "examples")
    assert written.status == 0
    planned = call(*lines_of(written.out)[-1].split()[2:])
    assert planned.status == 0
    assert "18 trials: 18 missing" in lines_of(planned.out)
    refuses(call("new", "examples", "mine"), "the examples need no name: they go into the folder examples. Leave it out.")


def test_a_folder_where_nothing_can_be_written(call, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdbench.conformance.scaffold.new_method", full)
    refuses(
        call("new", "method", "plugin_of_mine"),
        "nothing can be written here (No space left on device). Change to a folder of your own.",
    )


@pytest.fixture
def few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three, since all of them take seconds and have tests of their own."""
    monkeypatch.setattr("kdbench.conformance.CHECKS", conformance.CHECKS[:3])


@pytest.mark.usefixtures("few_checks")
def test_a_check_prints_what_holds(call):
    checked = call("check", "kd")
    assert checked.status == 0
    assert [line.split()[0] for line in lines_of(checked.out)] == ["pass", "pass", "pass", "3"]
    as_json = json.loads(call("check", "kd", "--json").out)
    assert [set(found) for found in as_json] == [{"name", "promise", "status", "reason"}] * 3


@pytest.mark.usefixtures("few_checks")
def test_a_failed_check_is_status_1(call):
    checked = call("check", write_plugin())
    assert checked.status == 1
    assert lines_of(checked.out)[0].startswith("fail     docstring")


@pytest.mark.usefixtures("few_checks")
def test_every_method_of_a_file_is_checked(call):
    plugin = write_plugin()
    Path(plugin).write_text(PLUGIN + PLUGIN[PLUGIN.index("@register") :].replace("plugin_for_test", "another_for_test"))
    checked = call("check", plugin)
    assert checked.status == 1
    assert [line for line in lines_of(checked.out) if line.endswith(":")] == ["another_for_test:", "plugin_for_test:"]
    by_method = json.loads(call("check", plugin, "--json").out)
    assert {method: len(checks) for method, checks in by_method.items()} == {"another_for_test": 3, "plugin_for_test": 3}


def test_a_file_without_a_method_cannot_be_checked(call):
    Path("only.py").write_text("from kdbench import register_model\n@register_model('a_model_for_test')\ndef model(): ...\n")
    refuses(call("check", "only.py"), 'only.py registers no method. Write @kdbench.register("my_method") over its class.')


def test_an_unknown_method_to_check(call):
    refuses(call("check", "kdd"), f"unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}")
    refuses(call("check", "none.py"), "no plugin at none.py. Give a Python file or a folder of them.")


# progress


PROGRESS = """
from kdbench.runner.progress import EpochReport, LaneReport, Part, for_stream

progress = for_stream()
progress.begin(Part({"a trial": 4}, expected_s=83.4))
for epoch in (1, 2):
    progress.epoch(EpochReport(epoch, True, (LaneReport("kd", "a trial", epoch, 1.0, {}),)))
progress.say("FAILED kd: a [/mistake] with [brackets]")
progress.end()
"""


def test_a_terminal_shows_bars_with_the_time_left(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal, end = pty.openpty()
    with os.fdopen(end, "w") as stdout, redirect_stdout(stdout):
        exec(PROGRESS, {})
    pieces = []
    with suppress(OSError):  # which the end of a terminal's output is
        while piece := os.read(terminal, 2**20):
            pieces.append(piece)
    os.close(terminal)
    shown = b"".join(pieces).decode()
    assert "\x1b[" in shown
    assert "━" in shown
    assert re.search("0/4.* epochs, 1:2[23] left", shown), "before the first epoch has ended"
    assert "2/4" in shown
    assert "epochs, 0:00 left" in shown
    assert "epoch 2: kd" in shown
    assert "FAILED kd: a [/mistake] with [brackets]" in shown


def test_a_pipe_shows_plain_lines(capsys):
    exec(PROGRESS, {})
    assert lines_of(capsys.readouterr().out) == ["[1/4 epochs, 1:23 left] epoch 1: kd", "FAILED kd: a [/mistake] with [brackets]"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands at `now` seconds."""
    clock = SimpleNamespace(now=100.0)
    for module in (pace, progress):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def epoch(number: int, *left: int) -> progress.EpochReport:
    """The report of an epoch, after which trials of five epochs each have so many left."""
    return progress.EpochReport(number, True, tuple(lane(f"trial {i}", 5 - of_lane) for i, of_lane in enumerate(left)))


def lane(trial: str | None, epochs: int, *, stage: str | None = None, stage_epochs: int = 0) -> progress.LaneReport:
    return progress.LaneReport("kd", trial, epochs, 1.0, {}, stage=stage, stage_epochs=stage_epochs)


TWO = {"trial 0": 5, "trial 1": 5}


def test_the_time_left_is_that_at_the_pace_so_far_without_the_start(clock):
    shown = progress.Silent()
    shown.begin(progress.Part(TWO))
    assert shown.pace.left_s is None
    clock.now += 60
    shown.epoch(epoch(1, 4, 4))
    assert (shown.pace.done, shown.pace.left_s) == (2, None)
    clock.now += 6
    shown.epoch(epoch(2, 3, 3))
    assert (shown.pace.done, shown.pace.left_s) == (4, 18.0)


def test_before_there_is_a_pace_the_time_left_is_what_was_expected(clock):
    shown = progress.Silent()
    shown.begin(progress.Part(TWO, expected_s=90.0))
    clock.now += 60
    shown.epoch(epoch(1, 4, 4))
    assert shown.pace.left_s == 30.0
    clock.now += 60
    assert shown.pace.left_s is None, "it takes longer"
    shown.epoch(epoch(2, 3, 3))
    assert shown.pace.left_s == 180.0, "at the pace"


def test_the_first_epoch_of_each_worker_is_not_timed(clock):
    shown = progress.Silent()
    shown.begin(progress.Part(TWO))
    workers = [Place(f"cuda:{i}", "node", f"cuda:{i}") for i in range(2)]

    def all_tell(number: int) -> None:
        for i, place in enumerate(workers):
            shown.epoch(progress.EpochReport(number, True, (lane(f"trial {i}", number),)), place)

    clock.now += 60
    all_tell(1)
    assert (shown.pace.done, shown.pace.left_s) == (2, None)
    clock.now += 6
    all_tell(2)
    assert (shown.pace.done, shown.pace.left_s) == (4, 18.0)


def test_epochs_before_the_main_training_count_as_others_do(clock):
    shown = progress.Silent()
    shown.begin(progress.Part({"trial 0": 7, "a stage": 3}, stages={"trial 0": {"a stage"}}))
    for number, trained in enumerate((lane(None, 0, stage="a stage", stage_epochs=1), lane("trial 0", 0, stage_epochs=2)), start=1):
        shown.epoch(progress.EpochReport(number, False, (trained,)))
        clock.now += 5
    assert (shown.pace.done, shown.pace.total, shown.pace.left_s) == (3, 10, 35.0)
    shown.epoch(progress.EpochReport(1, True, (lane("trial 0", 1, stage_epochs=2),)))
    assert shown.pace.done == 4


def test_when_a_trial_has_ended_nothing_is_left_of_the_stages_that_it_needs(clock):
    """Another run may have trained them, or one of them could not be built."""
    shown = progress.Silent()
    shown.begin(progress.Part({"trial 0": 5, "trial 1": 5, "a stage": 3}, {"a stage": 1}, {"trial 0": {"a stage"}}))
    shown.pace.end("trial 0")
    assert (shown.pace.done, shown.pace.resumed, shown.pace.total) == (8, 8, 13)


def test_a_stage_of_more_epochs_than_planned_is_never_ahead_of_the_total(clock):
    shown = progress.Silent()
    shown.begin(progress.Part({"trial 0": 5}))
    for number in (1, 2):
        shown.epoch(progress.EpochReport(number, False, (lane(None, 0, stage="a stage", stage_epochs=number),)))
    assert (shown.pace.done, shown.pace.total) == (2, 7)
    shown.epoch(progress.EpochReport(1, False, (replace(lane("trial 0", 0, stage_epochs=1), whole=9),)))
    assert (shown.pace.done, shown.pace.total) == (3, 11)


def test_what_was_done_in_an_earlier_run_does_not_make_this_one_look_fast(clock):
    shown = progress.Silent()
    shown.begin(progress.Part(TWO, behind={"trial 0": 3}))
    assert (shown.pace.done, shown.pace.left_s) == (3, None)
    for _ in range(2):  # once more where a group that did not fit begins again
        shown.resumed(epoch(3, 2).lanes[0])
    shown.epoch(epoch(4, 1))
    clock.now += 5
    shown.epoch(epoch(5, 0))
    assert (shown.pace.done, shown.pace.left_s) == (5, 25.0)


def test_lines_come_at_intervals(clock, capsys):
    shown = progress.Lines(every_s=10)
    shown.begin(progress.Part({"trial 0": 100}))
    for number in range(1, 26):
        shown.epoch(epoch(number, 4))
        clock.now += 1
    assert [line.split("]")[1] for line in lines_of(capsys.readouterr().out)] == [" epoch 1: kd", " epoch 11: kd", " epoch 21: kd"]


def test_lines_name_the_pair_where_there_are_several(capsys):
    pairs = {"a": "x", "b": "t -> x", "c": "t -> x", "d": "t -> y"}
    lanes = [progress.LaneReport(name, name, 1, 1.0, {}, pair) for name, pair in pairs.items()]
    for several in (True, False):
        shown = progress.Lines(every_s=0)
        shown.begin(progress.Part(several_pairs=several))
        shown.epoch(progress.EpochReport(1, True, tuple(lanes)))
        shown.epoch(progress.EpochReport(2, True, (replace(lanes[0], pair=""),)))
    assert [line.split("] ")[1] for line in lines_of(capsys.readouterr().out)] == [
        *("epoch 1: x: a; t -> x: b, c; t -> y: d", "epoch 2: a"),
        *("epoch 1: a, b, c, d", "epoch 2: a"),
    ]


def test_a_run_of_several_pairs_names_them(call, monkeypatch):
    monkeypatch.setattr("kdbench.runner.progress.for_stream", lambda: progress.Lines(every_s=0))
    pairs = "pairs:\n  - {teacher: resnet14, student: resnet8}\n  - {teacher: resnet14, student: resnet8x4}"
    few = "dataset: {name: digits, train_images: 40}"
    ran = call("run", write(dataset=few, pairs=pairs, methods="methods: [kd]"), "--device", "cpu")
    assert [line.split("] ")[1] for line in lines_of(ran.out) if line.startswith("[")] == [
        "epoch 1: teacher resnet14",
        "epoch 1: resnet14 -> resnet8: kd; resnet14 -> resnet8x4: kd",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3723, "1:02:03"), (None, "0:00")])
def test_a_time_reads_as_on_a_clock(seconds, text):
    assert progress.clock(seconds) == text


def test_the_report_of_a_selection_leaves_that_of_the_suite_as_it_is(call, done):
    call("report", done)
    whole = Path("results/reports/tiny/report.md").read_text()
    for command in (["run", done, "--device", "cpu"], ["report", done]):
        assert "Tiny (methods kd; seeds 0)" in call(*command, "--methods", "kd", "--seeds", "0").out
    assert Path("results/reports/tiny/report.md").read_text() == whole
    selected = Path("results/reports/tiny-methods-kd-seeds-0/report.md")
    assert selected.read_text().startswith("# Tiny (methods kd; seeds 0)\n")
    call("report", done, "--methods", "scratch,kd")
    assert Path("results/reports/tiny-methods-scratch_kd/report.md").exists()
    assert selected.exists()


STYLED = "title: Tiny\nreport: {metric: accuracy, names: {kd: Hinton KD, resnet8: Little}, groups: {Taught: [kd]}}"


def test_the_reports_of_a_run_and_of_a_suite_are_as_the_suite_says(call, done):
    styled = write("styled.yaml", title=STYLED)
    for command in (["run", styled, "--device", "cpu"], ["report", styled]):
        for more in ((), ("--methods", "scratch")):
            reported = call(*command, *more)
            assert (reported.status, "Test accuracy (%, ↑)" in reported.out, "Hinton KD" in reported.out) == (0, True, not more)


def test_an_option_stands_for_the_key_of_the_suite_in_a_folder_of_its_own(call, done):
    styled = write("styled.yaml", title=STYLED)
    call("report", styled)
    whole = Path("results/reports/styled/report.md").read_text()
    reported = call("report", styled, "--metric", "error", "--name", "kd=K D", "--second-best", "--format", "md,tex")
    assert "Test error (%, ↓)" in reported.out and "K D" in reported.out and "Hinton" not in reported.out
    assert "Little" in reported.out, "a name that the option does not give"
    assert lines_of(reported.out)[-1].startswith("results/reports/styled-metric-error-names-kd=K-D-second-best-True/")
    assert Path("results/reports/styled/report.md").read_text() == whole
    text = next(Path("results/reports").glob("styled-metric*/tables.tex")).read_text()
    assert r"\label{tab:styled-metric-error-names-kd-K-D-second-best-True-test-error}" in text
    same = call("report", styled, "--metric", "accuracy").out
    assert lines_of(same)[-1] == "results/reports/styled/report.md", "the suite has it so"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--metric", "acuracy"],
            "options of the report, metric: unknown metric 'acuracy'. Did you mean 'accuracy'? Choose one of ",
        ),
        (["--name", "kd"], "--name: 'kd' is not NAME=TEXT. Put = between the two, outside of brackets."),
        (["--name", "KD (k=2)"], "--name: 'KD (k=2)' is not NAME=TEXT. Put = between the two, outside of brackets."),
        (["--group", "a="], "--group: 'a=' is not HEADING=NAMES. Put = between the two, outside of brackets."),
        (["--name", "KD (k=2)=KD=a"], "names: 'KD (k=2)' is not in this report. Choose from "),
        (["--decimals", "9"], "options of the report, decimals: must be less than or equal to 6 (got 9)."),
        (["--latex", "tabular", "--label", "x"], "options of the report: a tabular alone has no label."),
        (["--baseline", "ft"], "baseline: 'ft' is not in this report. Choose from scratch, KD."),
    ],
)
def test_a_wrong_option_of_a_report_is_told(call, done, options, told):
    refused = call("report", done, *options)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith(f"error: {told}")
    assert not Path("results/reports").exists()


def test_settings_are_named_and_grouped_by_options(call):
    """Such as `KD (beta=1, k=2)`, whose name has the signs that options have between names."""
    for k in (2, 3):
        methods = [{"name": "kd", "params": {"beta": k - 1, "k": k}}]
        put(Path("stored"), trial_spec(teacher=TEACHER) | {"methods": methods})
    names = ["--name", "KD (beta=1, k=2)=Ours (T=4)", "--name", "KD (beta=2, k=3)=a=b"]
    groups = ["--group", "T=4=KD (beta=1, k=2)"], ["--group", "T (=4)=KD (beta=1, k=2), KD (beta=2, k=3)"]
    call("report", "stored", *names, *groups[1], "--rows", "methods", "--format", "md", "--output", "there")
    assert re.findall(r"^\| \**([^|*]*=.*?)\** \|", Path("there/report.md").read_text(), re.M)[:3] == [
        "T (=4)",
        "Ours (T=4)",
        "a=b",
    ]
    assert call("report", "stored", *groups[0]).err.startswith("error: groups: '4=KD (beta=1, k=2)' is not in this report.")


def test_two_suites_stand_in_one_report(call, done):
    write("b.yaml", methods="methods: [kd, scratch]", title="title: B\nreport: {decimals: 1}")
    reported = call("report", done, "b.yaml", "--pair", "resnet14 -> resnet8")
    assert lines_of(reported.out)[0] == "Tiny and B (pairs resnet14 -> resnet8)"
    assert "results/reports/tiny+b-pairs-resnet14-resnet8-decimals-1/report.md" not in reported.out
    assert lines_of(reported.out)[-1] == "results/reports/tiny+b-pairs-resnet14-resnet8/report.md"
    write("c.yaml", title="title: C\nreport: {decimals: 3}")
    told = "the suites have different values of `decimals` in `report`. Give one on the command line, or make them equal."
    assert call("report", "b.yaml", "c.yaml").err == f"error: {told}\n"
    assert call("report", "b.yaml", "c.yaml", "--decimals", "2").status == 0
    write("d.yaml", recipe="recipe: {base: digits-quick, epochs: 1, optimiser: {lr: 0.2}, schedule: {milestones: []}}")
    call("run", "d.yaml", "--device", "cpu", "--methods", "scratch")
    assert call("report", done, "d.yaml").err.startswith("error: one table cannot mix recipes of digits")
    assert call("report", done, "results").err.startswith("error: results is no suite, and only suites are reported together.")


def test_a_report_chooses_from_all_records(call, done):
    digits = "digits (200 training images)"
    reported = call("report", "results", "--methods", "kd,scratch", "--pair", "resnet14->resnet8", "--dataset", digits)
    chosen = f"datasets {digits}; pairs resnet14->resnet8; methods kd, scratch"
    assert lines_of(reported.out)[0] == f"All trials under results ({chosen})"
    assert re.search(r"Teacher error +KD +scratch", reported.out), "in the order of --methods"
    assert call("report", "results").out.endswith("results/reports/all/report.md\n")
    assert call("report", "results", "--methods", "ft").err.startswith("error: methods: 'ft' is not in this report.")


def test_suites_of_one_name_have_a_report_each_and_it_is_said(call, done):
    for folder, title in (("first", "One"), ("second", "Two")):
        Path(folder).mkdir()
        write(f"{folder}/tiny.yaml", title=f"title: {title}")
    assert "holds the report" not in call("report", "first/tiny.yaml").out
    first = Path("first/tiny.yaml").resolve()
    told = f"results/reports/tiny already holds the report of {first}. So this report is in results/reports/tiny-second."
    for _ in range(2):
        assert told in lines_of(call("report", "second/tiny.yaml").out)
    titles = {name: Path(f"results/reports/{name}/report.md").read_text().splitlines()[0] for name in ("tiny", "tiny-second")}
    assert titles == {"tiny": "# One", "tiny-second": "# Two"}


def test_two_files_of_one_name_in_a_report_are_both_on_its_page(call, done, monkeypatch):
    for folder in ("first", "sec ond"):
        Path(folder).mkdir()
        write(f"{folder}/tiny.yaml", title=f"title: In {folder}")
    call("report", "first/tiny.yaml", "sec ond/tiny.yaml", "--format", "html", "--output", "page")
    page = Path("page/report.html").read_text()
    for words in ("kdbench run first/tiny.yaml\n", "kdbench run &#39;sec ond/tiny.yaml&#39;", "The suite file sec ond/tiny.yaml"):
        assert words in page
    assert page.count("title: In first\n") and page.count("title: In sec ond\n")


def test_what_one_opens_of_a_report_stands_last_by_its_path(call, done):
    out = lines_of(call("report", done, "--format", "md,html,bib").out)
    folder = "results/reports/tiny"
    assert out[-3:] == [f"{folder}: methods.bib (1 file)", f"{folder}/report.md", f"{folder}/report.html"]


def test_a_report_in_another_format_keeps_what_was_made_of_the_same_results_alone(call, done):
    call("report", done, "--format", "md")
    call("report", done, "--format", "tex")
    tex = ["cost.tex", "gain.tex", "tables.tex", "test_error.tex"]
    assert sorted(os.listdir("results/reports/tiny")) == [LIST, *sorted([*tex, "report.md"])]
    for record in Path("results").glob("trials/*/record.json"):
        record.write_text(record.read_text().replace('"finished": "2', '"finished": "3'))
    reported = call("report", done, "--format", "tex")
    assert sorted(os.listdir("results/reports/tiny")) == [LIST, *tex]
    assert "removed, from the earlier report: report.md" in reported.out


def test_a_directory_of_the_users_keeps_what_is_not_kdbenchs(call, done):
    Path("paper").mkdir()
    Path("paper/mine.tex").write_text("mine")
    Path("paper/tables.tex").write_text("mine")
    refuses(
        call("report", done, "--format", "tex", "--output", "paper"),
        "paper/tables.tex exists already, and kdbench did not write it. Move it away, or choose another --output.",
    )
    assert call("report", done, "--format", "md", "--output", "paper").status == 0
    assert call("report", done, "--format", "csv", "--output", "paper").status == 0
    assert Path("paper/report.md").exists(), "it is of the same results"
    assert {Path(f"paper/{name}.tex").read_text() for name in ("mine", "tables")} == {"mine"}
    refused = call("report", "results", "--format", "csv", "--output", "paper")
    assert (refused.status, refused.err) == (
        2,
        f"error: paper holds the report of {Path(done).resolve()}. Choose another --output.\n",
    )
