"""Published numbers: what a file of them may say, and how they stand beside ours."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from conftest import OWN
from test_report_tables import PAIR, cells, frame, three_seeds, trial

from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS
from kdbench.report import compare, terminal_tables, write_report
from kdbench.report.formats.latex import to_latex
from kdbench.report.formats.render import to_csv, to_markdown
from kdbench.report.published_numbers import OPTIONAL, REQUIRED, read_published, shipped_numbers
from kdbench.report.tables.published import published_table
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite

load_shipped()

LINE = {
    "dataset": "cifar10",
    "teacher": PAIR[0],
    "student": PAIR[1],
    "method": "kd",
    "value": "92.5",
    "quantity": "top-1 accuracy %",
    "selection": "last epoch",
    "source": "Some paper (table 1)",
}
RESULTS = three_seeds(scratch=(8.0, 8.2, 8.4), kd=(7.5, 7.8, 7.8), at=(7.6, 7.7, 7.9))


def write(*changes: dict[str, str], columns: tuple[str, ...] = (*REQUIRED, *OPTIONAL), name: str = "mine.csv") -> Path:
    """A file with a line for each of `changes` to `LINE`, in the current directory."""
    file = Path(name)
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**LINE, **change} for change in changes)
    return file


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def table(*changes: dict[str, str], results: pd.DataFrame = RESULTS, pairs=(PAIR,)):
    return published_table(compare(results, pairs=list(pairs)), read_published([write(*changes)]))


def note(found, start: str) -> str:
    """The one note that starts like this, without that start."""
    (text,) = [text for text in found.notes if text.startswith(start)]
    return text.removeprefix(start)


# What is read


def test_an_accuracy_becomes_an_error():
    (number,) = read_published([write({})]).to_dict("records")
    assert (number["error_pct"], number["method"], number["source"]) == (7.5, "kd", "Some paper (table 1)")


def test_an_error_stays_one_and_a_spread_is_kept():
    (number,) = read_published([write({"value": "7.25", "quantity": "top-1 error %, std 0.3"})]).to_dict("records")
    assert (number["error_pct"], number["std"]) == (7.25, 0.3)


def test_epochs_and_notes_may_be_left_out():
    (number,) = read_published([write({}, columns=REQUIRED)]).to_dict("records")
    assert (number["epochs"], number["note"]) == (None, "")


BAD = [
    ({"method": "kdd"}, f"unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}"),
    ({"method": "at+kdd"}, f"unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}"),
    (
        {"method": "kd (temperature)"},
        "'temperature' is no parameter of kd. Write `METHOD (NAME=VALUE)`, or `PART.NAME=VALUE` of a sum.",
    ),
    (
        {"method": "at+kd (alpha=1)"},
        "'alpha=1' is no parameter of at+kd. Write `METHOD (NAME=VALUE)`, or `PART.NAME=VALUE` of a sum.",
    ),
    ({"method": "kd (temprature=1)"}, "kd, temprature: unknown key. Did you mean 'temperature'?"),
    ({"method": "kd (temperature=0)"}, "kd, temperature: must be greater than 0 (got 0)."),
    ({"student": "resnet-20"}, f"unknown model 'resnet-20'. Did you mean 'resnet20'? See `kdbench list models`{OWN}"),
    ({"value": "92,5"}, "value '92,5' is not a number. Write it in percent, such as 74.92."),
    ({"value": "nan"}, "value nan is not a percentage. Write it in percent, such as 74.92."),
    ({"value": "925"}, "value 925 is not a percentage. Write it in percent, such as 74.92."),
    ({"value": "0.925"}, "value 0.925 is an accuracy of 0.925 %. It looks like a fraction. Write it in percent, such as 74.92."),
    ({"value": ""}, "value is empty. Fill it in, or remove the line."),
    ({"quantity": "accuracy"}, "quantity 'accuracy' is unknown. Write `top-1 accuracy %` or `top-1 error %`."),
    ({"epochs": "many"}, "epochs 'many' is not a whole number. Leave it empty where it is not known."),
    (
        {"quantity": "top-1 error %", "value": "7.5"},
        "'Some paper (table 1)' gives accuracy above and error here. Write all its numbers as one of them.",
    ),
    ({"method": "at"}, "this number is already in mine.csv, line 2. Remove one of them."),
    ({"method": "at", "dataset": "CIFAR-10"}, "this number is already in mine.csv, line 2. Remove one of them."),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_mistake_is_told_with_its_file_and_line(change, message):
    with pytest.raises(KdbenchError) as error:
        read_published([write({"method": "at"}, change)])
    assert str(error.value) == f"mine.csv, line 3: {message}"


def test_one_number_in_two_files():
    with pytest.raises(KdbenchError, match=r"^other\.csv, line 2: this number is already in mine\.csv, line 2\."):
        read_published([write({}), write({}, name="other.csv")])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            REQUIRED[1:-1],
            f"mine.csv, line 1: no column dataset, source. The first line names {','.join(REQUIRED)}.",
        ),
        (
            (*REQUIRED, "epoch"),
            "mine.csv, line 1: unknown column 'epoch'. Did you mean 'epochs'? Remove it, or call it `note`.",
        ),
    ],
)
def test_columns_that_are_missing_or_unknown(columns, message):
    Path("mine.csv").write_text(",".join(columns) + "\n")
    with pytest.raises(KdbenchError) as error:
        read_published([Path("mine.csv")])
    assert str(error.value) == message


def test_a_value_with_a_comma_that_was_not_quoted():
    Path("mine.csv").write_text(f"{','.join(REQUIRED)}\n{','.join(LINE.values())},table 2\n")
    with pytest.raises(KdbenchError, match=r"^mine\.csv, line 2: more values than columns\. Quote a value that has commas\.$"):
        read_published([Path("mine.csv")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", r"^mine\.csv is no CSV \(.+\)\. Give a text file with commas, in UTF-8\.$"),
        (None, r"^mine\.csv cannot be read \(No such file or directory\)\. Give a CSV file of published numbers\.$"),
    ],
)
def test_a_file_that_cannot_be_read(content, message):
    if content:
        Path("mine.csv").write_bytes(content)
    with pytest.raises(KdbenchError, match=message):
        read_published([Path("mine.csv")])


# What ships


def test_what_ships_is_read_and_names_source_selection_and_quantity():
    found = read_published([shipped_numbers()])
    assert found["source"].str.contains(r"\(.+\)$").all()
    assert set(found["dataset"]) == {"cifar10", "cifar100", "imagenet", "tiny-imagenet"}
    assert {part for method in found["method"] for part in method.split("+")} <= {"teacher", *METHODS.names()}


def test_no_shipped_number_is_lost():
    """Rows that went missing would leave a cell empty, which nobody would notice."""
    found = read_published([shipped_numbers()])
    assert found.groupby(["source", "dataset"]).size().to_dict() == {
        ("RepDistiller (README at commit b84f547, CIFAR-100 tables)", "cifar100"): 188,
        ("mdistiller (README at commit a08d46f)", "cifar100"): 10,
        ("mdistiller (README at commit a08d46f)", "imagenet"): 4,
        ("DIST's authors (README)", "cifar100"): 6,
        ("KD-Zoo (README at commit 65470c8)", "cifar10"): 6,
        ("KD-Zoo (README at commit 65470c8)", "cifar100"): 6,
        ("torchdistill (docs table imagenet-resnet18_kd.tsv)", "imagenet"): 12,
        ("methods' papers (as the docs of torchdistill quote them, table imagenet-resnet18_kd.tsv)", "imagenet"): 8,
        ("ITRD's authors (README at commit 5d08c6b)", "cifar100"): 13,
        ("ReviewKD (as ITRD's authors quote it, README at commit 5d08c6b)", "cifar100"): 11,
        ("TTM's authors (README at commit 2de9060)", "cifar100"): 52,
        ("TTM's authors (README at commit 2de9060)", "imagenet"): 3,
        ("ITRD (as TTM's authors quote it, README at commit 2de9060)", "cifar100"): 5,
        ("DIST (as TTM's authors quote it, README at commit 2de9060)", "cifar100"): 8,
        ("DKD (as TTM's authors quote it, README at commit 2de9060)", "cifar100"): 2,
        ("authors of logit standardisation (README at commit 07356ad)", "cifar100"): 56,
        ("DKD (as the authors of logit standardisation quote it, README at commit 07356ad)", "cifar100"): 7,
        ("CTKD (as the authors of logit standardisation quote it, README at commit 07356ad)", "cifar100"): 8,
        ("ICKD's authors (Cifar100/README at commit 107935f)", "cifar100"): 14,
        ("CTKD's authors (README at commit 0879a83)", "cifar100"): 6,
        ("CTKD's authors (README at commit 0879a83)", "imagenet"): 2,
        ("NKD's authors (nkd.md of cls_KD at commit 08a5ddd)", "imagenet"): 4,
        ("DIST's authors (README at commit 06af3f6)", "imagenet"): 27,
        **{
            (f"{name} (as TTM's authors quote it, README at commit 2de9060)", "imagenet"): count
            for names, count in (("ITRD CTKD", 1), ("CRD SRRL ReviewKD DKD DIST KD++ NKD", 2), ("KD", 3))
            for name in names.split()
        },
        ("MLKD (as the authors of logit standardisation quote it, README at commit 07356ad)", "cifar100"): 14,
        ("NORM's authors (README at commit c6dfc39)", "cifar100"): 52,
        ("NORM's authors (README at commit c6dfc39)", "imagenet"): 2,
        ("papers that NORM's authors quote (README at commit c6dfc39)", "cifar100"): 21,
        ("papers that NORM's authors quote (README at commit c6dfc39)", "imagenet"): 19,
        ("DCD's authors (README of giakoumoglou/distillers at commit 3d7d68f)", "cifar100"): 13,
        ("WSLD's authors (README at commit 4726c82)", "imagenet"): 2,
        ("ICKD's authors (ImageNet/README at commit 107935f)", "imagenet"): 1,
        ("OFA's paper (as its authors say in issue 2 of Hao840/OFAKD)", "imagenet"): 1,
        ("OFA's authors (the checkpoint that they released, issue 2 of Hao840/OFAKD)", "imagenet"): 1,
        ("WKD's authors (README of JiamingLv/WKD)", "imagenet"): 6,
        ("WKD's authors (README of JiamingLv/WKD)", "cifar100"): 6,
        ("KD (as the authors of logit standardisation quote it, README at commit 07356ad)", "cifar100"): 4,
        ("KD (as CTKD's authors quote it, README at commit 0879a83)", "cifar100"): 1,
        ("authors of logit standardisation (tiny-transformers/README at commit 16edbcc)", "cifar100"): 4,
        ("SSKD's authors (README at commit 661b972)", "cifar100"): 132,
        ("SimKD's authors (README at commit 2b389c3)", "cifar100"): 26,
        ("SKD's authors (README of HyunJunSik/StreamLined at commit 0e1ede7)", "cifar100"): 72,
        ("authors of spot-adaptive KD (README of zju-vipa/spot-adaptive-pytorch at commit 2cc304d)", "cifar100"): 82,
        ("authors of spot-adaptive KD (README of zju-vipa/spot-adaptive-pytorch at commit 2cc304d)", "tiny-imagenet"): 52,
    }


def test_numbers_of_one_setting_of_a_method_name_its_parameters():
    found = read_published([shipped_numbers()])
    named = found[found["params"] != "{}"].groupby(["method", "params"]).size()
    assert named.to_dict() == {
        **{(name, f'{{"{name}": {{"standardized": true}}}}'): 14 for name in ("ctkd", "dkd", "mlkd")},
        ("ttm", '{"ttm": {"weighted": true}}'): 16,
        **{(name, '{"ttm": {"weighted": true}}'): 13 for name in ("crd+ttm", "itrd+ttm")},
        **{("simkd", f'{{"simkd": {{"factor": {factor}}}}}'): 2 for factor in (4, 8)},
        ("srrl+kd", '{"srrl": {"form": "pooled"}}'): 2,
    }


def test_a_number_for_parameters_stands_beside_trials_that_have_them_and_no_other():
    results = frame(
        *RESULTS[RESULTS["method"] == "scratch"].to_dict("records"),
        *(trial("dkd", seed, 7.5, params={"beta": 2.0}) for seed in (1, 2, 3)),
        *(trial("dkd", seed, 7.4, params={"beta": 2.0, "standardized": True}) for seed in (1, 2, 3)),
    )
    numbers = ({"method": "dkd"}, {"method": "dkd (standardized=true)", "value": "93"}, {"method": "dkd", "source": "Plain"})
    found = table(*numbers, results=results)
    assert {row.cells[0].text: [cell.text for cell in row.cells[2:]] for row in found.rows if "DKD" in row.cells[0].text} == {
        "DKD": ["7.50 (+0.00)", "7.50 (+0.00)"],
        "DKD (standardized=True)": ["7.00 (+0.40)", "—"],
    }
    (plain,) = [row for row in table({"method": "dkd"}, results=results).rows if row.cells[0].text == "DKD (standardized=True)"]
    assert plain.cells[2].text == "7.50 (-0.10)", "as before where no number is for parameters"


def test_a_part_of_a_sum_has_parameters_of_its_own():
    (number,) = read_published([write({"method": "crd+ttm (crd.beta=0.8, ttm.weighted=true)"})]).to_dict("records")
    assert (number["method"], number["params"]) == ("crd+ttm", '{"crd": {"beta": 0.8}, "ttm": {"weighted": true}}')


def test_a_number_that_ttms_authors_quote_is_of_no_known_epoch():
    found = read_published([shipped_numbers()])
    quoted = found[found["source"].str.contains("as TTM's authors quote it")]
    assert set(quoted["selection"]) == {"epoch not stated"}
    assert quoted.set_index("method")["note"]["ctkd"] == "the README of CTKD's authors says 71.32"


def test_the_second_pair_of_imagenet_tables_has_numbers_for_the_methods_of_its_suite():
    found = read_published([shipped_numbers()])
    here = found[(found["teacher"] == "torchvision/resnet50") & (found["student"] == "timm/mobilenetv1_100")]
    assert {t.method for t in load_suite("imagenet").trials if t.teacher} <= set(here["method"])
    assert here["note"].str.contains("a MobileNet other than timm's").all()


@pytest.mark.parametrize(("suite", "method", "pairs"), [("vit-cifar100", "kd_standardized", 2), ("ofa-imagenet", "ofa", 1)])
def test_the_suites_of_transformers_find_the_numbers_of_their_authors(suite, method, pairs):
    """By their labels, as a report does: a teacher's size and weights stand in parentheses there."""
    places, results = load_suite(suite).pairs, []
    for pair in places:
        results.append(trial(method, 0, 25.0, pair=pair, dataset="CIFAR-100" if suite == "vit-cifar100" else "ImageNet"))
    found = published_table(compare(frame(*results), pairs=list(places)), read_published([shipped_numbers()]))
    numbers = [any("published" in cell.values for cell in row.cells[3:]) for row in found.rows if row.cells[1].text != "teacher"]
    assert len(numbers) == len(places)
    assert sum(numbers) == pairs


