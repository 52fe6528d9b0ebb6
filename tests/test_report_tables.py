"""What may stand in one table, what a table says, and how it is written."""

import csv
import io
import json
import re
from dataclasses import replace
from math import nan

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from kdbench.docs.methods import shipped_methods
from kdbench.errors import KdbenchError
from kdbench.report import ReportOptions, terminal_tables, write_report
from kdbench.report.claims import claims
from kdbench.report.comparable import check_comparable
from kdbench.report.compare import compare
from kdbench.report.formats.latex import to_latex
from kdbench.report.formats.render import to_csv, to_markdown
from kdbench.report.notes import changed_parameters, footnotes
from kdbench.report.statistics.comparisons import against_baseline, all_pairs
from kdbench.report.tables.cells import short_count
from kdbench.report.tables.costs import cost_table
from kdbench.report.tables.gains import confidence_interval, gain_table
from kdbench.report.tables.results import best_epoch_table, result_table
from kdbench.report.tables.selection import selection_table
from kdbench.results.method_labels import method_labels
from kdbench.runner.frame import row_without_record
from kdbench.suite.resolve import load_suite

PAIR = ("resnet56", "resnet20")


def trial(method: str, seed: int, error: float | None, *, pair: tuple[str, str] = PAIR, params: dict | None = None, **changes):
    """One row of a results frame; `error` None is a trial that failed. Scratch has no teacher."""
    teacher = None if method == "scratch" else pair[0]
    return {
        "trial": f"{method}-{pair[0] if teacher else pair[1]}-{seed}-{len(str(params))}",
        "suite": "s",
        "dataset": "cifar10",
        "recipe": "short",
        "teacher": teacher,
        "student": pair[1],
        "method": method,
        "method_params": json.dumps({part: params or {} for part in method.split("+")}),
        "dataset_params": "{}",
        "seed": seed,
        "status": "failed" if error is None else "done",
        "reason": "the loss is nan" if error is None else None,
        "test_error_pct": error,
        "best_test_error_pct": error and error - 0.5,
        "best_epoch": 3,
        "validation_error_pct": None,
        "selected_test_error_pct": None,
        "selected_epoch": None,
        "epochs": 4,
        "evaluate_every": 1,
        "teacher_error_pct": teacher and 6.28,
        "teacher_params": teacher and 855_770,
        "teacher_macs": teacher and 125_750_000,
        "student_params": 272_474,
        "student_macs": 40_820_000,
        "extra_params": 0,
        "train_images_per_s": 1000.0 if teacher else 2000.0,
        "inference_images_per_s": 9000.0,
        "train_s": 20.0 if teacher else 10.0,
        "setting": method,
        "stage_epochs": 0,
        "notes": (),
        "stages": None,
        "teacher_inference_images_per_s": teacher and 3000.0,
        "precision": "fp32",
        "protocol": 1,
        "method_code": f"code of {method}",
        "data_fingerprint": "d",
        "core_code": "c",
        "teacher_weights_sha256": teacher and "w",
        "start_weights_sha256": "s",
        "environment": "torch 2.15, H100",
        "device": "cuda",
        "kdbench_version": "0.1.0",
        **changes,
    }


def frame(*rows) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def three_seeds(**errors: tuple[float | None, ...]) -> pd.DataFrame:
    """`scratch=(8.0, 8.1, 8.2), kd=...`: one trial for each error, seeds from 1."""
    return frame(*(trial(method, seed, error) for method, values in errors.items() for seed, error in enumerate(values, 1)))


NO_GAIN = "No gain over scratch is given{}, because scratch is not among the methods."

RESULTS = three_seeds(scratch=(8.0, 8.2, 8.4), kd=(7.5, 7.8, 7.8), at=(7.6, 7.7, 7.9))


def cells(table, row: int = 0) -> dict[str, str]:
    return {column: cell.text for column, cell in zip(table.columns, table.rows[row].cells, strict=True)}


def bold(table, row: int = 0) -> list[str]:
    return [column for column, cell in zip(table.columns, table.rows[row].cells, strict=True) if cell.bold]


# What may stand in one table


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("protocol", 2, "protocol versions"),
        ("teacher_weights_sha256", "another", "different teachers of one name of cifar10"),
        ("precision", "bf16", "precisions"),
        ("precision", "tf32 in convolutions", "precisions"),
        ("recipe", "long", "recipes of cifar10"),
        ("epochs", 164, "numbers of epochs of cifar10"),
        ("dataset_params", "grey", "settings of the data of cifar10"),
        ("data_fingerprint", "other", "versions of the data of cifar10"),
        ("method_code", "newer", "versions of the method's code of kd"),
    ],
)
def test_trials_that_differ_where_they_must_agree_are_refused(column, value, words):
    mixed = RESULTS.copy()
    mixed.loc[mixed["trial"] == "kd-resnet56-2-4", column] = value
    with pytest.raises(KdbenchError, match=f"one table cannot mix {words}: .*{value}") as refusal:
        result_table(compare(mixed, pairs=[PAIR]))
    assert re.search(r"(Report|Run|Choose) .*\.$", str(refusal.value))


def test_what_was_stacked_is_told_from_the_rest_by_its_recipe():
    mixed = RESULTS.assign(precision="fp32", recipe="short [aaaa]")
    mixed.loc[mixed["method"] == "kd", ["precision", "recipe"]] = "fp32, stacked", "short [bbbb]"
    told = r"cannot mix stacked trainings with others: fp32, recipe short \[aaaa\] .*; fp32, stacked, recipe short \[bbbb\] .*"
    with pytest.raises(KdbenchError, match=f"{told}Choose one with `recipes`"):
        check_comparable(mixed)
    chosen = compare(mixed, pairs=[PAIR], options=ReportOptions(recipes=("bbbb",)))
    assert set(chosen.results["method"]) == {"kd"}


def test_a_failed_trial_mixes_nothing():
    check_comparable(frame(*RESULTS.to_dict("records"), trial("ft", 1, None, precision="bf16")))


def test_each_data_set_has_its_own_recipe_epochs_and_fingerprint():
    other = {"dataset": "digits", "recipe": "long", "epochs": 9, "data_fingerprint": "e"}
    check_comparable(frame(trial("kd", 1, 7.0), trial("kd", 1, 2.0, **other)))


def test_two_trials_for_one_place_are_refused_by_name():
    with pytest.raises(KdbenchError, match=r"trials a and b have the same pair.*Leave one of them out\."):
        check_comparable(frame(trial("kd", 1, 7.0, trial="a"), trial("kd", 1, 7.1, trial="b")))
    with pytest.raises(KdbenchError, match="trials a and b"):
        check_comparable(frame(trial("scratch", 1, 7.0, trial="a"), trial("scratch", 1, 7.1, trial="b")))


def test_a_pair_without_trials_is_an_error():
    with pytest.raises(KdbenchError, match="no trial of the pair wrn_40_2 → wrn_16_1"):
        result_table(compare(RESULTS, pairs=[PAIR, ("wrn_40_2", "wrn_16_1")]))


# Names of methods


@pytest.mark.parametrize(
    ("method", "label"),
    [
        ("kd", "KD"),
        ("at+kd", "AT+KD"),
        ("fitnets", "FitNets"),
        ("fitnets_hint", "FitNets hint"),
        ("reviewkd", "ReviewKD"),
        ("scratch", "scratch"),
        ("my_own", "my_own"),
    ],
)
def test_methods_are_called_as_in_the_literature(method, label):
    assert list(method_labels(frame(trial(method, 1, 7.0)))) == [label]


def test_every_shipped_method_has_the_name_that_the_literature_gives_it():
    assert [name for name in shipped_methods() if name != "scratch" and method_labels(frame(trial(name, 1, 7.0)))[0] == name] == []


