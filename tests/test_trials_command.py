"""`kdbench trials`: what a results folder holds, and what is taken out of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Lab
from synthetic_results import STUDENTS, TEACHER, put, trial_spec

from kdbench import KdbenchError, cli
from kdbench.results import cleaning
from kdbench.results.lock import held
from kdbench.spec.trial import digest

TRIALS = [digest(spec) for spec in (TEACHER, *STUDENTS)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A teacher, and students that are done, failed and started."""
    put(tmp_path, TEACHER, files={"weights.safetensors": "w" * 3000, "stages/a.pt": "a" * 2000})
    put(tmp_path, STUDENTS[0], suite="paper")
    put(tmp_path, STUDENTS[1], status="failed", reason="it broke", test_error_pct=None, weights_sha256=None)
    put(tmp_path, STUDENTS[2], record=False, files={"checkpoint.pt": "c" * 1000})
    return tmp_path


@pytest.fixture
def trials(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """`kdbench trials` with arguments; returns what it prints."""

    def call(*arguments: str) -> str:
        capsys.readouterr()
        cli.app(["trials", *arguments, "--results", str(root)], standalone_mode=False)
        return capsys.readouterr().out

    return call


def left(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "trials").iterdir())


def test_all_that_a_directory_holds_is_listed(trials: Any) -> None:
    found = {entry["trial"]: entry for entry in json.loads(trials("list", "--json"))}
    assert [found[trial]["status"] for trial in TRIALS] == ["done", "done", "failed", "started"]
    assert [found[trial]["role"] for trial in TRIALS] == ["teacher", "student", "student", "student"]
    assert [found[trial]["suite"] for trial in TRIALS] == ["synthetic", "paper", "synthetic", None]
    assert {entry["dataset"] for entry in found.values()} == {"digits"}
    teacher, _, _, started = (found[trial] for trial in TRIALS)
    assert (started["teacher"], started["student"], started["method"], started["seed"]) == ("resnet20", "resnet8", "kd", 2)
    assert teacher["size_bytes"] == sum(file.stat().st_size for file in Path(teacher["folder"]).rglob("*") if file.is_file())
    text = trials("list")
    first = text.splitlines()[1].split()
    assert first[:6] == [TRIALS[0][:8], "teacher", "done", "digits", "resnet20", "scratch"]
    assert "4 trials, " in text and "weights 3.0 kB" in text and "stages 2.0 kB" in text and "checkpoints 1.0 kB" in text


def test_a_student_that_teaches_and_one_whose_teacher_changed(root: Path, trials: Any) -> None:
    put(root, trial_spec(method="at", teacher=STUDENTS[0]), teacher_weights_sha256="other")
    found = {entry["method"]: entry for entry in json.loads(trials("list", "--json")) if entry["seed"] == 0}
    assert (found["kd"]["role"], found["at"]["status"]) == ("teacher and student", "stale")


def test_a_trial_is_shown_with_its_files_and_its_students(trials: Any) -> None:
    shown = json.loads(trials("show", TRIALS[0][:6], "--json"))
    assert set(shown["teaches"]) == set(TRIALS[1:]) and shown["files"]["weights.safetensors"] == 3000
    assert f"teaches: [{', '.join(shown['teaches'][i][:8] for i in range(3))}]" in trials("show", TRIALS[0])
    with pytest.raises(KdbenchError, match=r"no trial under .* begins with 'zz'. See `kdbench trials list`\."):
        trials("show", "zz")


def test_a_trial_is_removed_once_that_is_said(root: Path, trials: Any) -> None:
    text = trials("remove", TRIALS[0], "--dry-run")
    assert f"1 finished student of it ({TRIALS[1][:8]}) stay done" in text and text.endswith("Nothing was removed.\n")
    with pytest.raises(KdbenchError, match=r"nothing was removed\. Look at the list above, then say so with --yes"):
        trials("remove", TRIALS[0])
    assert len(left(root)) == 4
    assert trials("remove", TRIALS[0][:6], TRIALS[3], "--yes").endswith("Removed.\n")
    assert left(root) == sorted(TRIALS[1:3])