@pytest.mark.parametrize("sources", [("DIST's authors (README)", "DIST (as TTM's"), ("ITRD's authors", "ITRD (as TTM's")])
def test_sources_that_contradict_each_other_both_stand_there(sources):
    found = read_published([shipped_numbers()])
    ours, theirs = (
        found[found["source"].str.startswith(source) & (found["dataset"] == "cifar100")].set_index(["teacher", "student"])
        for source in sources
    )
    both = ours.join(theirs["error_pct"].rename("other"), how="inner")
    assert (both["error_pct"] != both["other"]).all()
    assert len(both)


def test_kd_zoos_fitnet_stands_beside_the_one_stage_hint_and_says_how_it_differs():
    found = read_published([shipped_numbers()])
    rows = found[found["source"].str.startswith("KD-Zoo") & found["method"].str.startswith("fitnets")]
    assert list(zip(rows["dataset"], rows["method"], rows["error_pct"], strict=True)) == [
        ("cifar10", "fitnets_hint", 6.96),
        ("cifar100", "fitnets_hint", 30.19),
    ]
    assert set(rows["note"]) == {"the last group, without a regressor, another weight"}


def test_ft_of_the_crd_benchmark_is_not_factor_transfer():
    found = read_published([shipped_numbers()])
    of_benchmark = found[found["source"].str.startswith("RepDistiller")]
    assert {"ft_repdistiller", "fitnets_hint"} <= set(of_benchmark["method"])
    assert not {"ft", "fitnets"} & set(of_benchmark["method"])