def test_several_settings_of_a_method_are_told_apart_by_what_differs():
    settings = [{"k": 0.5, "beta": 500.0}, {"k": 2.0, "beta": 500.0}]
    results = frame(trial("kd", 1, 7.0, params={"k": 1}), *(trial("ft", 1, 7.0, params=params) for params in settings))
    assert list(method_labels(results)) == ["KD", "FT (k=0.5)", "FT (k=2)"]


def test_parameters_of_a_composition_carry_the_part():
    results = frame(trial("at+kd", 1, 7.0), trial("at+kd", 1, 7.0))
    results["method_params"] = [json.dumps({"at": {"beta": 1}, "kd": {"alpha": alpha}}) for alpha in (0.5, 0.9)]
    assert list(method_labels(results)) == ["AT+KD (kd.alpha=0.5)", "AT+KD (kd.alpha=0.9)"]


def test_a_setting_without_the_parameters_that_differ_keeps_the_bare_name() -> None:
    """A parameter that came later is in no spec of a trial that does not use it."""
    results = frame(trial("dkd", 1, 7.0), trial("dkd", 1, 9.0, params={"standardized": True}))
    assert list(method_labels(results)) == ["DKD", "DKD (standardized=True)"]


def test_one_setting_for_each_pair_is_one_column_and_a_note():
    other = ("vgg13", "vgg8")
    results = frame(trial("dkd", 1, 7.0, params={"beta": 2.0}), trial("dkd", 1, 9.0, pair=other, params={"beta": 8.0}))
    table = result_table(compare(results, pairs=[PAIR, other]))
    assert table.columns[-1] == "DKD"
    assert "DKD has different parameters in each pair: beta=2 (resnet56 → resnet20); beta=8 (vgg13 → vgg8)." in table.notes


def test_a_label_and_a_note_give_parameters_in_the_same_order(tmp_path):
    suite = tmp_path / "two.yaml"
    suite.write_text(
        "title: t\ndataset: digits\nrecipe: digits-quick\nseeds: [0]\nmethods: [kd, {kd: {temperature: 2, alpha: 0.5}}]\n"
        "pairs: [{teacher: resnet14, student: resnet8}]\n"
    )
    results = pd.DataFrame([row_without_record(trial, suite="two", status="done") for trial in load_suite(suite).trials])
    assert list(method_labels(results)) == ["KD (temperature=4, alpha=0.9)", "KD (temperature=2, alpha=0.5)"]
    assert changed_parameters(results) == ["Parameters that are not the defaults: KD (temperature=2, alpha=0.5)."]


# The error table


def test_a_row_describes_the_pair_and_gives_mean_and_sample_standard_deviation():
    assert cells(result_table(compare(RESULTS, pairs=[PAIR]))) == {
        "Teacher": "resnet56",
        "Student": "resnet20",
        "Parameters (T / S)": "0.86M / 0.27M",
        "MACs (T / S)": "126M / 40.8M",
        "Teacher error": "6.28",
        "scratch": "8.20 ± 0.20",
        "KD": "7.70 ± 0.17",
        "AT": "7.73 ± 0.15",
    }


def test_the_headline_is_the_last_epoch_and_the_best_epoch_says_that_it_is_none():
    last, best = (table(compare(RESULTS, pairs=[PAIR])) for table in (result_table, best_epoch_table))
    assert "last epoch" in last.title
    assert "not a valid selection" in best.title
    assert (cells(last)["KD"], cells(best)["KD"]) == ("7.70 ± 0.17", "7.20 ± 0.17")


def test_an_accuracy_is_better_when_it_is_higher():
    comparison = compare(RESULTS, pairs=[PAIR], options=ReportOptions(metric="accuracy", baseline="kd"))
    table, gains = result_table(comparison), gain_table(comparison)
    assert table.title.startswith("Test accuracy (%, ↑) of the last epoch")
    assert cells(table)["Teacher accuracy"] == "93.72"
    assert cells(table)["KD"] == "92.30 ± 0.17"
    assert bold(table) == ["KD"]
    assert [row.cells[1].text for row in gains.rows] == ["-0.50", "-0.03"]
    assert gains.title.startswith("Gain over KD")
    (claim,) = claims(comparison)
    assert "No method beat KD, which has the highest mean test accuracy of 3 methods, 92.30 %" in claim


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        ReportOptions(metric="acuracy")


def test_the_lowest_mean_is_bold_with_all_that_equal_it_as_printed():
    assert bold(result_table(compare(RESULTS, pairs=[PAIR]))) == ["KD"]
    assert bold(result_table(compare(three_seeds(scratch=(8.0,), kd=(7.104,), at=(7.096,)), pairs=[PAIR]))) == ["KD", "AT"]


def test_scratch_is_bold_where_it_is_best():
    assert bold(result_table(compare(three_seeds(scratch=(7.0,), kd=(7.5,)), pairs=[PAIR]))) == ["scratch"]


def test_a_method_alone_is_not_bold():
    assert bold(result_table(compare(three_seeds(kd=(7.5,)), pairs=[PAIR]))) == []


def test_one_seed_has_no_spread_and_the_table_says_so():
    table = result_table(compare(three_seeds(scratch=(8.0,), kd=(7.5,)), pairs=[PAIR]))
    assert (cells(table)["KD"], table.title) == ("7.50", "Test error (%, ↓) of the last epoch on cifar10, one seed")
    assert "n = 1 seed: one value has no standard deviation." in table.notes


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ([0, 1, 2], "n = 3 seeds."),
        ([1, 2, 3], "n = 3 seeds."),
        ([1, 4, 6], "n = 3 seeds (1, 4 and 6)."),
        ([5, 6, 7], "n = 3 seeds (5 to 7)."),
        ([4], "n = 1 seed (4): one value has no standard deviation."),
    ],
)
def test_seeds_are_named_unless_they_are_the_first_ones(seeds: list[int], told: str):
    results = frame(*(trial(method, seed, 7.5) for method in ("scratch", "kd") for seed in seeds))
    assert footnotes(results)[0] == told


def test_a_hash_in_the_name_of_a_network_has_a_legend():
    pair = ("resnet56 (normalised d21d, 224 px)", "resnet20 (hooks 0a1b)")
    rows = (trial(method, 1, 7.5, pair=pair, teacher=pair[0] if method == "kd" else None) for method in ("scratch", "kd"))
    assert [note for note in result_table(compare(frame(*rows), pairs=[pair])).notes if "d21d: " in note] == [
        "normalised d21d: images normalised with the network's own mean and std, which the suite has under `normalise`; "
        "hooks 0a1b: read at modules that the suite names under `hooks`. The digits are of a hash, which tells them from others."
    ]
    assert not [note for note in result_table(compare(RESULTS, pairs=[PAIR])).notes if "hash" in note]


def test_failed_and_missing_trials_show_in_the_cell_and_by_name_below():
    results = frame(
        *RESULTS[RESULTS["method"] == "scratch"].to_dict("records"),
        *(trial("kd", 1, 7.5), trial("kd", 2, None), trial("kd", 3, 7.7)),
        *(trial("at", seed, 7.0, status="missing", test_error_pct=None) for seed in (1, 2, 3)),
    )
    table = result_table(compare(results, pairs=[PAIR]))
    assert cells(table)["KD"] == "7.60 ± 0.14 (2/3)"
    assert cells(table)["AT"] == "—"
    assert table.notes[1:] == (
        "n = 2 to 3 seeds.",
        "(k/n): only k of n seeds are done. Methods are ranked over the seeds that most of them share.",
        "Failed: KD (resnet56 → resnet20), seed 2 (trial kd-resnet56-2-4): the loss is nan.",
        "Missing: AT (resnet56 → resnet20), seeds 1, 2, 3.",
    )


