"""`kdbench new method` writes a method that works and a test that passes, and overwrites nothing."""

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbench import KdbenchError, conformance
from kdbench.conformance.scaffold import METHOD, new_method
from kdbench.method.description import describe_method
from kdbench.method.interface import METHODS
from kdbench.suite.plugins import load_path


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Forgets what a test registers."""
    forget = METHODS.snapshot()
    yield
    forget()


def test_a_method_and_its_test_are_written(tmp_path: Path) -> None:
    written = new_method("my_method_2", tmp_path)
    assert written == [tmp_path / "my_method_2.py", tmp_path / "test_my_method_2.py"]
    assert sorted(tmp_path.iterdir()) == written
    assert "class MyMethod2(Method):" in written[0].read_text()
    for file in written:
        assert not re.search("NAME|CLASS", file.read_text())
        compile(file.read_text(), file, "exec")


def test_the_method_keeps_every_promise_at_once_and_refuses_no_pair(tmp_path: Path) -> None:
    file, _ = new_method("mine", tmp_path)
    checks = conformance.check(str(file))
    assert {check.status for check in checks} == {"pass"}, conformance.as_text(checks)
    assert describe_method("mine")["params"] == {"beta": 1.0}


def test_its_test_passes_under_pytest(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    new_method("mine", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which pytest adds the folder
    assert pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_mine.py"]) == pytest.ExitCode.OK
    assert "2 passed" in capsys.readouterr().out


def test_its_test_fails_where_the_method_computes_something_else(tmp_path: Path) -> None:
    file, test = new_method("mine", tmp_path)
    file.write_text(file.read_text().replace("F.mse_loss(", "F.l1_loss("))
    functions = runpy.run_path(str(test))
    with pytest.raises(AssertionError, match="not close"):
        functions["test_the_loss_is_the_formula"]()


def test_its_test_fails_where_the_method_breaks_a_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, test = new_method("mine", tmp_path)
    file.write_text(file.read_text().replace("    Paper:", "    By:"))
    functions = runpy.run_path(str(test))
    monkeypatch.setattr(conformance, "CHECKS", conformance.CHECKS[:2])
    with pytest.raises(AssertionError, match="fail     docstring  The docstring has no paragraph `Paper:`"):
        functions["test_it_keeps_every_promise"]()


@pytest.mark.parametrize("existing", ["mine.py", "test_mine.py"])
def test_a_file_that_exists_is_left_alone(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(KdbenchError, match=rf"{existing} exists already\. Choose another name, or move it away\."):
        new_method("mine", tmp_path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("my-method", "'my-method' cannot name a method and its file"),
        ("MyMethod", "small letters"),
        ("2nd", "small letters"),
        ("class", "small letters"),
        ("ft+kd", "small letters"),
        ("../up", "small letters"),
        ("", "small letters"),
        ("ft", r"the method 'ft' exists already, in .*ft\.py"),
        ("random", "random.py would hide the Python module 'random'"),
        ("torch", "torch.py would hide the Python module 'torch'"),
        ("pair", "the class of 'pair' would be Pair, which the file imports"),
        ("f", "would be F, which the file imports"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(KdbenchError, match=reason) as refused:
        new_method(name, tmp_path)
    assert re.search(r"\. (Use|Choose) [^.]*\.$", str(refused.value)), "it ends with what to do"
    assert not list(tmp_path.iterdir())


def test_the_name_of_a_loaded_plugin_is_taken(tmp_path: Path) -> None:
    file, _ = new_method("mine", tmp_path)
    load_path(file)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(KdbenchError, match="the method 'mine' exists already"):
        new_method("mine", tmp_path / "elsewhere")


def test_the_comments_name_all_hook_points() -> None:
    assert all(f"`{hook}`" in METHOD for hook in ("logits", "stem", "features", "preactivations", "pooled"))