BENCHMARK = ("RepDistiller", "mdistiller", "DIST's authors")
"""The sources whose methods the suites of the CRD benchmark have."""


@pytest.mark.parametrize(("suite", "pairs"), [("crd-same", 7), ("crd-cross", 6)])
def test_the_suites_of_the_crd_benchmark_have_a_number_for_every_published_method(suite, pairs):
    """A name that is spelt differently in the suite and in the file would leave its cells empty."""
    loaded, found = load_suite(suite), read_published([shipped_numbers()])
    assert len(loaded.pairs) == pairs
    for pair in loaded.pairs:
        teacher, student = (label.partition(" (")[0] for label in pair)  # whatever points of them are read
        here = found[(found["dataset"] == "cifar100") & (found["teacher"] == teacher) & (found["student"] == student)]
        here = here[here["source"].str.startswith(BENCHMARK)]
        ours = {t.method for t in loaded.trials if t.student == student and (not t.teacher or t.teacher.student == teacher)}
        assert len(here) >= 13
        assert set(here["method"]) <= {"teacher", *ours}


# Beside ours


def test_a_published_number_stands_in_a_column_of_its_source_with_the_difference_of_ours():
    found = table({}, {"method": "at", "value": "92.0", "source": "Other"})
    assert found.columns == ("Method", "Ours", "Some paper", "Other")
    kd = next(cells(found, row) for row in range(4) if cells(found, row)["Method"] == "KD")
    assert kd == {"Method": "KD", "Ours": "7.70 ± 0.17", "Some paper": "7.50 (+0.20)", "Other": "—"}
    assert [row.cells[0].text for row in found.rows] == ["teacher", "scratch", "KD", "AT"]