def test_pairs_of_which_each_has_its_own_number_of_seeds_are_named_with_it():
    fewer = RESULTS[RESULTS["seed"] < 3].assign(student="resnet14")
    both = pd.concat([RESULTS, fewer.assign(trial="14" + fewer["trial"])], ignore_index=True)
    comparison = compare(both, pairs=[PAIR, (PAIR[0], "resnet14")])
    table = result_table(comparison)
    assert table.notes[1] == "n = 3 seeds (resnet56 → resnet20); 2 seeds (resnet56 → resnet14)."
    assert table.notes[0].startswith("Bold marks the lowest mean of each pair. ")
    assert result_table(compare(RESULTS, pairs=[PAIR])).notes[0].startswith("Bold marks the lowest mean. ")
    within = "Each pair has a family of its own: intervals hold together within a pair."
    assert within in gain_table(comparison).notes
    assert within not in gain_table(compare(RESULTS, pairs=[PAIR])).notes


def test_what_is_missing_takes_a_line_however_many_methods_pairs_and_seeds_there_are():
    missing = {"status": "missing", "test_error_pct": None}
    begun = frame(
        trial("scratch", 0, 8.0),
        *(trial(method, seed, 7.0, **missing) for method in ("kd", "at") for seed in range(3)),
        trial("ft", 0, 7.0, **missing),
    )
    notes = [note for note in result_table(compare(begun, pairs=[PAIR])).notes if note.startswith("Missing")]
    assert notes == [
        "Missing: KD, AT (resnet56 → resnet20), seeds 0, 1, 2.",
        "Missing: FT (resnet56 → resnet20), seed 0.",
    ]
    pairs = [(f"t{number}", "resnet20") for number in range(6)]
    hundreds = frame(*(trial(f"m{n}", 0, 7.0, pair=pair, **missing) for n in range(22) for pair in pairs))
    (note,) = (note for note in result_table(compare(hundreds, pairs=pairs)).notes if note.startswith("Missing"))
    assert note.startswith("Missing: m0, m1, m2, ") and "m19, and 2 more (t0 → resnet20, t1 → resnet20, " in note
    assert note.endswith("t4 → resnet20, and 1 more), seed 0.")


def test_a_failed_scratch_trial_of_two_pairs_is_named_once():
    other = ("resnet110", "resnet20")
    results = frame(trial("scratch", 1, None), trial("kd", 1, 7.0), trial("kd", 1, 7.0, pair=other))
    failures = [note for note in result_table(compare(results, pairs=[PAIR, other])).notes if "Failed" in note]
    assert failures == ["Failed: scratch (resnet20), seed 1 (trial scratch-resnet20-1-4): the loss is nan."]


def test_scratch_serves_every_pair_with_its_student():
    other = ("resnet110", "resnet20")
    results = frame(trial("scratch", 1, 8.0), trial("kd", 1, 7.0), trial("kd", 1, 6.0, pair=other))
    table = result_table(compare(results, pairs=[other, PAIR]))
    assert [cells(table, row)["scratch"] for row in (0, 1)] == ["8.00", "8.00"]
    assert [cells(table, row)["KD"] for row in (0, 1)] == ["6.00", "7.00"]


def test_two_data_sets_are_two_rows_with_their_own_scratch():
    digits = {"dataset": "digits", "trial": "other"}
    results = frame(
        *(trial("scratch", 1, 8.0), trial("kd", 1, 7.0)),
        *(trial("scratch", 1, 2.0, **digits), trial("kd", 1, 1.5, **digits)),
    )
    table = result_table(compare(results, pairs=[PAIR]))
    assert [(cells(table, row)["Dataset"], cells(table, row)["scratch"]) for row in (0, 1)] == [
        ("cifar10", "8.00"),
        ("digits", "2.00"),
    ]


def test_a_pair_of_another_data_set_makes_no_row_out_of_scratch_alone():
    other = ("resnet110", "resnet20")
    results = frame(trial("scratch", 1, 8.0), trial("kd", 1, 7.0), trial("kd", 1, 1.5, pair=other, dataset="digits"))
    rows = [(pair.dataset, pair.teacher) for pair in compare(results, pairs=[PAIR, other]).pairs]
    assert rows == [("cifar10", "resnet56"), ("digits", "resnet110")]


def test_columns_follow_the_order_of_methods_and_then_of_the_frame():
    assert compare(RESULTS, pairs=[PAIR], methods=["at", "scratch"]).labels == ("AT", "scratch", "KD")
    assert compare(RESULTS, pairs=[PAIR]).labels == ("scratch", "KD", "AT")


def test_trials_of_other_pairs_leave_no_trace():
    stranger = trial("crd", 1, None, pair=("vgg13", "vgg8"))
    crowded = result_table(compare(frame(*RESULTS.to_dict("records"), stranger), pairs=[PAIR]))
    assert to_markdown(crowded) == to_markdown(result_table(compare(RESULTS, pairs=[PAIR])))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("core_code", "2 versions of kdbench's code"),
        ("teacher_weights_sha256", "different trainings of the teacher"),
        ("start_weights_sha256", "different weights that have the same name"),
    ],
)
def test_a_difference_that_one_protocol_allows_is_stated(column, words):
    mixed = RESULTS.copy()
    assert words not in " ".join(footnotes(mixed))
    mixed.loc[mixed["trial"] == "kd-resnet56-2-4", column] = "other"
    assert words in " ".join(footnotes(mixed))


def test_a_table_says_what_its_spread_leaves_out_where_seeds_share_a_stage():
    told = "KD: the stage that learns from the teacher alone was trained once and is shared by all seeds. So ± and intervals do not"
    shared = RESULTS.assign(stages=RESULTS["method"].map({"kd": "per-teacher", "at": "per-seed"}))
    for table in (result_table, gain_table):
        assert not any("share" in note for note in table(compare(RESULTS, pairs=[PAIR])).notes)
        assert any(note.startswith(told) for note in table(compare(shared, pairs=[PAIR])).notes)
    shared.loc[shared["trial"] == "kd-resnet56-2-4", "stages"] = "per-seed"
    with pytest.raises(KdbenchError, match="cannot mix settings of `stages` of kd"):
        result_table(compare(shared, pairs=[PAIR]))


def test_students_of_one_table_may_have_recipes_of_their_own():
    other = [trial(method, 1, 9.0, pair=("resnet56", "resnet8"), recipe="lr 0.01") for method in ("scratch", "kd")]
    check_comparable(frame(*RESULTS.to_dict("records"), *other))


def test_several_environments_are_stated_and_the_methods_that_ran_in_some_alone():
    for apart, told in (
        (RESULTS["seed"] == 1, "torch 2.15, H100 (6 trials); torch 2.11, CPU (3 trials)"),
        (RESULTS["method"] == "kd", "torch 2.15, H100 (6 trials: scratch, AT); torch 2.11, CPU (3 trials: KD)"),
        (RESULTS.index == 0, "torch 2.15, H100 (8 trials); torch 2.11, CPU (1 trial: scratch)"),
    ):
        results = RESULTS.assign(environment=RESULTS["environment"].mask(apart, "torch 2.11, CPU"))
        assert f"The trials ran in 2 environments: {told}." in footnotes(results)
    assert not [note for note in footnotes(RESULTS) if "environments" in note]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (650, "650"),
        (9_999, "9,999"),
        (78_042, "0.08M"),
        (272_474, "0.27M"),
        (40_820_000, "40.8M"),
        (1_083_040_000, "1.08G"),
    ],
)
def test_counts_are_short(count, text):
    assert short_count(count) == text


# The gain table


def test_the_gain_is_paired_by_seed_and_its_interval_is_students():
    scratch, kd = np.array([8.0, 8.2, 8.4]), np.array([7.5, 7.8, 7.8])
    expected = stats.ttest_rel(scratch, kd).confidence_interval(0.95)
    table = gain_table(compare(RESULTS[RESULTS["method"] != "at"], pairs=[PAIR]))
    assert table.rows[0].cells[1].values == pytest.approx({"mean": 0.5, "low": expected.low, "high": expected.high, "n": 3})
    assert "95 % interval: Student's t of the paired differences, 2 degrees of freedom." in table.notes
    assert "The intervals are over new seeds and the same test images: it is not known which images were wrong." in table.notes


