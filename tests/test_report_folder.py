"""Where a report lies: whose folder it is, what else it may be called, and which files go."""

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import MIXED, Lab

from kdbench.report.command import print_and_write
from kdbench.report.contents import read_report
from kdbench.report.output_folder import LIST, ReportIdentity, choose_folder, write_into

FIRST = ReportIdentity("exp", suite="/a/first/exp.yaml", place="first", content="1")
SECOND = ReportIdentity("exp", suite="/a/second/exp.yaml", place="second", content="2")


def writing(*names: str) -> Callable[[Path], Sequence[Path]]:
    def write(folder: Path) -> list[Path]:
        for name in names:
            (folder / name).write_text(name)
        return [folder / name for name in names]

    return write


def lies(reports: Path, identity: ReportIdentity, *names: str) -> str:
    """Write a report of the identity, and give its folder's name."""
    folder, _ = choose_folder(reports, identity)
    write_into(folder, identity, writing(*(names or ("report.md",))), results="r", chosen_by_user=False)
    return folder.name


def changed(identity: ReportIdentity, **changes: Any) -> ReportIdentity:
    return ReportIdentity(**{**vars(identity), **changes})


def test_the_first_has_the_plain_name_and_others_one_that_tells_them_apart(tmp_path):
    third = changed(SECOND, suite="/b/second/exp.yaml", content="3")
    assert [lies(tmp_path, identity) for identity in (FIRST, SECOND, FIRST, SECOND)] == ["exp", "exp-second", "exp", "exp-second"]
    assert lies(tmp_path, third).startswith("exp-")
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "again",
    [changed(FIRST, content="edited"), changed(FIRST, suite="/moved/exp.yaml"), FIRST],
    ids=["edited", "moved", "as it was"],
)
def test_a_suite_that_was_edited_or_moved_replaces_its_own_report(again, tmp_path):
    lies(tmp_path, FIRST)
    assert lies(tmp_path, again) == "exp"


def test_the_results_directory_may_be_moved(tmp_path):
    lies(tmp_path / "here" / "reports", FIRST)
    lies(tmp_path / "here" / "reports", SECOND)
    (tmp_path / "here").rename(tmp_path / "there")
    assert [lies(tmp_path / "there" / "reports", identity) for identity in (FIRST, SECOND)] == ["exp", "exp-second"]


def test_each_selection_has_its_folder_and_long_ones_are_told_apart(tmp_path):
    selections = ["", "methods ft, kd", "methods kd, ft", "methods ft, kd; seeds 0"]
    assert [lies(tmp_path, changed(FIRST, selection=selection)) for selection in selections] == [
        "exp",
        "exp-methods-ft_kd",
        "exp-methods-kd_ft",
        "exp-methods-ft_kd-seeds-0",
    ]
    numbers = ", ".join(map(str, range(200)))
    long = [lies(tmp_path, changed(FIRST, selection=f"seeds {numbers}, {last}")) for last in range(200, 205)]
    assert len(set(long)) == 5
    assert all(name.startswith("exp-seeds-0_1_2_") and len(name) < 70 for name in long)


def test_selections_whose_folders_would_have_one_name_have_two(tmp_path):
    both = [lies(tmp_path, changed(FIRST, selection=selection)) for selection in ("methods a; seeds 0", "methods a-seeds-0")]
    assert both == ["exp-methods-a-seeds-0", "exp-methods-a-seeds-0-first"]


def test_a_selection_is_no_suite_of_its_name(tmp_path):
    lies(tmp_path, changed(FIRST, selection="seeds 0"))
    assert lies(tmp_path, changed(SECOND, name="exp-seeds-0")) == "exp-seeds-0-second"


def test_only_what_kdbench_wrote_goes(tmp_path):
    folder = tmp_path / "exp"
    lies(tmp_path, FIRST, "report.md", "old.png")
    (folder / "mine.png").write_text("mine")
    listed = json.loads((folder / LIST).read_text())
    (tmp_path / "outside").write_text("mine")
    (folder / LIST).write_text(json.dumps({**listed, "files": [*listed["files"], "../outside"]}))
    kept, none = write_into(folder, FIRST, writing("report.md"), results="r", chosen_by_user=False)
    assert (kept, none) == ([folder / "report.md"], []), "what was made of the same results stays"
    files, removed = write_into(folder, FIRST, writing("report.md"), results="newer", chosen_by_user=False)
    assert (files, removed) == ([folder / "report.md"], [folder / "old.png"])
    assert sorted(file.name for file in folder.iterdir()) == [LIST, "mine.png", "report.md"]
    assert (tmp_path / "outside").exists()


def test_a_report_that_fails_leaves_the_one_before_as_it_is(tmp_path):
    lies(tmp_path, FIRST)
    before = {file: file.read_bytes() for file in (tmp_path / "exp").iterdir()}

    def fail(folder: Path) -> Sequence[Path]:
        (folder / "report.md").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_into(tmp_path / "exp", FIRST, fail, results="r", chosen_by_user=False)
    assert {file: file.read_bytes() for file in (tmp_path / "exp").iterdir()} == before


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"suite": "s", "content": "", "selection": "", "files": [1]}'])
def test_a_list_that_is_damaged_is_none(text, tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / LIST).write_text(text)
    assert lies(tmp_path, FIRST) == "exp"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_that_the_report_is_written_until_the_tables_come(terminal, finished: Lab, monkeypatch):
    shown = io.StringIO()
    shown.isatty = lambda: terminal  # type: ignore[method-assign]  # a file in memory that says it is a terminal
    report = read_report([str(finished.suite(**MIXED).file)], finished.store.root, seeds=[], changes={}, plugins=[])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", shown)
    print_and_write(report, formats=["md"])
    before, title, _ = shown.getvalue().partition("Tiny")
    assert title
    if terminal:
        assert "writing the report" in before
        assert before.endswith("\x1b[2K\x1b[1m"), "its line is cleared"
    else:
        assert before == ""