def test_the_teachers_number_stands_in_a_row_of_its_own():
    found = table({"method": "teacher", "value": "94.0"})
    assert cells(found) == {"Method": "teacher", "Ours": "6.28", "Some paper": "6.00 (+0.28)"}


def test_a_spread_is_shown():
    assert cells(table({"quantity": "top-1 accuracy %, std 0.24"}), 2)["Some paper"] == "7.50 ± 0.24 (+0.20)"


def test_a_number_that_we_have_not_repeated_stands_there_without_a_difference():
    results = frame(*RESULTS.to_dict("records"), trial("ft", 1, None))
    found = table({"method": "ft"}, results=results)
    assert (cells(found, 4)["Ours"], cells(found, 4)["Some paper"]) == ("—", "7.50")


def test_the_order_of_a_compositions_parts_does_not_count():
    found = table({"method": "kd+at"}, results=three_seeds(**{"at+kd": (7.5, 7.5, 7.5)}))
    assert cells(found, 1)["Some paper"] == "7.50 (+0.00)"


def test_each_pair_has_its_own_numbers():
    other = ("resnet110", "resnet32")
    results = frame(*RESULTS.to_dict("records"), *(trial("kd", seed, 6.0, pair=other) for seed in range(3)))
    found = table({}, {"student": other[1], "teacher": other[0], "value": "94.5"}, results=results, pairs=(PAIR, other))
    shown = [(row.keys["student"], row.cells[-1].text) for row in found.rows if row.keys["method"] == "KD"]
    assert shown == [("resnet20", "7.50 (+0.20)"), ("resnet32", "5.50 (+0.50)")]