def test_the_intervals_of_several_methods_are_those_of_the_statistics_and_hold_together():
    errors = RESULTS.pivot(index="seed", columns="method", values="test_error_pct")
    expected = against_baseline(errors, "scratch").find("kd", "scratch")
    table = gain_table(compare(RESULTS, pairs=[PAIR]))
    (values,) = (row.cells[1].values for row in table.rows if row.keys["method"] == "KD")
    assert (values["low"], values["high"]) == pytest.approx(expected.bounds)
    assert table.notes[1].startswith(
        "95 % intervals: Dunnett's for 2 comparisons with scratch together, seeds as blocks, 4 degrees"
    )


def test_gains_are_given_over_any_method_and_in_any_metric():
    over_kd = gain_table(compare(RESULTS, pairs=[PAIR], options=ReportOptions(baseline="kd")))
    assert [cells(over_kd, row)["Method"] for row in range(2)] == ["scratch", "AT"]
    assert cells(over_kd)["Gain (points)"] == "-0.50"
    accuracy = gain_table(compare(RESULTS, pairs=[PAIR], options=ReportOptions(metric="accuracy")))
    assert [row.cells[2] for row in accuracy.rows] == [row.cells[2] for row in gain_table(compare(RESULTS, pairs=[PAIR])).rows]


def test_only_seeds_that_both_have_are_paired():
    results = three_seeds(scratch=(8.0, 9.0, None, 8.0), kd=(7.0, None, 7.0, 7.5))
    assert cells(gain_table(compare(results, pairs=[PAIR]))) == {
        "Method": "KD",
        "Gain (points)": "+0.75",
        "95 % interval": "n too small",
        "n": "2",
    }


def test_without_scratch_no_gain_is_claimed():
    results = three_seeds(kd=(7.0, 7.1, 7.2))
    assert gain_table(compare(results, pairs=[PAIR])) is None
    assert result_table(compare(results, pairs=[PAIR])).notes[-1] == NO_GAIN.format("")
    assert not any("scratch" in note for note in result_table(compare(RESULTS, pairs=[PAIR])).notes)


def test_a_pair_without_scratch_has_no_rows_of_gains():
    other = ("resnet56", "vgg8")
    results = frame(trial("scratch", 1, 8.0), trial("kd", 1, 7.0), trial("kd", 1, 7.0, pair=other))
    gains = gain_table(compare(results, pairs=[PAIR, other]))
    assert [row.keys["student"] for row in gains.rows] == ["resnet20"]
    assert result_table(compare(results, pairs=[PAIR, other])).notes[-1] == NO_GAIN.format(" for resnet56 → vgg8")


def test_where_scratch_is_still_to_be_trained_the_gains_have_their_places():
    results = frame(trial("kd", 1, 7.0), trial("scratch", 1, None, status="missing"))
    assert cells(gain_table(compare(results, pairs=[PAIR])))["Gain (points)"] == "—"


def test_a_method_that_is_worse_has_a_negative_gain():
    assert cells(gain_table(compare(three_seeds(scratch=(7.0,), kd=(7.5,)), pairs=[PAIR])))["Gain (points)"] == "-0.50"


def held_out(method: str, seed: int, validation: float, *, epoch: int, chosen: float, last: float) -> dict:
    selected = {"validation_error_pct": validation, "selected_test_error_pct": chosen, "selected_epoch": epoch}
    return trial(method, seed, last, params={}, **selected)


def test_the_validation_split_chooses_by_its_own_error():
    results = frame(
        held_out("scratch", 1, 9.0, epoch=4, chosen=8.5, last=8.5),
        held_out("scratch", 2, 9.5, epoch=4, chosen=8.7, last=8.7),
        held_out("kd", 1, 8.0, epoch=2, chosen=8.3, last=8.9),  # the best by validation, and not by the test images
        held_out("kd", 2, 8.2, epoch=4, chosen=8.8, last=8.8),
    )
    table = selection_table(compare(results, pairs=[PAIR]))
    assert [dict(cells(table, row)) for row in range(2)] == [
        {
            "Method": method,
            "Validation error,\nlast epoch": validation,
            "Epoch\nchosen": epochs,
            "Test error,\nepoch chosen": chosen,
            "Test error,\nlast epoch": last,
        }
        for method, validation, epochs, chosen, last in (
            ("scratch", "9.25 ± 0.35", "4", "8.60 ± 0.14", "8.60 ± 0.14"),
            ("KD", "8.10 ± 0.14", "2 to 4", "8.55 ± 0.35", "8.85 ± 0.07"),
        )
    ]
    assert (bold(table, 0), bold(table, 1)) == ([], ["Validation error,\nlast epoch"])
    assert not [note for note in table.notes if "held-out images" in note], "how many there are is not known"
    few = selection_table(compare(results.assign(validation_images=18), pairs=[PAIR]))
    assert few.notes[-1] == "One of 18 held-out images is 5.56 points of the error with one seed."


def test_without_a_validation_split_there_is_no_table_of_it(tmp_path):
    assert selection_table(compare(RESULTS, pairs=[PAIR])) is None
    results = frame(
        held_out("scratch", 1, 9.0, epoch=4, chosen=8.5, last=8.5), held_out("kd", 1, 8.0, epoch=2, chosen=8.3, last=8.9)
    )
    for found, expected in ((RESULTS, False), (results, True)):
        files = write_report(
            compare(found, pairs=[PAIR]), pd.DataFrame(), title="t", directory=tmp_path / str(expected), formats=["md", "csv"]
        )
        assert ("selection.csv" in {file.name for file in files}) is expected
        assert ("Selection by the validation split" in (tmp_path / str(expected) / "report.md").read_text()) is expected


def test_an_interval_needs_three_values():
    assert confidence_interval(pd.Series([1.0, 2.0])).bounds is None
    assert confidence_interval(pd.Series([1.0, 2.0, 3.0])).bounds == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))


def test_a_claim_says_by_how_much_and_how_sure():
    (claim,) = claims(compare(RESULTS, pairs=[PAIR]))
    assert claim == (
        "resnet56 → resnet20 on cifar10: KD has the lowest mean test error of 3 methods, 7.70 %. "
        "Gain over AT, the next (7.73 %): +0.03 points, 95 % interval -0.19 to +0.26, n = 3, which may be chance. "
        "Gain over scratch (8.20 %): +0.50 points, 95 % interval +0.29 to +0.71, n = 3."
    )
    (claim,) = claims(compare(three_seeds(scratch=(8.0,), kd=(7.0,)), pairs=[PAIR]))
    assert claim.endswith("+1.00 points, n = 1, too small to tell it from chance.")


def test_a_claim_of_two_has_no_choice_to_correct_for():
    (claim,) = claims(compare(RESULTS[RESULTS["method"] != "at"], pairs=[PAIR]))
    assert claim.endswith("+0.50 points, 95 % interval +0.25 to +0.75, n = 3.")


def test_the_next_is_found_among_all_pairs_and_the_baseline_is_not():
    errors = RESULTS.pivot(index="seed", columns="method", values="test_error_pct")
    (claim,) = claims(compare(RESULTS, pairs=[PAIR]))
    for family, over in ((all_pairs(errors), "at"), (against_baseline(errors, "scratch"), "scratch")):
        assert "{:+.2f} to {:+.2f}".format(*family.find("kd", over).bounds) in claim


def test_means_over_other_seeds_are_not_ranked():
    """AT's one seed was an easy one: of the methods of all seeds KD is the best."""
    results = three_seeds(scratch=(8.0, 9.0, 10.0), kd=(7.0, 8.0, 9.0), at=(7.5, None, None))
    assert bold(result_table(compare(results, pairs=[PAIR]))) == ["KD"]
    (claim,) = claims(compare(results, pairs=[PAIR]))
    assert "KD has the lowest mean test error of 2 methods, 8.00 %." in claim
    assert claim.endswith("Not ranked, since seeds are missing: AT.")


