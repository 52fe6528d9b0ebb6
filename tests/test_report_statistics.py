"""What a report says of chance: intervals over images, ranks over pairs, and tables on request."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_report_tables import PAIR, RESULTS, cells, frame, three_seeds, trial

from kdbench.errors import KdbenchError
from kdbench.report import ReportOptions, compare, terminal_tables, to_latex, write_report
from kdbench.report.claims import claims
from kdbench.report.formats.render import to_csv
from kdbench.report.page.html_table import html_table
from kdbench.report.tables.class_errors import class_errors_table, confusions_table
from kdbench.report.tables.gains import gain_table
from kdbench.report.tables.pairwise import pairwise_table
from kdbench.report.tables.ranks import profile_table, ranks_table, win_tie_loss_table
from kdbench.report.tables.results import result_table
from kdbench.report.tables.shared_errors import beside_teacher_table, shared_errors_table
from kdbench.results.outcomes import Outcomes

IMAGES = 2000


def outcomes_of(wrong: np.ndarray, fingerprint: str = "d") -> Outcomes:
    labels = np.zeros(len(wrong), np.int64)
    return Outcomes.of(labels, wrong.astype(np.int64), num_classes=2, data_fingerprint=fingerprint)


def with_outcomes(results: pd.DataFrame, *, options: ReportOptions | None = None):
    """A comparison whose students get as many images wrong as the frame says: those that are hard for all, and for the method."""
    known = {}
    for row in results.itertuples():
        of_method = np.random.default_rng(len(row.method)).normal(scale=40, size=IMAGES)
        order = np.argsort(np.arange(IMAGES) + of_method + np.random.default_rng(row.seed).normal(scale=5, size=IMAGES))
        known[row.trial] = outcomes_of(np.isin(np.arange(IMAGES), order[: round(row.test_error_pct / 100 * IMAGES)]))
    known["teacher"] = outcomes_of(np.arange(IMAGES) < 100)
    compared = compare(results.assign(teacher_trial="teacher"), pairs=[PAIR], options=options or ReportOptions())
    return compared.with_outcomes(known)


# Intervals over images


def test_with_outcomes_each_gain_has_a_second_interval_that_is_wider():
    table = gain_table(with_outcomes(RESULTS))
    assert table.columns[2:] == ("95 % interval,\nnew seeds", "95 % interval,\nnew seeds and images", "n")
    for row in table.rows:
        values = row.cells[1].values
        assert values["low_with_images"] < values["low"] < values["mean"] < values["high"] < values["high_with_images"]
    assert any(note.startswith("New seeds: with the same test images. New seeds and images: ") for note in table.notes)
    (claim,) = claims(with_outcomes(RESULTS))
    assert "over new seeds, " in claim
    assert "over new seeds and images, n = 3" in claim


def test_a_gain_that_other_images_might_undo_is_said_to_be_one():
    clear = three_seeds(scratch=(8.0, 8.1, 8.2), kd=(7.8, 7.9, 8.0), at=(7.9, 8.0, 8.15))
    (claim,) = claims(with_outcomes(clear))
    assert claim.endswith("n = 3, which may be chance with other images.")


def test_accuracies_have_both_intervals_and_other_metrics_the_first():
    error, accuracy = (gain_table(with_outcomes(RESULTS, options=ReportOptions(metric=name))) for name in ("error", "accuracy"))
    for one, other in zip(error.rows, accuracy.rows, strict=True):
        assert one.cells[1].values == pytest.approx(other.cells[1].values)


def test_a_trial_without_outcomes_leaves_its_methods_second_interval_out():
    compared = with_outcomes(RESULTS)
    (missing,) = RESULTS.loc[(RESULTS["method"] == "at") & (RESULTS["seed"] == 2), "trial"]
    table = gain_table(compared.with_outcomes({name: one for name, one in compared.outcomes.items() if name != missing}))
    assert [cells(table, row)["95 % interval,\nnew seeds and images"] == "—" for row in range(2)] == [False, True]


# All pairs of methods


def test_all_pairs_of_methods_the_better_one_first():
    table = pairwise_table(compare(RESULTS, pairs=[PAIR]))
    assert [(cells(table, row)["Better"], cells(table, row)["Than"]) for row in range(3)] == [
        ("KD", "scratch"),
        ("AT", "scratch"),
        ("KD", "AT"),
    ]
    assert cells(table, 2)["Difference (points)"] == "+0.03"
    assert "Tukey's for all pairs of methods together" in table.notes[1]
    rows = pd.read_csv(pd.io.common.StringIO(to_csv(table)))
    assert rows[["method", "over", "n"]].to_numpy().tolist() == [["KD", "scratch", 3], ["AT", "scratch", 3], ["KD", "AT", 3]]


# Several pairs

PAIRS = [(f"resnet{depth}", "resnet20") for depth in (32, 44, 56, 110, 164)]


def several(pairs: int = 5) -> pd.DataFrame:
    """KD is a point better than scratch in each pair, FT two, give or take a little for each seed."""
    rows = [trial("scratch", seed, 9 + 0.1 * seed) for seed in (1, 2, 3, 4, 5)]
    for (number, pair), (method, gain), seed in itertools.product(
        enumerate(PAIRS[:pairs]), (("kd", 1.0), ("ft", 2.0)), (1, 2, 3, 4, 5)
    ):
        error = 9 + 0.1 * seed - gain + 0.02 * ((seed * 7 + number) % 5)
        rows.append(trial(method, seed, error, pair=pair, teacher_weights_sha256=pair[0]))
    return frame(*rows)


def test_ranks_stand_in_a_report_of_several_pairs():
    table = ranks_table(compare(several(), pairs=PAIRS))
    assert [cells(table, row) for row in range(3)] == [
        {
            "Method": "FT",
            "Mean rank": "1.00",
            "Better / level /\nworse than scratch": "5 / 0 / 0",
            "Relative improvement\nover KD (%)": "+104.2",
        },
        {
            "Method": "KD",
            "Mean rank": "2.00",
            "Better / level /\nworse than scratch": "5 / 0 / 0",
            "Relative improvement\nover KD (%)": "—",
        },
        {
            "Method": "scratch",
            "Mean rank": "3.00",
            "Better / level /\nworse than scratch": "—",
            "Relative improvement\nover KD (%)": "—",
        },
    ]
    assert "Friedman's test that no method ranks better than another: p = 0.0067." in table.notes[0]
    assert "Nemenyi's critical difference" in table.notes[0]


@pytest.mark.parametrize(("students", "told"), [("aaaaa", True), ("abcde", False), ("abcda", True)])
def test_pairs_that_share_a_student_are_said_not_to_be_independent(students, told):
    pairs = [("resnet56", student) for student in students]
    pairs = [(f"{teacher}_{place}", student) for place, (teacher, student) in enumerate(pairs)]
    rows = [
        trial(method, seed, error + 0.1 * seed, pair=pair, **({"teacher_weights_sha256": pair[0]} if method != "scratch" else {}))
        for pair in pairs
        for method, error in (("scratch", 9.0), ("kd", 8.0), ("ft", 7.0))
        for seed in (1, 2, 3)
    ]
    results = frame(*rows).drop_duplicates("trial")
    table = ranks_table(compare(results, pairs=pairs))
    assert "Friedman's test" in table.notes[0]
    assert any("share a student" in note for note in table.notes) == told


def test_ranks_of_two_pairs_are_not_tested_and_of_one_are_none():
    assert "not tested" in ranks_table(compare(several(2), pairs=PAIRS[:2])).notes[0]
    assert ranks_table(compare(several(1), pairs=PAIRS[:1])) is None


@pytest.mark.parametrize("baseline", ["scratch", "ft"])
def test_an_improvement_over_a_gain_that_may_be_chance_is_marked(baseline):
    results, options = several(2), ReportOptions(baseline=baseline)
    kd = (results["method"] == "kd") & (results["teacher"] == PAIRS[0][0])
    results.loc[kd, "test_error_pct"] = [9.4, 8.8, 9.6, 9.0, 9.6]  # scratch has 9.1 to 9.5
    table = ranks_table(compare(results, pairs=PAIRS[:2], options=options))
    [marked] = [row.cells[-1].plain for row in table.rows if row.cells[0].text == "FT"]
    assert marked.endswith("†")
    told = (
        "† It divides by a gain of KD over scratch that may be chance, so that it may be of any size: resnet32 → resnet20 (+0.02 "
    )
    assert any(note.startswith(told) for note in table.notes)
    for style in ("table", "tabular"):
        latex = to_latex(table, options=ReportOptions(latex=style))
        assert r"\rlap{$^{\dagger}$}" in latex and r"$\dagger$ It divides by a gain of KD" in latex
    sure = ranks_table(compare(several(2), pairs=PAIRS[:2], options=options))
    assert not any("†" in note for note in sure.notes) and not any(row.cells[-1].mark for row in sure.rows)
    results.loc[kd, "test_error_pct"] += 0.3  # a pair in which KD gains nothing is left out, as the note says
    assert not any(row.cells[-1].mark for row in ranks_table(compare(results, pairs=PAIRS[:2], options=options)).rows)


def test_pairs_without_an_interval_are_not_counted_as_level():
    results = several(3)
    few = results[(results["teacher"] != PAIRS[0][0]) | (results["seed"] < 3)]
    table = ranks_table(compare(few, pairs=PAIRS[:3]))
    assert [row.cells[2].text for row in table.rows] == ["2 / 0 / 0", "2 / 0 / 0", "—"]
    told = "A pair in which two methods share fewer than 3 seeds has no interval of them, and is not counted."
    assert told in table.notes and told in win_tie_loss_table(compare(few, pairs=PAIRS[:3])).notes
    assert told not in ranks_table(compare(results, pairs=PAIRS[:3])).notes


def test_ranks_of_an_accuracy_are_those_of_the_error():
    error, accuracy = (
        ranks_table(compare(several(), pairs=PAIRS, options=ReportOptions(metric=name))) for name in ("error", "accuracy")
    )
    assert [cells(error, row) for row in range(3)] == [cells(accuracy, row) for row in range(3)]


def test_wins_and_the_profile_over_pairs():
    compared = compare(several(), pairs=PAIRS)
    table = win_tie_loss_table(compared)
    assert [cells(table, row) for row in (1, 2)] == [
        {"Method": "KD", "scratch": "5 / 0 / 0", "KD": "—", "FT": "0 / 0 / 5"},
        {"Method": "FT", "scratch": "5 / 0 / 0", "KD": "5 / 0 / 0", "FT": "—"},
    ]
    profile = profile_table(compared)
    assert cells(profile) == {"Factor": "1.000", "scratch": "0.00", "KD": "0.00", "FT": "1.00"}
    assert profile_table(compare(several(), pairs=PAIRS, options=ReportOptions(metric="accuracy"))) is None


def test_procedures_of_pairs_are_told_once_where_they_are_the_same():
    notes = [note for note in gain_table(compare(several(), pairs=PAIRS)).notes if note.startswith("95 % intervals")]
    assert notes == ["95 % intervals: Dunnett's for 2 comparisons with scratch together, seeds as blocks, 8 degrees of freedom."]


# Shared errors


def test_shared_errors_and_errors_beside_the_teacher():
    compared = with_outcomes(RESULTS)
    table = shared_errors_table(compared)
    one, other = (compared.outcomes[f"{name}-{PAIR[0]}-1-4"].wrong for name in ("kd", "at"))
    values = {row.keys["method"]: row.cells for row in table.rows}
    assert [cell.text for cell in values["KD"]][:3:2] == ["KD", "100.0"]
    assert 0 < values["KD"][3].values["share_pct"] < 100
    assert (one & other).sum() <= one.sum()
    beside = beside_teacher_table(compared)
    assert beside.columns == ("Method", "Lost (%)", "Corrected (%)")
    assert len(beside.rows) == 3
    foreign = compared.with_outcomes(compared.outcomes | {"teacher": outcomes_of(np.zeros(IMAGES, bool), "other images")})
    assert beside_teacher_table(foreign) is None


@pytest.mark.parametrize("table", [shared_errors_table, beside_teacher_table])
def test_without_outcomes_there_are_no_shared_errors(table):
    assert table(compare(RESULTS, pairs=[PAIR])) is None


# On request


def test_further_tables_are_csv_files_and_printed_where_they_are_asked_for(tmp_path):
    asked = ReportOptions(tables=("shared_errors",))
    for number, options in enumerate((ReportOptions(), asked)):
        files = write_report(
            with_outcomes(RESULTS, options=options),
            pd.DataFrame(),
            title="t",
            directory=tmp_path / str(number),
            formats=["md", "csv"],
        )
        assert {"pairwise.csv", "shared_errors.csv", "beside_teacher.csv"} <= {file.name for file in files}
        assert ("Shared errors" in (tmp_path / str(number) / "report.md").read_text()) is (options is asked)


def test_a_teacher_of_which_there_are_several_trainings_is_a_factor():
    seeds = range(1, 7)
    rows = [trial("scratch", seed, 9 + 0.1 * seed) for seed in seeds]
    for method, gain in (("kd", 1.0), ("ft", 1.5)):
        rows += [
            trial(method, seed, 9 + 0.1 * seed - gain + (seed > 3) + 0.01 * (seed * 5 % 4), teacher_weights_sha256=str(seed > 3))
            for seed in seeds
        ]
    (note,) = (note for note in gain_table(compare(frame(*rows), pairs=[PAIR])).notes if "trainings of the teacher" in note)
    assert note.startswith("6 seeds learnt from 2 trainings of the teacher. The teacher's training makes 99 % of the variance")
    assert not any("trainings of the teacher" in note for note in gain_table(compare(RESULTS, pairs=[PAIR])).notes)
    measured = frame(*rows).assign(test_nll=lambda results: results["test_error_pct"].where(results["seed"] != 1))
    notes = gain_table(compare(measured, pairs=[PAIR], options=ReportOptions(metric="nll"))).notes
    assert any(note.startswith("5 seeds learnt from 2 trainings") for note in notes)
    assert (
        "In some pairs, different seeds learnt from different trainings of the teacher."
        in result_table(compare(frame(*rows), pairs=[PAIR])).notes
    )


def test_pairs_of_methods_have_mcnemars_p_where_outcomes_are_known():
    table = pairwise_table(with_outcomes(RESULTS))
    assert table.columns[-1] == "McNemar\np"
    values = [row.cells[-1].values["p"] for row in table.rows]
    assert all(0 <= p <= 1 for p in values)
    assert "McNemar\np" not in pairwise_table(compare(RESULTS, pairs=[PAIR])).columns


def test_errors_and_confusions_of_classes():
    seeds = [
        Outcomes.of(np.array([0, 0, 1, 1, 1]), np.array(predicted), num_classes=3, data_fingerprint="d")
        for predicted in ([0, 1, 1, 2, 2], [0, 0, 1, 1, 2], [0, 0, 1, 1, 1])
    ]
    trials = [f"kd-{PAIR[0]}-{seed}-4" for seed in (1, 2, 3)]
    compared = compare(RESULTS, pairs=[PAIR]).with_outcomes(dict(zip(trials, seeds, strict=True)))
    table = class_errors_table(compared)
    assert table.columns == ("Class", "KD")
    assert [[cell.text for cell in row.cells] for row in table.rows] == [["0", "16.7"], ["1", "33.3"], ["2", "—"]]
    confused = confusions_table(compared)
    assert [[cell.text for cell in row.cells] for row in confused.rows] == [["1", "2", "33.3"], ["0", "1", "16.7"]]
    assert all("Classes are numbered" in made.notes[-1] for made in (table, confused))
    called = compared.with_outcomes({trial: replace(one, classes=("cat", "dog", "ox")) for trial, one in compared.outcomes.items()})
    table, confused = class_errors_table(called), confusions_table(called)
    assert [(row.cells[0].text, row.keys["class"]) for row in table.rows] == [("cat", "0"), ("dog", "1"), ("ox", "2")]
    assert [[cell.text for cell in row.cells[:2]] for row in confused.rows] == [["dog", "ox"], ["cat", "dog"]]
    assert not [note for made in (table, confused) for note in made.notes if "numbered" in note]


def test_images_that_were_not_kept_are_counted():
    full = with_outcomes(RESULTS)
    some = full.with_outcomes({trial: kept for trial, kept in full.outcomes.items() if trial != f"kd-{PAIR[0]}-1-4"})
    for comparison, said in ((full, False), (some, True)):
        notes = " ".join(gain_table(comparison).notes)
        assert ("f 1 of 9 trials it is not known which images were wrong" in notes) is said
        assert (": it is not known" in notes) is False


@pytest.mark.parametrize(
    ("name", "metric", "why"),
    [
        ("win_tie_loss", "error", "it needs two pairs of networks or more, and here is one"),
        ("performance_profile", "error", "it needs two pairs"),
        ("shared_errors", "error", "it was not kept which test images were wrong"),
        ("beside_teacher", "error", "it was not kept which test images were wrong, or not of the teacher"),
        ("shared_errors", "nll", "it is of wrong images, and what is compared is the negative log-likelihood"),
        ("class_errors", "error", "it was not kept"),
        ("pairwise", "error", "no two methods have finished trials of one pair and seed"),
    ],
)
def test_a_table_that_is_asked_for_and_cannot_be_made_is_an_error(tmp_path, name, metric, why):
    results = RESULTS.assign(test_nll=0.3)
    results = results[results["method"] == "kd"] if name == "pairwise" else results
    comparison = compare(results, pairs=[PAIR], options=ReportOptions(metric=metric, tables=(name,)))
    with pytest.raises(KdbenchError, match=f"there is no table `{name}`, since {why}.*Leave it out"):
        write_report(comparison, pd.DataFrame(), title="t", directory=tmp_path / "report", formats=["md"])
    assert not (tmp_path / "report").exists()


def test_a_profile_of_accuracies_says_why_there_is_none():
    pairs = [PAIR, ("vgg13", "vgg8")]
    rows = [trial(method, seed, 8.0 + seed, pair=pair) for pair in pairs for method in ("scratch", "kd") for seed in (1, 2)]
    comparison = compare(frame(*rows), pairs=pairs, options=ReportOptions(metric="accuracy", tables=("performance_profile",)))
    with pytest.raises(KdbenchError, match="since a multiple of the test accuracy says little"):
        terminal_tables(comparison, title="t")


def test_intervals_and_counts_are_sorted_as_numbers_on_the_page():
    table = gain_table(compare(RESULTS, pairs=[PAIR]))
    for row, shown in zip(table.rows, html_table(table).rows, strict=True):
        values = row.cells[1].values
        assert [cell.key for cell in shown.cells] == [None, values["mean"], values["low"], values["n"]]
    assert "interval" not in to_csv(table), "the numbers stand once in the file"