def test_no_number_at_all_is_an_error_that_names_the_file_and_the_pairs():
    with pytest.raises(KdbenchError) as error:
        table({"student": "resnet32"})
    assert str(error.value) == (
        "mine.csv has no number for any method of this report (resnet56 → resnet20 on cifar10). Leave it out, or give a file of "
        "your own with --published-csv."
    )


def test_every_file_that_was_asked_for_must_say_something():
    found = read_published([write({}), write({"student": "resnet32"}, name="other.csv")])
    with pytest.raises(KdbenchError, match=r"^other\.csv has no number"):
        published_table(compare(RESULTS, pairs=[PAIR]), found)


# What a reader is told of the protocols


def test_a_protocol_like_ours_is_called_so():
    assert note(table({"epochs": "4"}), "Some paper (table 1): ") == "last epoch, as ours; 4 epochs, as ours."


def test_the_best_test_epoch_is_told_with_what_it_would_give_us():
    told = note(table({"selection": "best epoch on test"}), "Some paper (table 1): ")
    assert told == (
        "best epoch on test, where ours is the last epoch (with the same choice, ours would be 0.50 points lower on average); "
        "epochs not known."
    )


def test_students_that_were_not_tested_after_every_epoch_have_no_best_test_epoch_to_compare():
    told = note(table({"selection": "best epoch on test"}, results=RESULTS.assign(evaluate_every=2)), "Some paper (table 1): ")
    assert told == "best epoch on test, where ours is the last epoch; epochs not known."


def test_another_length_of_training_is_told():
    assert "; 240 epochs, ours 4." in note(table({"epochs": "240"}), "Some paper (table 1): ")