def test_a_method_with_more_seeds_is_ranked_over_those_that_all_have():
    """Its two seeds more are easy ones."""
    results = frame(
        *(trial("mine", seed, error) for seed, error in enumerate((7.9, 7.8, 8.0, 5.0, 5.0), 1)),
        *(trial("kd", seed, error) for seed, error in enumerate((7.0, 7.1, 7.2), 1)),
        *(trial("scratch", seed, error) for seed, error in enumerate((8.0, 8.2, 8.4), 1)),
    )
    assert bold(result_table(compare(results, pairs=[PAIR]))) == ["KD"]
    (claim,) = claims(compare(results, pairs=[PAIR]))
    ranked = "KD has the lowest mean test error of 3 methods over the 3 seeds that they share, 7.10 %."
    assert f"{ranked} Gain over mine, the next (7.90 %): +0.80 points" in claim


def test_one_seed_of_all_is_ranked_though_more_are_planned():
    results = three_seeds(scratch=(8.0, None, None), kd=(7.0, None, None))
    table = result_table(compare(results, pairs=[PAIR]))
    assert bold(table) == ["KD"] and cells(table)["KD"] == "7.00 (1/3)"


def test_methods_of_equal_error_share_the_place():
    (claim,) = claims(compare(three_seeds(scratch=(8.0,), kd=(8.0,), at=(9.0,)), pairs=[PAIR]))
    assert (
        "scratch and KD share the lowest mean test error of 3 methods, 8.00 %. Gain of scratch over AT, the next (9.00 %): "
        in claim
    )
    (claim,) = claims(compare(three_seeds(kd=(8.0,)), pairs=[PAIR]))
    assert claim.endswith("KD has a mean test error of 8.00 %, and there is no other method.")


def test_means_that_are_printed_alike_share_the_place():
    """Half of a hundredth is never exact: 2.675 is printed as 2.67, and `round` makes 2.68 of it."""
    results = three_seeds(scratch=(2.65, 2.70), kd=(2.67, 2.67), at=(2.67, 2.66))
    table = result_table(compare(results.assign(teacher_error_pct=None), pairs=[PAIR], options=ReportOptions(spread="none")))
    assert [cells(table)[label] for label in ("scratch", "KD", "AT")] == ["2.67", "2.67", "2.67"]
    assert bold(table) == ["scratch", "KD", "AT"]


def test_a_worse_result_beyond_chance_is_not_said_to_be_chance():
    """Scratch is better with the three seeds that it has, and lacks too many to be ranked."""
    results = frame(
        *(trial("kd", seed, error) for seed, error in enumerate((8.0, 8.1, 8.3, 8.0, 8.1, 8.2, 8.0), 1)),
        *(trial("at", seed, error) for seed, error in enumerate((8.6, 8.5, 8.9, 8.5, 8.6, 8.7, 8.6), 1)),
        *(trial("scratch", seed, error) for seed, error in enumerate((5.0, 5.1, 5.25), 1)),
    )
    (claim,) = claims(compare(results, pairs=[PAIR]))
    assert "Gain over scratch (5.12 %): -3.02 points" in claim
    assert "chance" not in claim


def test_a_claim_names_the_methods_that_have_no_result_and_those_that_failed():
    begun = [trial("scratch", 1, 8.0), *(trial(method, 1, None, status="missing") for method in ("at", "ft")), trial("sp", 1, None)]
    (claim,) = claims(compare(frame(*begun), pairs=[PAIR]))
    assert claim.endswith(
        "scratch has a mean test error of 8.00 %, and no other method has a result. No result yet: AT, FT. Failed: SP."
    )
    (claim,) = claims(compare(frame(*begun, trial("kd", 1, 7.0)), pairs=[PAIR]))
    assert "KD has the lowest mean test error of 2 methods" in claim and claim.endswith(" No result yet: AT, FT. Failed: SP.")
    stale = (trial("cc", 1, None, status="stale"), trial("nst", 1, None, status="stale"), trial("nst", 2, None, status="missing"))
    (claim,) = claims(compare(frame(*begun, *stale), pairs=[PAIR]))
    assert claim.endswith(" No result yet: AT, FT, NST. Stale: CC. Failed: SP.")


def test_a_claim_of_one_method_says_how_many_of_its_seeds_the_others_have():
    rows = [trial("scratch", seed, 8.0 + seed % 2) for seed in range(6)]
    rows += [*(trial("kd", seed, 7.0) for seed in (0, 1, 2)), trial("at", 9, 7.0)]
    (claim,) = claims(compare(frame(*rows), pairs=[PAIR]))
    assert claim == (
        "resnet56 → resnet20 on cifar10: scratch has a mean test error of 8.50 % over 6 seeds. No other method is ranked, since of "
        "these seeds KD has 3, AT has 0."
    )


def test_where_scratch_is_best_the_claim_opens_with_it():
    (claim,) = claims(compare(three_seeds(scratch=(7.0,), kd=(7.5,), at=(9.0,)), pairs=[PAIR]))
    assert claim == (
        "resnet56 → resnet20 on cifar10: No method beat scratch, which has the lowest mean test error of 3 methods, 7.00 %. "
        "Lead over KD, the next (7.50 %): +0.50 points, n = 1, too small to tell it from chance."
    )


def test_parameters_that_are_not_the_defaults_and_longer_trainings_are_told():
    results = RESULTS.copy()
    assert not any("defaults" in note or "stages" in note for note in result_table(compare(results, pairs=[PAIR])).notes)
    results.loc[results["method"] == "kd", "setting"] = "kd (temperature=20, alpha=0.99)"
    results.loc[results["method"] == "at", "stage_epochs"] = 30.0  # as read from a file with gaps
    notes = result_table(compare(results, pairs=[PAIR])).notes
    assert "Parameters that are not the defaults: KD (temperature=20, alpha=0.99)." in notes
    assert "Extra epochs, in stages that train the student before the main training: AT 30." in notes


def test_what_differs_from_pair_to_pair_is_told_with_its_pairs():
    other = ("resnet56", "vgg8")
    rows = [trial(method, 1, 8.0, pair=pair, params={}) for pair in (PAIR, other) for method in ("scratch", "fitnets")]
    results = frame(*rows)
    results.loc[results["student"] == "vgg8", "recipe"] = "slow"
    results["stage_epochs"] = [0, 1, 0, 2]
    notes = result_table(compare(results, pairs=[PAIR, other])).notes
    assert "Recipes: short (resnet56 → resnet20); slow (resnet56 → vgg8)." in notes
    assert any(note.endswith("FitNets 1 (resnet56 → resnet20), FitNets 2 (resnet56 → vgg8).") for note in notes)


def test_where_validation_chooses_another_method_the_headline_says_so():
    results = frame(
        held_out("scratch", 1, 9.0, epoch=4, chosen=8.5, last=8.5),
        held_out("kd", 1, 8.0, epoch=2, chosen=8.3, last=8.2),
        held_out("at", 1, 8.5, epoch=2, chosen=8.3, last=8.0),
    )
    (claim,) = claims(compare(results, pairs=[PAIR]))
    assert "AT has the lowest mean test error" in claim
    assert claim.endswith("The lowest mean validation error: KD (test error 8.20 %).")
    results.loc[results["method"] == "at", "validation_error_pct"] = 8.0
    (claim,) = claims(compare(results, pairs=[PAIR]))
    assert "validation" not in claim, "both have it"
    results.loc[results["method"] == "at", "validation_error_pct"] = 7.0
    (claim,) = claims(compare(results, pairs=[PAIR]))
    assert "validation" not in claim