def test_a_removal_that_was_killed_is_finished_by_the_next_command(
    root: Path, trials: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cleaning.remove_folder(root / "trials" / TRIALS[0])
    assert {entry["trial"] for entry in json.loads(trials("list", "--json"))} == set(TRIALS[1:]), "it is there whole or not at all"
    trials("remove", TRIALS[1], "--yes")
    assert left(root) == sorted(TRIALS[2:])


@pytest.mark.parametrize("killed", [False, True])
def test_a_link_to_a_trial_is_removed_and_what_it_points_to_stays(killed: bool, root: Path, trials: Any, tmp_path: Path) -> None:
    folder, elsewhere = root / "trials" / TRIALS[1], tmp_path / "elsewhere"
    folder.rename(elsewhere)
    (folder.with_name(f".{folder.name}.removed") if killed else folder).symlink_to(elsewhere)
    trials("remove", TRIALS[0], *([] if killed else [TRIALS[1]]), "--yes")
    assert left(root) == sorted(TRIALS[2:])
    assert (elsewhere / "record.json").exists()


def put_late(root: Path) -> None:
    put(root, trial_spec(student="late"))


def end_well(root: Path) -> None:
    put(root, STUDENTS[2])


def end_training(root: Path) -> None:
    put(root, TEACHER, files={"checkpoint.pt": "c"})


@pytest.mark.parametrize(
    ("meanwhile", "command"), [(put_late, ["prune", "mine"]), (end_well, ["remove", TRIALS[3]]), (end_training, ["prune"])]
)
def test_only_what_was_listed_is_removed(
    meanwhile: Any, command: list[str], root: Path, trials: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, STUDENTS[0], files={"checkpoint.pt": "c"})
    monkeypatch.setattr("kdbench.cli.trials._used", lambda suites, *_: {TRIALS[0]} if suites else None)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def confirm(_: str) -> bool:
        meanwhile(root)
        before.extend(sorted(root.rglob("*.*")))
        return True

    before: list[Path] = []
    monkeypatch.setattr("typer.confirm", confirm)
    with pytest.raises(KdbenchError, match=r"^nothing was removed: the trials have changed since they were listed\."):
        trials(*command)
    assert [path for path in before if path.name not in (".writer", ".lock") and not path.exists()] == []


LEFT_OVER = ["checkpoint.pt", "record.json.replaced", "weights.safetensors.broken", "stages/a.checkpoint.pt"]


def test_what_no_run_needs_is_pruned_and_nothing_else(root: Path, trials: Any) -> None:
    folder = put(root, TEACHER, files={**dict.fromkeys(LEFT_OVER, "x"), "stages/b.checkpoint.pt": "half", "notes.txt": "mine"})
    put(root, STUDENTS[1], files={"record.json.replaced": "of a trial that is trained again"}, record=False)
    before = {file for file in root.rglob("*") if file.is_file()}
    assert "left over: 4 B" in trials("list")
    assert "to be removed: 4 files, 4 B." in trials("prune", "--dry-run")
    with pytest.raises(KdbenchError, match="nothing was removed"):
        trials("prune")
    trials("prune", "--yes")
    gone = before - {file for file in root.rglob("*") if file.is_file()}
    assert gone == {folder / name for name in LEFT_OVER}
    assert trials("prune", "--yes") == "to be removed: nothing.\nNothing was removed.\n"


def test_what_no_given_suite_uses_is_pruned(finished: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    suite = finished.suite(methods=["scratch", "kd"], recipe={"epochs": 3}, teacher={"recipe": {"epochs": 2}})
    results, file = str(finished.store.root), str(suite.file)
    cli.app(["trials", "list", file, "--results", results, "--json"], standalone_mode=False)
    used = {entry["trial"] for entry in json.loads(capsys.readouterr().out)}
    assert used == {spec.id for spec in (*suite.trials, *suite.teachers)} and len(used) == 3
    cli.app(["trials", "prune", file, "--results", results, "--yes"], standalone_mode=False)
    assert set(left(finished.store.root)) == used


def test_a_directory_that_is_being_written_is_not_tidied(root: Path, trials: Any) -> None:
    with held(root), pytest.raises(KdbenchError, match="another kdbench is writing"):
        trials("remove", TRIALS[0], "--yes")
    assert len(left(root)) == 4


def test_a_directory_without_trials(trials: Any, tmp_path: Path) -> None:
    with pytest.raises(KdbenchError, match=r"no trials under 'nowhere'\. Give the directory"):
        cli.app(["trials", "list", "--results", "nowhere"], standalone_mode=False)