def test_notes_stand_under_the_table_with_the_methods_they_are_of():
    found = table({"note": "T 3"}, {"method": "at", "note": "T 3"}, {"method": "scratch"})
    assert found.notes[-1].endswith(" KD, AT: T 3.")


def test_each_part_of_a_note_stands_once_with_all_methods_it_is_of():
    found = table({"note": "T 3; no flips"}, {"method": "at", "note": "no flips"})
    assert found.notes[-1].endswith(" KD: T 3. KD, AT: no flips.")


@pytest.mark.parametrize("label", ["CIFAR-10 (JPEG)", "cifar10 (12,000 training images)", "cifar10 (10 % held out)"])
def test_other_images_of_the_same_data_set_are_told(label):
    found = table({}, results=RESULTS.assign(dataset=label))
    assert cells(found, 2)["Some paper"] == "7.50 (+0.20)"
    assert f"Our numbers are on {label}. The published numbers are not." in found.notes


def test_a_network_keeps_its_numbers_whatever_weights_it_starts_from():
    pair = ("resnet56 (weights 1a2b3c4d)", "resnet20")
    results = frame(*(trial("kd", seed, 7.7, pair=pair) for seed in range(3)))
    assert cells(table({}, results=results, pairs=(pair,)), 1)["Some paper"] == "7.50 (+0.20)"


def test_a_method_in_several_settings_has_the_number_beside_each():
    results = frame(*(trial("ft", seed, 7.5, params={"k": k}) for k in (1, 2) for seed in range(3)))
    found = table({"method": "ft"}, results=results)
    assert [row.cells[-1].text for row in found.rows] == ["—", "7.50 (+0.00)", "7.50 (+0.00)"]
    assert "FT (k=1), FT (k=2): the same published number is shown for each." in found.notes


def test_no_difference_is_called_significant():
    assert "no test" in table({}).notes[0]


# In every format


def test_it_is_written_in_every_format():
    published = read_published([write({})])
    files = write_report(
        compare(RESULTS, pairs=[PAIR]),
        pd.DataFrame(),
        title="T",
        directory=Path("out"),
        formats=["md", "tex", "csv"],
        published=published,
    )
    assert Path("out/published.csv") in files
    assert "| KD | 7.70 ± 0.17 | 7.50 (+0.20) |" in Path("out/report.md").read_text()
    assert r"KD & 7.70 $\pm$ 0.17 & 7.50 (+0.20) \\" in Path("out/tables.tex").read_text()
    (line,) = [row for row in csv.DictReader(Path("out/published.csv").read_text().splitlines()) if row["published"]]
    assert (line["method"], line["column"], line["published"]) == ("KD", "Some paper", "7.5")
    assert float(line["ours_minus_published"]) == pytest.approx(0.2)


def test_a_difference_below_0_has_a_minus_in_latex():
    assert r"KD & 7.70 $\pm$ 0.17 & 8.00 ($-$0.30) \\" in to_latex(table({"value": "92"}))


def test_it_is_printed_on_a_terminal(capsys):
    from rich.console import Console

    Console(width=100).print(
        terminal_tables(compare(RESULTS, pairs=[PAIR]), title="T", width=100, published=read_published([write({})]))
    )
    assert "7.50 (+0.20)" in capsys.readouterr().out


def test_without_published_numbers_a_report_has_no_such_table():
    write_report(compare(RESULTS, pairs=[PAIR]), pd.DataFrame(), title="T", directory=Path("out"), formats=["md", "csv"])
    assert "published" not in Path("out/report.md").read_text()
    assert not Path("out/published.csv").exists()


def test_a_long_table_is_not_turned_however_many_columns_it_has():
    pairs = [(f"wrn_{10 + 6 * i}_2", f"wrn_{10 + 6 * i}_1") for i in range(6)]
    results = frame(*(trial("kd", seed, 7.0, pair=pair) for pair in pairs for seed in range(2)))
    lines = [{"teacher": t, "student": s, "source": f"Source {i}"} for i in range(8) for t, s in pairs]
    found = table(*lines, results=results, pairs=pairs)
    assert max(line.count(" & ") for line in to_latex(found).splitlines()) == len(found.columns) - 2, "pairs stand over their rows"
    assert to_markdown(found).splitlines()[2].startswith("| Pair | Method | Ours |")
    assert "wrn_10_2,wrn_10_1,KD,Source 7" in to_csv(found)
