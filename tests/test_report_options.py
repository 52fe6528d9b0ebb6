"""What an author may choose: what a report shows, under which names, in which order and shape; and what is refused."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from test_report_tables import PAIR, RESULTS, bold, cells, frame, trial

from kdbench.errors import KdbenchError, nearest
from kdbench.report import (
    ReportOptions,
    Table,
    best_epoch_table,
    claims,
    compare,
    cost_table,
    gain_table,
    latex_names,
    result_table,
    to_csv,
    to_latex,
    to_markdown,
    write_report,
)
from kdbench.report.contents import read_report
from kdbench.report.differences import means_of_pairs
from kdbench.report.tables.ranks import ranks_table
from kdbench.results.method_labels import method_labels

OTHER = ("vgg13", "vgg8")
TWO = frame(
    *RESULTS.to_dict("records"),
    *(trial(method, seed, error + seed / 10, pair=OTHER) for method, error in (("scratch", 9), ("kd", 8)) for seed in (1, 2, 3)),
)


def shown(results: pd.DataFrame = TWO, **options) -> Table:
    return result_table(compare(results, options=ReportOptions.model_validate(options)))


def test_pairs_are_found_in_the_frame():
    comparison = compare(TWO)
    assert [(pair.teacher, pair.student) for pair in comparison.pairs] == [PAIR, OTHER]
    assert comparison.labels == ("scratch", "AT", "KD")


def test_a_used_teacher_is_no_student():
    teacher = trial("pretrained", 0, 5.0, pair=PAIR, epochs=0) | {"teacher": None, "student": "resnet20"}
    assert compare(frame(*RESULTS.to_dict("records"), teacher)).labels == ("scratch", "AT", "KD")
    with pytest.raises(KdbenchError, match="no trial has a teacher"):
        compare(RESULTS[RESULTS["method"] == "scratch"])


def test_methods_and_pairs_stand_in_the_order_in_which_they_are_asked_for():
    table = shown(methods=["KD", "scratch"], pairs=["vgg13->vgg8", "resnet56 → resnet20"])
    assert table.columns[-2:] == ("KD", "scratch")
    assert [cells(table, row)["Student"] for row in (0, 1)] == ["vgg8", "resnet20"]


def test_one_recipe_of_several():
    longer = TWO.assign(recipe="164 epochs [d9e1]", trial=TWO["trial"] + "-long", test_error_pct=TWO["test_error_pct"] - 1)
    both = pd.concat([TWO, longer])
    with pytest.raises(KdbenchError, match=r"cannot mix recipes .* Choose one with `recipes` \(--recipe\)"):
        shown(both)
    assert cells(shown(both, recipes=["d9e1"])) == cells(shown(longer))
    assert cells(shown(both, recipes=["short"])) == cells(shown(TWO))


def test_one_data_set_of_several():
    digits = TWO.assign(dataset="digits", trial=TWO["trial"] + "-digits")
    both = pd.concat([TWO, digits])
    assert [cells(shown(both), row)["Dataset"] for row in range(4)] == ["cifar10", "cifar10", "digits", "digits"]
    assert "Dataset" not in shown(both, datasets=["digits"]).columns
    table = shown(both, pairs=["digits: vgg13 -> vgg8"])
    assert (len(table.rows), "on digits" in table.title) == (1, True)


def test_another_pairs_teacher_is_no_student_from_scratch():
    students = frame(*RESULTS.to_dict("records")).assign(role="student")
    of_others = [
        trial("scratch", seed, 5.0, role="teacher", trial=str(seed), **rest) for seed, rest in ((9, {}), (1, {"recipe": "long"}))
    ]
    table = result_table(compare(frame(*students.to_dict("records"), *of_others)))
    assert cells(table)["scratch"] == "8.20 ± 0.20"
    both = students.assign(role=["teacher" if number == 0 else "student" for number in range(len(students))])
    assert cells(result_table(compare(both)))["scratch"] == "8.20 ± 0.20", "one trial is a student of its own, too"
    with pytest.raises(KdbenchError, match="cannot mix recipes"):
        compare(frame(*RESULTS.to_dict("records"), *(row | {"role": None} for row in of_others)).drop(columns="role"))


SUITE = "title: {name}\ndataset: digits\nrecipe: digits-quick\nseeds: [0]\nmethods: [scratch, kd]\n"
SUITE += "pairs: [{{teacher: wrn_16_2, student: resnet8}}]\nreport: {report}\n"


@pytest.mark.parametrize(
    ("first", "second", "changes", "problem"),
    [
        ("{methods: [kd]}", "{}", {}, "only some of the suites have `methods` in `report`. Give it on the command line"),
        ("{}", "{metric: accuracy}", {}, "only some of the suites have `metric`"),
        ("{metric: accuracy}", "{metric: error}", {}, "different values of `metric`"),
        ("{baseline: kd}", "{}", {"baseline": "scratch"}, None),
        ("{decimals: 3}", "{}", {}, None),
        ("{names: {kd: A}}", "{names: {kd: B}}", {}, "different values of `names`"),
        ("{names: {kd: A}}", "{names: {at: B, kd: A}}", {}, None),
        ("{names: {kd: A}}", "{names: {at: B, kd: C}}", {"names": {"kd": "D"}}, None),
        ("{names: {kd: A}}", "{names: {kd: C}}", {"names": {"at": "D"}}, "different values of `names`"),
    ],
)
def test_the_options_of_one_suite_do_not_silently_hold_for_another(tmp_path, first, second, changes, problem):
    for name, report in (("a", first), ("b", second)):
        (tmp_path / f"{name}.yaml").write_text(SUITE.format(name=name, report=report))

    def read():
        suites = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
        return read_report(suites, tmp_path / "results", seeds=[], changes=changes, plugins=[]).options

    if problem:
        with pytest.raises(KdbenchError, match=problem):
            read()
    else:
        assert set(read().names) == ({"kd", "at"} if "names" in first else set())


def test_everything_is_called_as_the_author_calls_it():
    names = {"kd": "Hinton KD", "resnet20": "ResNet-20", "cifar10": "CIFAR-10", "teacher": "Teacher", "scratch": "Student"}
    table = shown(frame(*TWO.to_dict("records"), trial("at+kd", 1, None)), names=names)
    assert table.columns[-5:] == ("Teacher", "Student", "AT", "Hinton KD", "AT+Hinton KD")
    assert cells(table)["Student"] == "8.20 ± 0.20"
    assert [cell.text for cell in table.rows[0].cells[:2]] == ["resnet56", "ResNet-20"]
    assert "on CIFAR-10" in table.title
    assert any(note.startswith("Failed: AT+Hinton KD (resnet56 → ResNet-20), seed 1") for note in table.notes)
    assert not any("from scratch" in note for note in table.notes)


def test_a_method_that_is_called_what_another_one_is_called_is_told():
    told = "By the names that were chosen for the report, AT is `kd`."
    for names, said in (({"kd": "AT", "at": "Zagoruyko"}, True), ({"kd": "Hinton", "at": "AT"}, False), ({}, False)):
        notes = result_table(compare(RESULTS, options=ReportOptions(names=names))).notes
        assert (told in notes) is said
        assert any("names that were chosen" in note for note in notes) is said


def test_results_keep_the_names_of_suites_for_scripts():
    comparison = compare(TWO, options=ReportOptions(names={"kd": "X", "resnet20": "Y"}))
    assert set(comparison.given["student"]) == {"resnet20", "vgg8"}
    assert set(comparison.results["student"]) == {"Y", "vgg8"}


def test_decimals_decide_what_is_best():
    table = shown(methods=["kd", "at"], pairs=["resnet56 -> resnet20"], decimals=1)
    assert (cells(table)["KD"], bold(table)) == ("7.7 ± 0.2", ["KD", "AT"])


NATS = RESULTS.assign(
    teacher_kl=RESULTS["method"].map({"kd": 0.021, "at": 0.024}) + RESULTS["seed"].map({1: 1e-4, 2: 3e-4, 3: 2e-4})
)


@pytest.mark.parametrize(
    ("decimals", "mean", "gain"), [(None, "0.0212", "-0.0030"), (2, "0.02", "-0.00"), (5, "0.02120", "-0.00300")], ids=str
)
def test_decimals_are_those_of_claims_and_gains_too(decimals, mean, gain):
    comparison = compare(NATS, options=ReportOptions(metric="kl", baseline="kd", decimals=decimals))
    (claim,) = claims(comparison)
    assert cells(result_table(comparison))["KD"].startswith(f"{mean} ±")
    assert f"{mean} nats" in claim
    assert ("KD and AT share" in claim or "AT and KD share" in claim) is (decimals == 2)
    if decimals != 2:
        assert f"+{gain[1:]} nats" in claim
    assert cells(gain_table(comparison))["Gain (nats)"] == gain
    assert cells(gain_table(comparison))["95 % interval"].startswith(gain)


@pytest.mark.parametrize(
    ("spread", "text"), [("std", "7.70 ± 0.17"), ("none", "7.70"), ("interval", "7.70 (7.27 to 8.13)")], ids=lambda text: text
)
def test_what_follows_the_mean(spread, text):
    assert cells(shown(spread=spread))["KD"] == text


def test_rows_are_methods_whatever_fits():
    table = shown(rows="methods", sizes=False)
    lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in lines] == [
        "| Teacher",
        "| :--",
        "| Student",
        "| Teacher error",
        "| scratch",
        "| AT",
        "| KD",
    ]
    body = to_latex(table).split(r"\toprule")[1]
    above, teacher, rest = body.split(r"\midrule")
    assert "Teacher & " in above and "Student & " in above, "the line is under both names"
    assert "Teacher error" in teacher and "scratch" in teacher and "KD" not in teacher
    assert r"KD & \textbf{7.70" in rest
    assert "kd" not in to_csv(table).split("\n")[0] and "resnet20" in to_csv(table), "scripts get pairs with their names"


def test_the_mean_over_pairs_is_of_methods_that_all_have():
    table = shown(mean=True)
    assert [cell.text for cell in table.rows[-1].cells] == ["Mean", "", "", "", "6.28", "8.70", "—", "7.95"]
    assert [cell.bold for cell in table.rows[-1].cells[-3:]] == [False, False, True]
    assert "Mean: over the 2 pairs, each of which counts the same." in table.notes
    with pytest.raises(KdbenchError, match="mean: there is one pair"):
        shown(RESULTS, mean=True)


def test_the_mean_over_pairs_is_over_seeds_that_the_methods_share():
    """FT lacks the hard seed of each pair, and is worse by a point in every other."""
    rows = [
        trial(method, seed, None if (method, seed) == ("ft", 4) else error + (5 if seed == 4 else 0), pair=pair)
        for pair in (PAIR, ("resnet110", "resnet32"))
        for method, error in (("scratch", 9.0), ("kd", 7.0), ("ft", 8.0))
        for seed in (1, 2, 3, 4)
    ]
    compared = compare(frame(*rows), options=ReportOptions(mean=True))
    table = result_table(compared)
    assert [(cell.text, cell.bold) for cell in table.rows[-1].cells[-3:]] == [("9.00", False), ("8.00", False), ("7.00", True)]
    assert any(note.endswith("In a pair it is over the seeds that most of the methods share.") for note in table.notes)
    assert means_of_pairs(compared)["FT"].tolist() == [8.0, 8.0]
    assert [row.cells[0].text for row in ranks_table(compared).rows] == ["KD", "FT", "scratch"]


def test_groups_of_methods_and_of_pairs_have_headings():
    table = shown(groups={"Attention": ["at"], "Logits": ["KD", "scratch"]})
    assert (table.columns[-3:], table.groups[-3:]) == (("AT", "scratch", "KD"), ("Attention", "Logits", "Logits"))
    assert r"\multicolumn{2}{c}{Logits}" in to_latex(shown(groups={"Logits": ["kd", "scratch"]}, rows="pairs"))
    assert [row.heading for row in shown(groups={"VGG": ["vgg13 -> vgg8"]}).rows] == ["", "VGG"]
    assert "*VGG*" in to_markdown(shown(groups={"VGG": ["vgg13 -> vgg8"]}))
    turned = shown(groups={"VGG": ["vgg13 -> vgg8"]}, rows="methods", mean=True).turned()
    assert turned.groups == ("", "", "VGG", "")


def test_the_second_best_is_underlined_in_every_form():
    table = shown(second_best=True)
    assert [cell.text for cell in table.rows[0].cells if cell.underlined] == ["7.73 ± 0.15"]
    assert "<u>7.73 ± 0.15</u>" in to_markdown(table)
    assert r"\underline{7.73 $\pm$ 0.15}" in to_latex(table)
    assert "<u>7.73 ± 0.15</u>" in table._repr_html_()


def test_marks_say_what_differs_from_the_baseline():
    table = shown(significance=True, pairs=["resnet56 -> resnet20"])
    assert [(cell.text[:4], cell.mark) for cell in table.rows[0].cells[-3:]] == [("8.20", ""), ("7.73", "*"), ("7.70", "*")]
    assert any(note.startswith("* better than scratch beyond chance") for note in table.notes)
    worse = shown(significance=True, baseline="at", pairs=["resnet56 -> resnet20"])
    assert [cell.mark for cell in worse.rows[0].cells[-3:]] == ["†", "", ""]
    assert r"8.20 $\pm$ 0.20\rlap{$^{\dagger}$}" in to_latex(worse)


@pytest.mark.parametrize(
    ("seeds", "options", "said"),
    [
        (
            (3, 3),
            {"baseline": "kd", "methods": ["kd", "at"]},
            "No method differs from KD beyond chance: every 95 % interval of a gain",
        ),
        ((2, 2), {}, "No method is marked, because n is too small to tell a gain over scratch from chance."),
        (
            (3, 2),
            {},
            "No method is marked. For 1 of 2 gains over scratch, n is too small to tell them from chance. Every other 95 %",
        ),
        ((3, 3), {"methods": ["kd", "at"]}, "No method is marked, because there is no gain over scratch."),
    ],
    ids=["chance", "two seeds", "two seeds of one method", "no baseline"],
)
def test_that_no_method_differs_is_said_where_every_gain_has_an_interval_alone(seeds, options, said):
    of_kd, of_at = seeds
    few = RESULTS[RESULTS["seed"].le(RESULTS["method"].map({"scratch": 3, "kd": of_kd, "at": of_at}))]
    level = few.assign(
        test_error_pct=few["test_error_pct"].mask(few["method"] == "kd", 8.0 + few["seed"].map({1: 0.3, 2: 0, 3: 0.3}))
    )
    notes = shown(level, significance=True, **options).notes
    assert [note[: len(said)] for note in notes if note.startswith("No method")] == [said]


def test_the_best_test_epoch_has_no_marks():
    comparison = compare(TWO, options=ReportOptions(significance=True))
    assert any(cell.mark for row in result_table(comparison).rows for cell in row.cells)
    table = best_epoch_table(comparison)
    assert not any(cell.mark for row in table.rows for cell in row.cells)
    assert not any("beyond chance" in note or "marked" in note for note in table.notes)


def test_a_comment_of_a_tabular_is_one_line():
    noted = RESULTS.assign(notes=[("a note\n\nof two lines",)] * len(RESULTS))
    options = ReportOptions(latex="tabular")
    lines = to_latex(result_table(compare(noted, options=options)), options=options).splitlines()
    assert any("a note of two lines" in line for line in lines)
    assert all(line.startswith("%") for line in lines[: lines.index(next(line for line in lines if "begin" in line))])


def test_latex_is_a_float_or_a_tabular_alone():
    wide = ReportOptions(latex="table*", label="main", caption="Ours")
    text = to_latex(result_table(compare(TWO, options=wide)), options=wide, prefix="quick")
    assert text.startswith(r"\begin{table*}") and r"\caption{Ours.}" in text and r"\label{tab:main-test-error}" in text
    assert r"\label{tab:my-suite-test-error}" in to_latex(shown(), prefix="my_suite")
    bare = to_latex(shown(), options=ReportOptions(latex="tabular"))
    assert "caption" not in bare and "\n" + r"\begin{tabular}" in bare
    assert all(line.startswith("%") for line in bare.split(r"\begin{tabular}")[0].splitlines())


SETTINGS = [{"temperature": 4, "alpha": 0.9}, {"temperature": 2, "alpha": 0.9}]


def test_a_parameter_that_differs_between_pairs_alone_is_in_no_label():
    """As in a suite with `kd`, `kd: {temperature: 2}` and a pair that gives `kd` another alpha."""
    rows = [trial("kd", 1, 7.0, params=setting, trial=f"a{i}") for i, setting in enumerate(SETTINGS)]
    rows += [trial("kd", 1, 9.0, pair=OTHER, params=setting | {"alpha": 0.5}, trial=f"b{i}") for i, setting in enumerate(SETTINGS)]
    assert list(method_labels(frame(*rows))) == ["KD (temperature=4)", "KD (temperature=2)"] * 2
    notes = shown(frame(*rows)).notes
    for temperature in (4, 2):
        told = f"KD (temperature={temperature}) has different parameters in each pair: alpha=0.9 (resnet56 → resnet20); alpha=0.5"
        assert any(note.startswith(told) for note in notes)


def test_a_students_speed_does_not_depend_on_the_methods_that_are_shown():
    results = RESULTS.copy()
    results.loc[results["method"] == "at", "inference_images_per_s"] = 1000.0

    def speed(**options) -> str:
        return cost_table(compare(results, options=ReportOptions(**options))).rows[-1].cells[-2].text

    assert speed() == speed(methods=["kd"]) == speed(methods=["at"]) == "9,000"


def test_gains_are_over_the_baseline_by_any_of_its_names():
    for name in ("kd", "KD", "Hinton"):
        gains = gain_table(compare(RESULTS, options=ReportOptions(baseline=name, names={"kd": "Hinton"})))
        assert gains.title.startswith("Gain over Hinton")


def of_own_networks(*students: str) -> pd.DataFrame:
    """The teacher has weights from a file, whose hash is part of its name."""
    teacher = "my_net (weights 1f9503e5, hooks one two)"
    return frame(*(trial(method, 1, 8.0, pair=(teacher, student)) for student in students for method in ("scratch", "kd")))


def test_an_own_network_is_named_without_what_stands_in_brackets():
    results = of_own_networks("resnet8", "my_nets (raw)")
    table = shown(results, names={"my_net": "CNN-32", "my_nets (raw)": "CNN-8"})
    assert [(cells(table, row)["Teacher"], cells(table, row)["Student"]) for row in (0, 1)] == [
        ("CNN-32", "CNN-8"),
        ("CNN-32", "resnet8"),
    ]
    plain = shown(of_own_networks("my_net"), names={"my_net": "Plain"})
    assert cells(plain)["Student"] == "Plain", "a network that has this whole name is meant"
    assert cells(plain)["Teacher"].startswith("my_net (weights")
    several = r"^names: 'my_net' may be my_net \(raw\) or my_net \(weights .*\)\. Give one of these\.$"
    twice = r"^names: 'my_net \(raw\)' would be called 'A' and 'B'\. Give it one name\.$"
    names = {"my_net (raw)": "A", "my_net": "B"}
    for same, told in ((of_own_networks("my_net (raw)"), several), (RESULTS.assign(student="my_net (raw)"), twice)):
        with pytest.raises(KdbenchError, match=told):
            shown(same, names=names)


def test_a_name_that_lacks_its_brackets_is_answered_with_the_whole_one():
    assert nearest("my_net", ["my_nets", "teacher", "my_net (hooks one two)"]) == " Did you mean 'my_net (hooks one two)'?"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"baseline": "kdd"}, "baseline: 'kdd' is not in this report. Did you mean 'KD'? Choose from scratch, AT, KD."),
        ({"methods": ["kdd"]}, "methods: 'kdd' is not in this report. Did you mean 'KD'? Choose from scratch, AT, KD."),
        ({"pairs": ["resnet56"]}, "pairs: 'resnet56' is not in this report."),
        ({"datasets": ["cifar100"]}, "datasets: 'cifar100' is not in this report. Did you mean 'cifar10'? Choose from cifar10."),
        ({"recipes": ["long"]}, "recipes: 'long' is not in this report. Choose from short."),
        ({"names": {"resnet2": "x"}}, "names: 'resnet2' is not in this report. Did you mean 'resnet20'?"),
        ({"names": {"kd": "AT"}}, "names: AT and KD would both be called 'AT'. Give each a name of its own."),
        ({"names": {"vgg8": "resnet20"}}, "names: resnet20 and vgg8 would both be called 'resnet20'."),
        ({"groups": {"a": ["kd", "vgg13 -> vgg8"]}}, "groups: 'a' has pairs and methods. Make a group of each."),
        ({"groups": {"a": ["kd"], "b": ["kd"]}}, "groups: 'KD' stands in a and b. Leave it in one."),
        ({"groups": {"a": ["kdd"]}}, "groups: 'kdd' is not in this report."),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(options, told):
    with pytest.raises(KdbenchError) as refused:
        shown(**options)
    assert str(refused.value).startswith(told)


def test_a_baseline_of_several_settings_is_ambiguous():
    rows = [trial("kd", 1, 7.0, params=setting, trial=f"a{i}") for i, setting in enumerate(SETTINGS)]
    with pytest.raises(KdbenchError, match=r"baseline: 'kd' may be KD \(temperature=2\) or KD \(temperature=4\)\. Give one"):
        shown(frame(*rows), baseline="kd")
    assert compare(frame(*rows), options=ReportOptions(baseline="KD (temperature=2)")).baseline == "KD (temperature=2)"


def test_a_label_without_a_float_has_no_effect():
    with pytest.raises(ValueError, match="a tabular alone has no label"):
        ReportOptions(latex="tabular", label="x")


def test_a_notebook_shows_the_main_table_and_no_markup_of_names():
    results = TWO.replace({"resnet20": "<script>"})
    shown_html = compare(results, options=ReportOptions(rows="methods", groups={"VGG & Co": ["vgg13 -> vgg8"]}))._repr_html_()
    assert "<script>" not in shown_html and "&lt;script&gt;" in shown_html
    assert "<strong>7.70 ± 0.17</strong>" in shown_html and "VGG &amp; Co" in shown_html


def test_names_in_latex_are_bold_and_cited_where_that_is_asked_for():
    options = ReportOptions(highlight=["at"], cite=True, names={"at": "Mine_1"}, rows="methods")
    comparison = compare(RESULTS, pairs=[PAIR], options=options)
    table = result_table(comparison)
    for style in ("table", "tabular"):
        styled = options.model_copy(update={"latex": style})
        rows = to_latex(table, options=styled, names=latex_names(comparison)).splitlines()
        assert [row.split(" & ")[0] for row in rows if row.startswith((r"\textbf{M", "KD", "scratch"))] == [
            "scratch",
            r"KD~\cite{kd}",
            r"\textbf{Mine\_1}~\cite{at}",
        ]
    assert r" & \textbf{Mine\_1}~\cite{at}" in to_latex(replace(table, turn=False), names=latex_names(comparison))
    assert "cite" not in to_latex(table, options=options) and not latex_names(compare(RESULTS, pairs=[PAIR]))


def test_citations_are_keys_of_the_file_of_papers(tmp_path):
    results = frame(*(trial(method, 1, 7.0) for method in ("scratch", "at+kd", "fitnets_hint")))
    comparison = compare(results, pairs=[PAIR], options=ReportOptions(cite=True))
    write_report(comparison, pd.DataFrame(), title="t", directory=tmp_path, formats=["tex", "bib"])
    cited = {key for keys in re.findall(r"\\cite{(.*?)}", (tmp_path / "tables.tex").read_text()) for key in keys.split(",")}
    assert cited == {"at", "kd", "fitnets"}
    assert cited <= set(re.findall(r"^@\w+{(\w+),", (tmp_path / "methods.bib").read_text(), flags=re.MULTILINE))


def test_a_method_to_highlight_that_is_not_there_is_named():
    with pytest.raises(KdbenchError, match=r"highlight: 'attt' is not in this report\. Did you mean"):
        compare(RESULTS, pairs=[PAIR], options=ReportOptions(highlight=["attt"]))