def test_one_network_has_one_speed_of_inference_and_uneven_loads_are_told():
    results = RESULTS.copy()
    results.loc[results["method"] == "kd", "inference_images_per_s"] = 1000.0
    results.loc[results["method"] == "at", ["student_params", "inference_images_per_s"]] = 350_000, 5000.0
    table = cost_table(compare(results, pairs=[PAIR]))
    assert [row.cells[-2].text for row in table.rows] == ["5,000", "5,000", "5,000"]  # the median of 9,000 and 1,000, and AT's own
    assert not any("busy" in note for note in table.notes)
    results.loc[results["method"] == "at", "teacher_inference_images_per_s"] = 1500.0
    told = "The machine was not equally busy in all trials: one teacher processed 1,500 to 3,000 images/s. "
    assert any(note.startswith(told) for note in cost_table(compare(results, pairs=[PAIR])).notes)
    results.loc[(results["method"] == "kd") & (results["seed"] == 2), "train_images_per_s"] *= 3
    told = "The machine was not equally busy in all trials: KD trained at 1,000 to 3,000 images/s, by seed. So speeds and times "
    for of_teacher in (results["teacher_inference_images_per_s"], nan):  # measured, and not
        shown = compare(results.assign(teacher_inference_images_per_s=of_teacher), pairs=[PAIR])
        assert any(note.startswith(told) for note in cost_table(shown).notes)


def test_times_on_a_shared_machine_are_told():
    results = RESULTS.copy()
    assert not any("same machine" in note for note in cost_table(compare(results, pairs=[PAIR])).notes)
    results.loc[results["method"] == "kd", "jobs_on_machine"] = 4
    (note,) = [note for note in cost_table(compare(results, pairs=[PAIR])).notes if "same machine" in note]
    count = (results["method"] == "kd").sum()
    assert note.startswith(f"{count} of {len(results)} trials trained while other jobs ran on the same machine, up to 4 at once: ")
    assert note.endswith("--engine here --lanes 1 times each method alone.")


def test_the_gain_of_a_method_that_failed_is_not_without_a_word():
    results = three_seeds(scratch=(8.0, 8.2, 8.4), kd=(7.5, 7.8, 7.8), at=(7.6, 7.7, None))
    notes = gain_table(compare(results, pairs=[PAIR])).notes
    assert any(note.startswith("Failed: AT (resnet56 → resnet20), seed 3") for note in notes)


def test_one_note_of_several_methods_and_pairs_is_one_sentence():
    pooled, other = "maps are pooled: 8x8 and 4x4", ("vgg13", "vgg8")
    rows = [trial(name, 1, 7.0, pair=pair, notes=(f"{name}: {pooled}",)) for name in ("at", "nst") for pair in (PAIR, other)]
    found = footnotes(frame(*rows, trial("dkd", 1, 7.0, notes=("dkd: of two classes",)), trial("kd", 1, None, notes=("kd: no",))))
    assert f"AT, NST (resnet56 → resnet20, vgg13 → vgg8): {pooled}." in found
    assert "DKD (resnet56 → resnet20): of two classes." in found
    assert not [note for note in found if "kd: no" in note]


def test_a_note_that_names_no_method_names_those_that_have_it_where_others_have_not():
    of_all, of_one = "mixed images: the training error counts the class of the larger share", "work is not counted: RuntimeError: x"
    rows = [trial(name, 1, 7.0, notes=(of_all, *((of_one,) if name == "at" else ()))) for name in ("kd", "at")]
    found = footnotes(frame(*rows, trial("at+kd", 1, 7.0, notes=(of_all, "at+kd: out of balance", "at: pooled"))))
    assert {"AT+KD (resnet56 → resnet20): out of balance.", "AT (resnet56 → resnet20): pooled."} <= {*found}
    assert f"mixed images (resnet56 → resnet20): {of_all.partition(': ')[2]}." in found
    assert f"AT (resnet56 → resnet20): {of_one}." in found


@pytest.mark.parametrize(
    ("fact", "advice"),
    [
        ("the transfer terms are over 100 times the cross-entropy in loss", "; lower at.beta (now 300), kd.alpha (now 0.9)"),
        ("the transfer terms are under 0.01 times the cross-entropy in gradient", "; raise the weight of its terms"),
        ("no transfer term reaches the student", ": it is detached, its weight is 0, or a warm-up is too long"),
        ("nothing is transferred: kd.alpha = 0", ""),
    ],
)
def test_what_records_of_an_earlier_version_advise_is_left_out(fact, advice):
    said = f"at+kd: in some epoch, {fact}"
    old, new = (trial("at+kd", seed, 7.0, notes=(note,)) for seed, note in ((1, said + advice), (2, said)))
    told = [note for note in footnotes(frame(old, new)) if "in some epoch" in note]
    assert told == [f"AT+KD (resnet56 → resnet20): in some epoch, {fact}."]


def test_a_frame_of_an_earlier_version_is_reported():
    older = RESULTS.drop(columns=["validation_error_pct", "selected_test_error_pct", "selected_epoch", "stages"])
    assert cells(result_table(compare(older, pairs=[PAIR]))) == cells(result_table(compare(RESULTS, pairs=[PAIR])))
    assert selection_table(compare(older, pairs=[PAIR])) is None


def test_a_teacher_with_a_higher_error_than_scratch_is_told():
    told = "The teacher has a higher test error than the student from scratch: resnet56 → resnet20."
    assert told not in result_table(compare(RESULTS, pairs=[PAIR])).notes
    weak = RESULTS.replace({"teacher_error_pct": 6.28}, 9.0)
    assert told in result_table(compare(weak, pairs=[PAIR])).notes
    called = ReportOptions(names={"scratch": "Student"})
    assert told.replace("the student from scratch", "Student") in result_table(compare(weak, pairs=[PAIR], options=called)).notes


def test_what_is_no_better_than_always_answering_one_class_is_told():
    third = 200 / 3  # of three classes alike
    results = three_seeds(scratch=(third, third, third), kd=(64.0, 67.0, 66.0), at=(70.0, 66.0, 66.0)).replace({6.28: 67.22})
    known = results.assign(one_class_error_pct=third)
    advice = "What has learnt nothing can be neither ranked nor learnt from: train longer, or lower the learning rate."
    note = f"No better than always answering one class ({{}}): the teacher, scratch, AT. {advice}"
    assert note.format("66.67 %") in result_table(compare(known, pairs=[PAIR])).notes
    accuracy = compare(known, pairs=[PAIR], options=ReportOptions(metric="accuracy"))
    assert note.format("33.33 %") in result_table(accuracy).notes
    for untold in (best_epoch_table(compare(known, pairs=[PAIR])), result_table(compare(results, pairs=[PAIR]))):
        assert not [told for told in untold.notes if "one class" in told]
    assert "one class" not in claims(compare(known, pairs=[PAIR]))[0]
    worse = known.replace({64.0: 67.0})
    clause = "which is no better than always answering one class (66.67 %)"
    said = f"scratch and KD share the lowest mean test error of 3 methods, 66.67 %, {clause}."
    assert said in claims(compare(worse, pairs=[PAIR]))[0]
    alone = compare(worse, pairs=[PAIR], options=ReportOptions(methods=("at",)))
    assert f"AT has a mean test error of 67.33 %, {clause}, and there is no other method." in claims(alone)[0]


def test_two_trainings_of_a_teacher_with_one_error_are_two():
    results = RESULTS.copy()
    results.loc[results["seed"] == 2, "teacher_weights_sha256"] = "other"
    assert cells(result_table(compare(results, pairs=[PAIR])))["Teacher error"] == "6.28 ± 0.00"


