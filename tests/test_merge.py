"""Results of several machines in one directory: nothing is lost, nothing is overwritten, and all is told before."""

import json
import os
import shutil
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import STUDENTS, TEACHER, put, trial_spec

from kdbench import KdbenchError, cli, load_results
from kdbench.catalogue.merge import merge_as_text, refuse_clashes
from kdbench.report.comparable import check_comparable
from kdbench.results import merge as merging
from kdbench.results import replace_folder
from kdbench.results.lock import held
from kdbench.results.merge import Action, Merge, plan_merge
from kdbench.results.store import Store
from kdbench.spec.record import PROTOCOL
from kdbench.spec.trial import digest


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "into"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return tmp_path / "other"


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted(root.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def counts(plan: Merge) -> dict[str, int]:
    return dict(Counter(step.action.value for step in plan.steps))


def merge(into: Path, *sources: Path, **options: Any) -> Merge:
    """Merge, and see that the dry run before said the same and wrote nothing."""
    before = [tree(root) for root in (into, *sources)]
    plan = plan_merge(into, sources, **options)
    merge_as_text(plan)
    assert [tree(root) for root in (into, *sources)] == before
    arguments = ["merge", str(into), *map(str, sources), *(["--keep", options["keep"]] if options else [])]
    cli.app(arguments, standalone_mode=False)
    assert [tree(root) for root in sources] == before[1:], "FROM is only read"
    return plan


def test_trials_of_two_machines_stand_in_one_directory(into: Path, other: Path) -> None:
    put(into, TEACHER)
    put(into, STUDENTS[0])
    put(other, TEACHER, device="two", train_s=9.0, suite="another")
    put(other, STUDENTS[1], files={"weights.safetensors": "w", "notes/mine.txt": "n", "curves.jsonl": "{}\n"})
    first = tree(into)
    plan = merge(into, other)
    assert counts(plan) == {"same": 1, "copy": 1}
    assert tree(into) == first | {name: data for name, data in tree(other).items() if digest(STUDENTS[1]) in name}
    assert set(load_results(into)["trial"]) == {digest(TEACHER), digest(STUDENTS[0]), digest(STUDENTS[1])}


def test_a_merge_into_a_new_directory_and_of_several(into: Path, other: Path, tmp_path: Path) -> None:
    third = tmp_path / "third"
    for root, spec in ((other, STUDENTS[0]), (third, STUDENTS[1])):
        put(root, TEACHER)
        put(root, spec)
    assert counts(merge(into, other, third)) == {"copy": 3, "same": 1}
    assert len(load_results(into)) == 3
    assert counts(merge(into, other, third)) == {"same": 4}, "a second time there is nothing to do"


UNFINISHED: dict[str, dict[str, Any]] = {
    "failed": {"status": "failed", "reason": "it broke", "files": {"weights.safetensors": "of the failure"}},
    "started": {"record": False, "files": {"checkpoint.pt": "c", "curves.jsonl": "half"}},
    "missing": {"record": False},
}


@pytest.mark.parametrize("state", UNFINISHED)
def test_only_a_finished_trial_replaces_one(state: str, into: Path, other: Path) -> None:
    folder = put(into, STUDENTS[0], **UNFINISHED[state])
    (folder / "notes.txt").write_text("mine")
    done = put(other, STUDENTS[0], files={"curves.jsonl": "whole"})
    assert counts(merge(into, other)) == {"copy" if state == "missing" else "replace": 1}
    assert tree(folder) == {**tree(done), "notes.txt": b"mine"}
    before = tree(folder)
    assert counts(merge(into, shutil.copytree(folder, other.with_name("x") / "trials" / folder.name).parents[1])) == {"same": 1}
    shutil.rmtree(done)
    put(other, STUDENTS[0], **UNFINISHED[state])
    assert counts(merge(into, other)) == {"leave": 1}
    assert tree(folder) == before


@pytest.mark.parametrize("state", UNFINISHED)
def test_what_is_not_finished_is_copied_where_there_is_nothing(state: str, into: Path, other: Path) -> None:
    put(other, STUDENTS[0], **UNFINISHED[state])
    merge(into, other)
    assert tree(into) == tree(other)


@pytest.mark.parametrize("state", ["failed", "started"])
def test_what_was_only_planned_is_as_nothing(state: str, into: Path, other: Path) -> None:
    folder = put(into, STUDENTS[0], record=False, files={"planned.txt": "2026-01-02", "notes.txt": "mine"})
    theirs = put(other, STUDENTS[0], **{**UNFINISHED[state], "files": {"planned.txt": "2026-01-01", "checkpoint.pt": "c"}})
    assert counts(merge(into, other)) == {"copy": 1}
    assert tree(folder) == {**tree(theirs), "notes.txt": b"mine"}


def test_one_result_gets_the_files_that_it_lacks_and_no_leftovers(into: Path, other: Path) -> None:
    folder = put(into, TEACHER, files={"stages/a.pt": "a", "notes.txt": "ours"})
    put(
        other,
        TEACHER,
        finished="2027-01-01T00:00:00+00:00",
        files={
            "weights.safetensors": "w",
            **{"stages/b.pt": "b", "stages/b.checkpoint.pt": "old", "stages/c.checkpoint.pt": "half"},
            **{
                "checkpoint.pt": "old",
                "record.json.replaced": "old",
                "x.broken": "old",
                "notes.txt": "theirs",
                ".x.partial": "half",
            },
        },
    )
    before = tree(folder)
    assert counts(merge(into, other)) == {"add": 1}
    assert tree(folder) == before | {"weights.safetensors": b"w", "stages/b.pt": b"b", "stages/c.checkpoint.pt": b"half"}


def test_different_results_are_told_with_both_environments_and_not_merged(
    into: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(into, STUDENTS[0], device="GPU one")
    put(other, STUDENTS[0], device="GPU two", test_error_pct=6.0, weights_sha256="u")
    put(other, STUDENTS[1])
    before = tree(into)
    with pytest.raises(KdbenchError, match=r"nothing was merged: 1 trial cannot stand .* Choose: --keep into .*, --keep from"):
        merge(into, other)
    assert tree(into) == before
    told = capsys.readouterr().out
    for words in (digest(STUDENTS[0])[:8], "resnet20 -> resnet8, kd, seed 0", "2 keys", "test_error_pct, weights_sha256"):
        assert words in told
    for words in ("test error 5.00 %", "GPU one", "test error 6.00 %", "GPU two"):
        assert words in told
    plan = plan_merge(into, [other], keep="into")
    assert counts(plan) == {"pass over": 1, "copy": 1}


def test_one_can_choose_which_result_stays(into: Path, other: Path) -> None:
    folder = put(into, STUDENTS[0], files={"weights.safetensors": "ours", "notes.txt": "n"})
    put(other, STUDENTS[0], test_error_pct=6.0, weights_sha256="u")
    before = tree(folder)
    assert counts(merge(into, other, keep="into")) == {"pass over": 1}
    assert tree(folder) == before
    assert counts(merge(into, other, keep="from")) == {"take": 1}
    theirs = tree(other / "trials" / folder.name)
    assert tree(folder) == {**theirs, "notes.txt": b"n", "record.json.replaced": before["record.json"]}, "the number is not lost"


def test_an_earlier_result_that_is_being_replaced_stays_until_a_finished_one_comes(into: Path, other: Path) -> None:
    folder = put(into, STUDENTS[0], files={"record.json.replaced": "old"}, record=False)
    put(other, STUDENTS[0], status="failed", reason="on purpose", test_error_pct=None, weights_sha256=None)
    before = tree(folder)
    assert counts(merge(into, other)) == {"leave": 1}
    assert tree(folder) == before
    put(other, STUDENTS[0])
    assert counts(merge(into, other)) == {"replace": 1}


def other_teacher(root: Path, *students: dict[str, Any], teacher: bool = True) -> None:
    """A directory whose teacher came out with other weights."""
    if teacher:
        put(root, TEACHER, weights_sha256="T", device="two")
    for student in students:
        put(root, student, teacher_weights_sha256="T", weights_sha256="S")


@pytest.mark.parametrize("with_teacher", [True, False], ids=["with its teacher", "without"])
@pytest.mark.parametrize("ours", ["teacher", "students", "both"])
def test_students_of_another_teacher_are_told_before_and_never_stand_beside(
    ours: str, with_teacher: bool, into: Path, other: Path
) -> None:
    if ours != "students":
        put(into, TEACHER)
    if ours != "teacher":
        put(into, STUDENTS[0])
    other_teacher(other, STUDENTS[1], teacher=with_teacher)
    before = tree(into)
    plan = plan_merge(into, [other])
    assert counts(plan) == {"clash": 1 + with_teacher}
    assert "other weights" in merge_as_text(plan)
    with pytest.raises(KdbenchError, match="nothing was merged"):
        refuse_clashes(plan)
    merge(into, other, keep="into")
    assert tree(into) == before


def test_taking_another_teacher_says_which_students_become_stale(
    into: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(into, TEACHER)
    put(into, STUDENTS[0])
    put(into, STUDENTS[2])
    other_teacher(other, STUDENTS[0], STUDENTS[1])
    plan = merge(into, other, keep="from")
    assert counts(plan) == {"take": 2, "copy": 1}
    assert [record.trial for record in plan.stale] == [digest(STUDENTS[2])]
    assert f"1 finished student of {into} would become stale" in capsys.readouterr().out
    assert plan_merge(into, [other]).stale == (), "what is stale already does not become so"


def test_records_of_other_images_and_protocols_are_refused(into: Path, other: Path) -> None:
    put(into, STUDENTS[0])
    folder = put(other, STUDENTS[1], data_fingerprint="g")
    with pytest.raises(KdbenchError, match=r"'digits' has other images in .*other than in .*into \(fingerprints g and f\)"):
        plan_merge(into, [other])
    shutil.rmtree(folder)
    put(other, trial_spec(label="mine"), data_fingerprint="g", protocol=PROTOCOL - 1)
    with pytest.raises(KdbenchError, match=rf"is of protocol {PROTOCOL - 1}, this kdbench writes"):
        plan_merge(into, [other])


@pytest.mark.parametrize(
    ("changes", "spec", "told"),
    [
        ({}, STUDENTS[1], None),
        ({"recipe": "2 epochs"}, trial_spec(student="resnet14", teacher=TEACHER), None),
        ({"method_code": "v2"}, trial_spec(method="at", teacher=TEACHER), None),
        ({"method_code": "v2"}, STUDENTS[1], "Other code of kd"),
        ({"precision": "bf16"}, STUDENTS[1], "Other precision"),
        ({"recipe": "2 epochs"}, STUDENTS[1], "Other recipe"),
        (
            {},
            {**STUDENTS[1], "dataset": {"name": "digits", "params": {"train_images": 200, "label": ""}}},
            "Other settings of the data",
        ),
    ],
)
def test_what_no_table_shows_side_by_side_is_told_before(
    changes: dict[str, Any], spec: dict[str, Any], told: str | None, into: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(into, TEACHER)
    put(into, STUDENTS[0])
    put(other, TEACHER, files={"weights.safetensors": "w"})
    put(other, spec, **changes)
    merge(into, other)
    text = capsys.readouterr().out
    number = 2 if told in ("Other precision", "Other settings of the data") else 1  # teachers are of one with their students
    expected = f"{told}: 1 trial of {other} against {number} of {into}. `kdbench report {into}` would refuse both in one table"
    assert (expected in text) if told else ("Other " not in text)
    assert ("trains them anew" in text) is ("method_code" in changes and told is not None)
    refused = pytest.raises(KdbenchError, match="one table cannot mix") if told else nullcontext()
    with refused:
        check_comparable(load_results(into))
    capsys.readouterr()
    merge(into, other)
    assert "Other " not in capsys.readouterr().out, "what is there already is told no more"


def test_what_takes_the_place_of_other_code_is_not_beside_it(into: Path, other: Path, tmp_path: Path) -> None:
    put(into, STUDENTS[0])
    put(other, STUDENTS[0], method_code="v2")
    assert plan_merge(into, [other], keep="from").mixtures == ()
    put(third := tmp_path / "third", STUDENTS[1])
    (found,) = plan_merge(into, [third, other], keep="from").mixtures
    assert (found.first, found.other, len(found.coming)) == (third, other, 1)


def test_a_damaged_record_of_from_is_passed_over(into: Path, other: Path) -> None:
    (put(other, STUDENTS[0]) / "record.json").write_text("{")
    plan = merge(into, other)
    assert counts(plan) == {"pass over": 1}
    assert "its record is damaged" in merge_as_text(plan)


def test_a_record_of_into_that_cannot_be_read_is_replaced_only_if_that_is_chosen(into: Path, other: Path) -> None:
    folder = put(into, STUDENTS[0], files={"weights.safetensors": "ours", "notes.txt": "n"})
    newer = folder / "record.json"
    newer.write_text(json.dumps({**json.loads(newer.read_bytes()), "key_of_a_newer_kdbench": 1}))
    theirs, before = tree(put(other, STUDENTS[0])), tree(folder)
    with pytest.raises(KdbenchError, match="nothing was merged: 1 trial cannot stand"):
        merge(into, other)
    plan = merge(into, other, keep="into")
    assert f"its record in {into} cannot be read" in merge_as_text(plan)
    assert (counts(plan), tree(folder)) == ({"pass over": 1}, before)
    assert counts(merge(into, other, keep="from")) == {"take": 1}
    assert tree(folder) == {**theirs, "notes.txt": b"n", "record.json.replaced": before["record.json"]}


def test_the_record_of_into_stays_beside_whichever_is_taken_last(into: Path, other: Path, tmp_path: Path) -> None:
    third = tmp_path / "third"
    ours = tree(put(into, STUDENTS[0]))
    put(other, STUDENTS[0], test_error_pct=6.0, files={"record.json.replaced": "of another time"})
    last = tree(put(third, STUDENTS[0], test_error_pct=7.0))
    assert counts(merge(into, other, third, keep="from")) == {"take": 2}
    assert tree(into / "trials" / digest(STUDENTS[0])) == {**last, "record.json.replaced": ours["record.json"]}


def test_a_folder_that_is_a_link_is_replaced_and_what_it_points_to_stays(into: Path, other: Path, tmp_path: Path) -> None:
    elsewhere = shutil.move(put(into, STUDENTS[0]), tmp_path / "elsewhere")
    folder = into / "trials" / digest(STUDENTS[0])
    folder.symlink_to(elsewhere)
    before, theirs = tree(elsewhere), tree(put(other, STUDENTS[0], test_error_pct=6.0))
    merge(into, other, keep="from")
    assert tree(folder) == {**theirs, "record.json.replaced": before["record.json"]}
    assert tree(elsewhere) == before and os.listdir(folder.parent) == [folder.name]


def test_a_merge_that_was_killed_can_be_run_again(into: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(into, STUDENTS[0], status="failed", reason="it broke", files={"notes.txt": "mine"})
    for spec in (TEACHER, *STUDENTS):
        put(other, spec, files={"weights.safetensors": "w" * 1000, "stages/a.pt": "a"})
    put(into, STUDENTS[1])
    lost: set[str] = set()
    for calls in range(1, 40):  # killed before each rename in turn
        broken = shutil.copytree(into, into.with_name(f"killed{calls}"))
        count = iter(range(calls))

        def rename(old: Any, new: Any, *, real: Any = os.replace, count: Any = count) -> None:
            if next(count, None) is None:
                raise KeyboardInterrupt
            real(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(replace_folder.os, "rename", rename)
            patch.setattr(replace_folder.os, "replace", rename)
            try:
                merging.merge(plan_merge(broken, [other]))
                whole = True
            except KeyboardInterrupt:
                whole = False
        for file in broken.glob("trials/[!.]*/record.json"):
            json.loads(file.read_bytes())
        lost |= {folder.name for folder in (broken / "trials").glob(".*")}
        cli.app(["merge", str(broken), str(other)], standalone_mode=False)
        assert tree(broken / "trials") == tree(other / "trials") | {f"{digest(STUDENTS[0])}/notes.txt": b"mine"}
        if whole:
            break
    assert whole and calls == 6 and {name.rpartition(".")[2] for name in lost} == {"new", "before"}


def test_a_directory_that_is_being_written_is_neither_source_nor_target(into: Path, other: Path) -> None:
    put(into, STUDENTS[0])
    put(other, STUDENTS[1])
    with held(other), pytest.raises(KdbenchError, match=rf"another kdbench is writing to {other}: process {os.getpid()}"):
        merge(into, other)
    with held(into), pytest.raises(KdbenchError, match=rf"another kdbench is writing to {into}"):
        merge(into, other)
    merge(into, other)


def test_the_mark_of_a_process_that_died_keeps_nobody_from_reading(into: Path, other: Path) -> None:
    put(other, STUDENTS[0])
    (other / ".lock").touch()
    elsewhere = {"host": "elsewhere", "namespace": "", "pid": 1, "started": "", "since": "then"}
    for flock, told in (
        (True, None),
        (False, r"Whether it still runs cannot be seen from here: if it does not, delete .*\.writer"),
    ):
        (other / ".writer").write_text(json.dumps({**elsewhere, "flock": flock}))
        before = tree(other)
        if told:
            with pytest.raises(KdbenchError, match=told):
                plan_merge(into, [other])
        else:
            plan_merge(into, [other])
        assert tree(other) == before


def test_work_of_networks_is_merged_and_the_rest_is_named(into: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(into, STUDENTS[0])
    put(other, STUDENTS[1])
    Store(into, protocol=PROTOCOL).note_macs("digits", {"resnet8": 1})
    Store(other, protocol=PROTOCOL).note_macs("digits", {"resnet8": 2, "resnet20": 3})
    (other / "reports").mkdir()
    merge(into, other)
    assert Store(into, protocol=PROTOCOL).macs() == {"digits": {"resnet8": 1, "resnet20": 3}}
    assert f"not merged: {other / 'reports'}" in capsys.readouterr().out


def test_what_cannot_be_merged(into: Path, other: Path) -> None:
    put(into, STUDENTS[0])
    with pytest.raises(KdbenchError, match=r"no trials under .*other"):
        plan_merge(into, [other])
    with pytest.raises(KdbenchError, match="cannot be merged into itself"):
        plan_merge(into, [into / ".." / "into"])


def test_what_comes_next_is_told(into: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(other, STUDENTS[0])
    merge(into, other)
    told = f"Merged. `kdbench report SUITE --results {into}` makes the report of a suite."
    assert capsys.readouterr().out.splitlines()[-1] == told


def test_a_dry_run_writes_nothing(into: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(other, STUDENTS[0])
    cli.app(["merge", str(into), str(other), "--dry-run"], standalone_mode=False)
    assert capsys.readouterr().out.endswith("Nothing was written.\n")
    assert not into.exists()


def test_every_action_is_told() -> None:
    from kdbench.catalogue.merge import _MEANINGS

    assert set(_MEANINGS) == set(Action)
