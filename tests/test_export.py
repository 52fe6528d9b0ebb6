"""Results in one file, Parquet or CSV, are read back as the same frame, and reported as the same tables."""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Lab
from synthetic_results import STUDENTS, TEACHER, put, trial_spec

from kdbench import KdbenchError, cli, load_outcomes, load_results
from kdbench.report import compare, result_table, to_markdown, write_report
from kdbench.results import export
from kdbench.results.export import FURTHER, KINDS, SCHEMA, VERSION_COLUMN, read_export, write_export
from kdbench.results.frames import COLUMNS, load_curves
from kdbench.results.frames import frame as with_types
from kdbench.spec.record import Data, ImageCounts

REFERENCE = sorted(Path("results/reference").glob("*/results.csv"))
NO_CURVES = pd.DataFrame()
TRIALS = [("kd", 0), ("kd", 1), ("at", 0), ("at", 1)]
FORMATS = pytest.mark.parametrize("suffix", [".parquet", ".csv"])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Records with odd texts, numbers at the ends of their range, and missing values of every kind."""
    root = tmp_path / "results"
    counts = ImageCounts.of([2, 3])
    data = Data(
        **{"classes": ("a", "b"), "image_shape": (1, 8, 8), "resize": None, "mean": (0.5,), "std": (0.2,)},
        **{"train_images": counts, "validation_images": None, "test_images": counts, "passed_over_files": {}, "notes": ()},
    )
    put(root, TEACHER, data=data, student_params=2**62, test_error_pct=1 / 3, notes=("one, two", 'a "quoted" line\nand é'))
    put(root, STUDENTS[0], setting='=kd (label="#1; ,")', train_loss=1e-300, test_error_pct=0.1 + 0.2)
    put(root, STUDENTS[1], status="failed", reason="NA", test_error_pct=None, weights_sha256=None)
    return root


@FORMATS
def test_a_file_is_read_back_as_the_same_frame(suffix: str, results: Path, tmp_path: Path) -> None:
    frame, file = load_results(results), tmp_path / f"r{suffix}"
    write_export(frame, file)
    again = load_results(file)
    if suffix == ".csv":  # which does not tell an empty text from a missing one
        frame["data_notes"] = None
    pd.testing.assert_frame_equal(again, frame)
    assert [type(notes) for notes in again["notes"]] == [tuple] * 3
    assert again["reason"].isna().tolist() == frame["reason"].isna().tolist()


@FORMATS
def test_a_report_of_the_file_is_that_of_the_directory(
    suffix: str, undisturbed: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, reports = tmp_path / f"r{suffix}", []
    cli.app(["export", str(undisturbed.store.root), str(file), "--curves"], standalone_mode=False)
    assert capsys.readouterr().out == f"{file}: 6 trials of {undisturbed.store.root}\n"
    for source in (undisturbed.store.root, file):
        output = tmp_path / f"report of {source.name}"
        cli.app(["report", str(source), "--format", "md,csv", "--output", str(output)], standalone_mode=False)
        made = {path.name: path.read_text().replace(str(source), "SOURCE") for path in output.iterdir() if path.suffix != ".json"}
        printed = capsys.readouterr().out.replace(str(output), "OUTPUT").replace(str(source), "SOURCE")
        reports.append((made, printed))
    assert reports[0] == reports[1]
    assert {"report.md", "test_error.csv"} <= reports[0][0].keys()


def report_of(frame: pd.DataFrame, folder: Path, *, formats: Sequence[str]) -> dict[str, str]:
    """The files of its report, with the methods in the order of the frame."""
    comparison = compare(frame, methods=list(frame["method"].unique()))
    return {
        file.name: file.read_text() for file in write_report(comparison, NO_CURVES, title="T", directory=folder, formats=formats)
    }


def test_a_report_of_a_csv_file_that_pandas_read_is_that_of_the_frame(tmp_path: Path) -> None:
    """Of both files that kdbench writes, of trials with notes, with missing values, failed, and not chosen yet."""
    results, teacher = tmp_path / "results", trial_spec(student="resnet20", method="scratch")
    counts = ImageCounts.of([2, 3])
    data = Data(
        **{"classes": ("a", "b"), "image_shape": (1, 8, 8), "resize": None, "mean": (0.5,), "std": (0.2,)},
        **{"train_images": counts, "validation_images": None, "test_images": counts, "passed_over_files": {}, "notes": ()},
    )
    students = [trial_spec(label="2012", teacher=teacher, seed=seed, method=method) for method, seed in TRIALS]
    put(results, teacher, data=data)
    notes = ("kd: one, two", 'kd: "quoted"\nand é, \\n and it\'s')
    put(results, students[0], data=data, notes=notes, stage_epochs=2, student_params=2**53, train_s=20.5)
    put(results, students[1], status="failed", reason="no, it's not", test_error_pct=None, weights_sha256=None)
    put(results, students[2], test_error_pct=33.3, other_teachers_weights_sha256=("a", "b"), stages="per-seed")
    put(results, students[3], planned="2026-01-02T00:00:00+00:00", notes=("mixed images: no",))
    found = load_results(results)
    untuned = {
        **found.drop(columns="label").iloc[-1].to_dict(),
        "trial": "",
        "seed": 7,
        "status": "untuned",
        "reason": None,
        "test_error_pct": np.nan,
    }
    found = with_types([*found.drop(columns="label").to_dict("records"), untuned])
    write_export(found, tmp_path / "export.csv")
    formats = ("md", "html", "tex", "csv", "bib")
    expected = report_of(found, tmp_path / "expected", formats=formats)
    assert "KD (resnet20 → resnet8): one, two." in expected["report.md"]
    for file in (tmp_path / "export.csv", tmp_path / "expected" / "results.csv"):
        read = pd.read_csv(file).drop(columns="export_version", errors="ignore")
        assert report_of(read, tmp_path / "again", formats=formats) == expected, file.name


@pytest.mark.parametrize("file", REFERENCE, ids=lambda file: file.parent.name)
def test_reference_results_are_compared_as_their_frame_is(file: Path) -> None:
    types = {name: "Int64" for name, kind in SCHEMA.items() if kind == "integer"}
    lists = {name: ast.literal_eval for name, kind in SCHEMA.items() if kind == "JSON"}
    of_frame, of_file = compare(pd.read_csv(file, dtype=types, converters=lists)), compare(pd.read_csv(file))
    pd.testing.assert_frame_equal(of_file.given, of_frame.given, check_dtype=False)
    text = to_markdown(result_table(of_file))
    assert text == to_markdown(result_table(of_frame)) and "()" not in text


def test_a_column_of_lists_with_other_text_is_refused(results: Path) -> None:
    for text in ("seen in a meeting", "('a'", "{'a': 1}", "5"):
        with pytest.raises(KdbenchError, match=r"column notes: '.*' is no list of texts such as \('one', 'two'\)\. Read"):
            compare(load_results(results).assign(notes=text))


@FORMATS
def test_which_images_were_wrong_is_read_back(suffix: str, undisturbed: Lab, tmp_path: Path) -> None:
    frame, file = load_results(undisturbed.store.root), tmp_path / f"r{suffix}"
    outcomes = load_outcomes(undisturbed.store.root, frame["trial"])
    write_export(frame, file, outcomes=outcomes)
    again = read_export(file).outcomes
    assert again.keys() == outcomes.keys() == set(frame["trial"])
    for trial, known in outcomes.items():
        assert known.data_fingerprint == again[trial].data_fingerprint
        assert all(np.array_equal(getattr(known, name), getattr(again[trial], name)) for name in ("wrong", "mistakes"))
    cli.app(["export", str(undisturbed.store.root), str(file), "--no-outcomes"], standalone_mode=False)
    assert not read_export(file).outcomes


@FORMATS
def test_curves_are_read_back(suffix: str, undisturbed: Lab, tmp_path: Path) -> None:
    frame, file = load_results(undisturbed.store.root), tmp_path / f"r{suffix}"
    curves = load_curves(undisturbed.store.root, frame["trial"])
    write_export(frame, file, curves=curves)
    pd.testing.assert_frame_equal(read_export(file).curves, curves, check_like=True)
    write_export(frame, file)
    assert read_export(file).curves.empty


def test_the_students_of_a_suite_are_exported_done_or_not(undisturbed: Lab, tmp_path: Path) -> None:
    suite = undisturbed.suite(methods=["at"])
    file = tmp_path / "r.csv"
    cli.app(["export", str(suite.file), str(file), "--results", str(undisturbed.store.root)], standalone_mode=False)
    (student,), (teacher,) = suite.trials, suite.teachers
    expected = [[student.id, "student", "missing"], [teacher.id, "teacher", "done"]]
    assert load_results(file)[["trial", "role", "status"]].values.tolist() == expected
    assert read_export(file).outcomes.keys() == {teacher.id}


@FORMATS
def test_the_file_says_the_version_of_its_schema(
    suffix: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"r{suffix}"
    monkeypatch.setattr(export, "VERSION", 2)
    write_export(load_results(results), file)
    monkeypatch.undo()
    with pytest.raises(KdbenchError, match=r"has version 2 of the schema, and this kdbench reads up to 1\. Update kdbench\."):
        load_results(file)


def test_other_programs_read_it(results: Path, tmp_path: Path) -> None:
    for name in ("r.csv", "r.parquet"):
        write_export(load_results(results), tmp_path / name)
    read = pd.read_csv(tmp_path / "r.csv")
    assert list(read.columns) == [VERSION_COLUMN, *COLUMNS] and (read[VERSION_COLUMN] == 1).all()
    pq = pytest.importorskip("pyarrow.parquet")
    schema = pq.read_schema(tmp_path / "r.parquet")
    assert schema.names == [*COLUMNS] and schema.metadata[VERSION_COLUMN.encode()] == b"1"


def test_a_column_of_another_version_is_missing_or_passed_over(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    write_export(load_results(results), file)
    other = pd.read_csv(file).drop(columns="seed").assign(novel=1)
    other.to_csv(file, index=False)
    again = load_results(file)
    assert again["seed"].isna().all()
    assert again["student_params"].max() == 2**62, "pandas wrote it with a point"


@pytest.mark.parametrize(
    ("name", "content"), [("r.csv", b"a,b\n1,2\n"), ("r.csv", b""), ("r.parquet", b"PAR1"), ("r.csv", b"\xff")]
)
def test_a_file_of_others_is_neither_read_nor_overwritten(name: str, content: bytes, results: Path, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(KdbenchError, match=r"was not written by `kdbench export`|cannot be read"):
        load_results(file)
    with pytest.raises(KdbenchError, match="exists already, and `kdbench export` did not write it"):
        write_export(load_results(results), file)
    assert file.read_bytes() == content


def test_mistakes_in_an_export(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = load_results(results)
    with pytest.raises(KdbenchError, match=r"r\.xlsx has an unknown type\. Give a name that ends with \.parquet or \.csv\."):
        write_export(frame, tmp_path / "r.xlsx")
    write_export(frame, tmp_path / "r.csv")
    with pytest.raises(KdbenchError, match="suite and plugins have no effect on"):
        load_results(tmp_path / "r.csv", suite="quick")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(KdbenchError, match=r"need pyarrow\. Install it with `pip install 'kdbench\[parquet\]'`, or give a name"):
        write_export(frame, tmp_path / "r.parquet")


def test_every_column_has_a_type() -> None:
    assert list(SCHEMA) == list(COLUMNS) and {*SCHEMA.values(), *(kind for kind, _ in FURTHER.values())} == {*KINDS}