def test_what_the_images_are_stands_in_every_format(tmp_path):
    note = "12 of 30 test images are identical to a training image"
    results = RESULTS.assign(data="90 training images and 30 test images in 3 classes (2 to 60 a class)", data_notes=note)
    results.loc[results["method"] == "scratch", ["data", "data_notes"]] = None  # by an earlier version
    told = [f"cifar10: {results['data'].iloc[-1]}.", f"cifar10: {note}."]
    assert [sentence for sentence in footnotes(results) if sentence.startswith("cifar10")] == told
    assert not [sentence for sentence in footnotes(RESULTS) if sentence.startswith("cifar10")]
    results.loc[(results["seed"] == 3) & results["data"].notna(), ["data", "data_notes"]] = ["another line", ""]
    assert f"{told[0]} cifar10: another line. {told[1]}" in " ".join(footnotes(results))
    write_report(compare(results, pairs=[PAIR]), pd.DataFrame(), title="Short run", directory=tmp_path, formats=["md", "tex"])
    console = Console(width=200, file=io.StringIO())
    console.print(terminal_tables(compare(results, pairs=[PAIR]), title="Short run", width=200))
    for text in ((tmp_path / "report.md").read_text(), (tmp_path / "tables.tex").read_text(), console.file.getvalue()):
        assert all(sentence in text for sentence in told)
    for text in ((tmp_path / "report.md").read_text(), console.file.getvalue()):
        assert " ".join(text.split()).count("Recipe: short; fp32; protocol 1.") == 1


# The cost table


def test_a_method_that_deploys_another_network_is_named():
    results = RESULTS.copy()
    results.loc[results["method"] == "at", "student_params"] = 345_678
    assert (
        "The student has 0.27M parameters. Some methods deploy another number: AT 0.35M."
        in cost_table(compare(results, pairs=[PAIR])).notes
    )
    assert not any("another number" in note for note in cost_table(compare(RESULTS, pairs=[PAIR])).notes)


def test_costs_are_medians_and_stand_against_scratch():
    results = RESULTS.copy()
    results.loc[results["method"] == "kd", "train_images_per_s"] = [900.0, 1000.0, 5.0]
    results.loc[results["method"] == "kd", "train_s"] = [22.2, 30.0, 5.0]  # with its stages
    results.loc[results["method"] == "kd", "extra_params"] = 1_234_567
    assert [cell.text for cell in cost_table(compare(results, pairs=[PAIR])).rows[1].cells] == [
        "KD",
        "900",
        "2.22\N{MULTIPLICATION SIGN}",
        "1.23M",
        "9,000",
        "3,000",
    ]


def test_costs_of_stacked_students_do_not_stand_against_scratch():
    results = RESULTS.assign(precision="bf16, stacked")
    table = cost_table(compare(results, pairs=[PAIR]))
    assert table.columns[1:3] == ("Training\nimages/s", "Extra\nparameters")
    (note,) = [note for note in table.notes if "a block of eight places" in note]
    assert "not what the method costs alone" in note and "trains alone" not in " ".join(table.notes)
    alone = cost_table(compare(RESULTS.assign(precision="bf16"), pairs=[PAIR]))
    called = cost_table(compare(RESULTS, pairs=[PAIR], options=ReportOptions(names={"scratch": "Student"})))
    assert [table.columns[2] for table in (alone, called)] == ["Time against\nscratch", "Time against\nStudent"]
    assert not any("eight places" in note for note in alone.notes)


def test_times_stand_against_the_baseline_of_the_report():
    rows = [trial(method, seed, 8.0, train_s=seconds) for method, seconds in (("scratch", 10.0), ("kd", 40.0)) for seed in (1, 2)]
    for baseline, name, times in (("scratch", "scratch", ["1.00×", "4.00×"]), ("kd", "KD", ["0.25×", "1.00×"])):
        table = cost_table(compare(frame(*rows), pairs=[PAIR], options=ReportOptions(baseline=baseline)))
        assert (table.columns[2], [row.cells[2].text for row in table.rows]) == (f"Time against\n{name}", times)


def test_without_scratch_no_column_is_left_for_times_against_it():
    table = cost_table(compare(RESULTS[RESULTS["method"] != "scratch"], pairs=[PAIR]))
    assert table.columns[1:3] == ("Training\nimages/s", "Extra\nparameters")
    assert [cell.text for cell in table.rows[0].cells] == ["KD", "1,000", "0", "9,000", "3,000"]


def test_a_network_has_one_speed_of_inference_in_all_pairs():
    rows = []
    for speed, pair in ((9000.0, PAIR), (3000.0, ("wrn_40_2", "resnet20")), (1000.0, ("resnet56", "resnet8"))):
        speeds = {"pair": pair, "inference_images_per_s": speed, "teacher_inference_images_per_s": speed / 10}
        rows.append(trial("kd", 1, 7.0, **speeds))
    scratch = (trial("scratch", 1, 8.0, inference_images_per_s=5000.0), trial("scratch", 1, 8.0, pair=("", "resnet8")))
    table = cost_table(compare(frame(*rows, *scratch)))
    inference = {(row.keys["teacher"], row.keys["student"], row.keys["method"]): row.cells[-2:] for row in table.rows}
    speeds = {key: tuple(cell.text for cell in cells) for key, cells in inference.items()}
    assert speeds["resnet56", "resnet20", "KD"] == ("5,000", "500")  # the median of 9,000, 3,000 and 5,000; of 900 and 100
    assert speeds["wrn_40_2", "resnet20", "KD"] == ("5,000", "300")
    assert speeds["resnet56", "resnet20", "scratch"] == speeds["wrn_40_2", "resnet20", "scratch"] == ("5,000", "—")
    assert speeds["resnet56", "resnet8", "KD"][1] == "500"
    assert any("one speed for each network" in note for note in table.notes)


def test_times_against_scratch_of_another_run_are_told():
    first, second = (dict(planned=f"2026-11-{day}T10:00", finished=f"2026-11-{day}T12:00") for day in (24, 25))
    scratch, kd = (trial(method, 1, 8.0, **first) for method in ("scratch", "kd"))

    def told(*rows) -> list[str]:
        return [note for note in cost_table(compare(frame(*rows), pairs=[PAIR])).notes if "another run" in note]

    assert told(scratch, kd) == told(scratch, kd, trial("scratch", 2, 8.0, **second), trial("kd", 2, 8.0, **second)) == []
    assert told(scratch, kd, trial("at", 1, 8.0)) == [], "an earlier version did not note when"
    (note,) = told(scratch, kd, trial("at", 1, 8.0, **second), trial("ft", 1, 8.0, **second))
    assert note.startswith("AT, FT: timed in another run than scratch. So the time against scratch tells how busy ")
    (note,) = told(trial("scratch", 1, 8.0, **second), kd)
    assert note.startswith("KD: timed in another run than scratch. ")
    ended = {**first, "finished": second["finished"], "first_finished": first["finished"]}
    again = trial("at", 1, 8.0, **ended, planned_again=second["planned"])
    (note,) = told(scratch, kd, again)
    assert note.startswith("AT: timed in another run than scratch. ")
    assert told(trial("scratch", 1, 8.0, **ended, planned_again=second["planned"]), again) == []
    late = {**ended, "first_finished": "2026-11-24T12:01"}
    assert told(scratch, trial("at", 1, 8.0, **late)), "an earlier version did not note when, but it was after it was first done"


def test_costs_of_two_environments_are_not_averaged():
    slow = {"environment": "CPU", "train_images_per_s": 10.0}
    results = frame(trial("scratch", 1, 8.0), trial("kd", 1, 7.0), trial("kd", 2, 7.0, **slow))
    rows = [[cell.text for cell in row.cells[:4]] for row in cost_table(compare(results, pairs=[PAIR])).rows]
    assert rows == [
        ["scratch", "torch 2.15, H100", "2,000", "1.00\N{MULTIPLICATION SIGN}"],
        ["KD", "torch 2.15, H100", "1,000", "2.00\N{MULTIPLICATION SIGN}"],
        ["KD", "CPU", "10", "—"],
    ]


# Rendering


AWKWARD = three_seeds(scratch=(8.0, 8.1), kd=(7.0, 7.0), at=(7.0, None)).replace(
    {"cifar10": "a_b & 50%", "the loss is nan": "x_1 | {y} <z> ~^\\ #1 $"}
)


def test_markdown_is_a_whole_table_with_the_best_in_bold():
    lines = to_markdown(result_table(compare(AWKWARD, pairs=[PAIR]))).splitlines()
    pipes = [line for line in lines if line.startswith("|")]
    assert len(pipes) == 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in pipes}) == 1
    assert "| **7.00 ± 0.00** | 7.00 (1/2) |" in pipes[-1]
    assert any(line.startswith("* Failed: AT") and r"x_1 \|" in line for line in lines)


def test_latex_escapes_and_needs_only_booktabs():
    text = to_latex(result_table(compare(AWKWARD, pairs=[PAIR])))
    for part in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\textbf{7.00 $\pm$ 0.00}",
        r"8.05 $\pm$ 0.07",
        r"\caption{Test error (\%, $\downarrow$)",
        r"\label{tab:test-error}",
    ):
        assert part in text
    assert r"x\_1 $|$ \{y\} $<$z$>$ \textasciitilde{}\textasciicircum{}\textbackslash{} \#1 \$" in text
    assert text.isascii()
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    commands = set(re.findall(r"\\([a-z]+)", text))
    assert commands <= set(
        [
            "begin",
            "end",
            "centering",
            "caption",
            "label",
            "smallskip",
            "footnotesize",
            "setlength",
            "tabcolsep",
            "toprule",
            "midrule",
            "bottomrule",
            "textbf",
            "pm",
            "to",
            "textasciitilde",
            "textasciicircum",
            "textbackslash",
            "shortstack",
            "times",
            "downarrow",
            "par",
            "linewidth",
        ]
    )


def test_latex_rows_are_as_wide_as_the_heading():
    for table in (
        result_table(compare(RESULTS, pairs=[PAIR])),
        gain_table(compare(RESULTS, pairs=[PAIR])),
        cost_table(compare(RESULTS, pairs=[PAIR])),
    ):
        body = to_latex(table).split(r"\toprule")[1].split(r"\bottomrule")[0]
        heading = re.search(r"\\begin\{tabular\}\{([lr]+)\}", to_latex(table)).group(1)
        assert {line.count(" & ") for line in body.splitlines() if " & " in line} == {len(heading) - 1}


def test_a_line_parts_scratch_from_several_methods_and_not_from_one():
    for methods, lines in ((["scratch", "kd", "at"], 1), (["scratch", "kd"], 0)):
        shown = compare(RESULTS[RESULTS["method"].isin(methods)], pairs=[PAIR])
        assert sum(row.opens_group for row in result_table(shown).turned().rows) == lines


def test_a_table_too_wide_for_a_page_is_turned():
    table = result_table(compare(three_seeds(**{f"m{number}": (7.0,) for number in range(20)}), pairs=[PAIR]))
    lines = to_markdown(table).splitlines()
    assert "| Teacher | resnet56 |" in lines
    assert "| m19 | **7.00** |" in lines


def test_headings_that_stand_in_a_column_keep_their_lines():
    columns = ("Method", "Gain", "95 % interval,\nnew seeds", "n")
    table = replace(gain_table(compare(RESULTS, pairs=[PAIR])), columns=columns, turn=True)
    (line,) = [line for line in to_latex(table).splitlines() if "interval," in line and "&" in line]
    assert line.startswith(r"\shortstack[l]{95 \% interval, \\ new seeds} & ")


def test_csv_is_tidy_with_mean_std_and_n_apart_and_unrounded():
    rows = list(csv.DictReader(io.StringIO(to_csv(result_table(compare(RESULTS, pairs=[PAIR]))))))
    kd = next(row for row in rows if row["column"] == "KD")
    assert (kd["dataset"], kd["teacher"], kd["student"], kd["n"]) == ("cifar10", "resnet56", "resnet20", "3")
    assert float(kd["mean"]) == np.mean([7.5, 7.8, 7.8])
    assert float(kd["std"]) == pytest.approx(np.std([7.5, 7.8, 7.8], ddof=1))
    lonely = list(csv.DictReader(io.StringIO(to_csv(result_table(compare(three_seeds(scratch=(8.0,), kd=(7.0,)), pairs=[PAIR]))))))
    assert {row["std"] for row in lonely} == {""}


def test_the_terminal_shows_every_table_whole_however_narrow():
    for width in (60, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        results = RESULTS.assign(dataset="[red]")
        console.print(terminal_tables(compare(results, pairs=[PAIR]), title="A [bold] title", width=width))
        text = console.export_text()
        for part in ("A [bold] title", "resnet20 on [red]: KD", "8.20 ± 0.20", "7.70 ± 0.17", "+0.50", "1,000"):
            assert part in text


def test_no_line_ends_inside_what_belongs_together():
    """`n = 3`, `95 %`, `8.20 ± 0.20` and `protocol 3`, in notes and claims."""
    for width in range(40, 80, 3):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(terminal_tables(compare(RESULTS, pairs=[PAIR]), title="T", width=width))
        text = console.export_text()
        assert not re.search(r"( n =| protocol|\d ±)$|^(%|= \d)", text, re.MULTILINE)
        assert "95 % interval" in text and "n = 3" in text
    assert "n~=~3 seeds." in to_latex(result_table(compare(RESULTS, pairs=[PAIR])))


def test_signs_stand_for_bold_and_underlined_where_the_terminal_shows_no_styles():
    comparison = compare(RESULTS, pairs=[PAIR], options=ReportOptions(second_best=True))
    for colours, best, second, said in (
        (None, "» 7.70 ± 0.17", "› 7.73 ± 0.15", "» stands for bold, › stands for underline."),
        ("standard", "\x1b[1m7.70 ± 0.17\x1b[0m", "\x1b[4m7.73 ± 0.15\x1b[0m", ""),
    ):
        console = Console(width=200, file=io.StringIO(), color_system=colours, force_terminal=bool(colours))
        console.print(terminal_tables(comparison, title="T", width=200))
        text = console.file.getvalue()
        assert best in text and second in text
        assert said in text and ("»" in text or "›" in text) == bool(said)


# The report


def report(tmp_path, results=RESULTS, **options):
    return write_report(compare(results, pairs=[PAIR]), pd.DataFrame(), title="Short run", directory=tmp_path / "out", **options)


def test_a_report_opens_with_claim_hardware_versions_and_n(tmp_path):
    dated = RESULTS.assign(finished=[f"2026-11-0{day}T10:00:00" for day in range(1, 10)])
    (file,) = report(tmp_path, dated, formats=["md"])
    title, _, claim, _, facts, *_ = file.read_text().splitlines()
    assert title == "# Short run"
    assert claim.startswith("* resnet56 → resnet20 on cifar10: KD has the lowest")
    assert facts == "Measured on torch 2.15, H100. Recipe: short; fp32; protocol 1. n = 3 seeds. Finished 2026-11-01 to 2026-11-09."


def test_formats_choose_the_files(tmp_path):
    assert [file.name for file in report(tmp_path, formats=["tex", "csv"])] == [
        *("test_error.tex", "gain.tex", "cost.tex", "tables.tex"),
        *("results.csv", "test_error.csv", "gain.csv", "cost.csv", "best_test_epoch_not_a_valid_selection.csv"),
        "pairwise.csv",
    ]
    assert len(pd.read_csv(tmp_path / "out" / "results.csv")) == len(RESULTS)


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(KdbenchError, match=r"unknown report format 'docx'\. Choose from md, html, tex, csv, bib, png, pdf\."):
        report(tmp_path, formats=["md", "docx"])
    assert not (tmp_path / "out").exists()


def test_a_suite_of_failures_is_reported_too(tmp_path):
    (file, *_) = report(tmp_path, three_seeds(scratch=(None,), kd=(None,)))
    text = file.read_text()
    assert "no trial is done." in text
    assert "Failed: KD (resnet56 → resnet20), seed 1" in text
