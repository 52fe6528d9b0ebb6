"""What a figure shows, that it is legible at its size, and that one method looks the same in all of them."""

import itertools
import json
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.markers import CARETLEFT, CARETRIGHT
from matplotlib.text import Text
from PIL import Image

from kdbench.errors import KdbenchError
from kdbench.report import ReportOptions, compare, write_report
from kdbench.report.figures import cost, curves, forest, method_colours, method_looks, profile, ranks, results, save
from kdbench.report.figures.cost_front import pareto_front
from kdbench.report.figures.far import Extent, shown_range
from kdbench.report.figures.line_breaks import broken
from kdbench.report.figures.looks import colours_of
from kdbench.report.figures.name_places import spread
from kdbench.report.figures.sheet import GREY
from kdbench.report.figures.written import usual_figures, write_figures
from kdbench.report.page.figures import _SHAPES
from kdbench.spec.figure_options import FigureOptions, figures_with
from kdbench.spec.metrics import METRICS
from kdbench.spec.validation import validated

PAIRS = [("resnet56", "resnet20"), ("resnet110", "resnet20")]
EPOCHS = 8
METHODS_OF_THE_FIRST_SUITE = ["scratch", "kd", "at", "fitnets", "ft", "at+kd", "ft+kd"]
LITERATURE = [
    *("scratch", "KD", "AT", "FitNets", "FT", "AT+KD", "FT+KD", "SP", "CC", "VID", "RKD", "PKT", "AB", "FSP", "NST", "CRD", "OFD"),
    *("ReviewKD", "DKD", "DIST", "SimKD"),
]


def make_results(*, methods=("scratch", "kd", "ft"), seeds=3, pairs=PAIRS[:1], **changes) -> pd.DataFrame:
    rows = []
    for (number, (teacher, student)), (position, method), seed in itertools.product(
        enumerate(pairs), enumerate(methods), range(1, seeds + 1)
    ):
        taught = method != "scratch"
        rows.append(
            {
                **{
                    "trial": f"{number}-{method}-{seed}",
                    "dataset": "cifar10",
                    "recipe": "short",
                    "student": student,
                    "method": method,
                },
                **{"teacher": teacher if taught else None, "method_params": json.dumps({part: {} for part in method.split("+")})},
                "dataset_params": "{}",
                **{"seed": seed, "status": "done", "reason": None, "test_error_pct": 8 - 0.3 * position + 0.1 * seed + number},
                **dict.fromkeys(("validation_error_pct", "selected_test_error_pct", "selected_epoch")),
                **{"best_test_error_pct": 7.0, "teacher_error_pct": 6.28 if taught else None, "extra_params": 0, "epochs": EPOCHS},
                **dict.fromkeys(("student_params", "student_macs", "teacher_params", "teacher_macs"), 1e6),
                **{
                    "train_images_per_s": 2000.0 - 100 * position,
                    "inference_images_per_s": 1.0,
                    "teacher_inference_images_per_s": 1.0,
                },
                **{"precision": "fp32", "protocol": 1, "method_code": "c", "data_fingerprint": "d", "environment": "H100"},
                **{"core_code": "c", "teacher_weights_sha256": "w", "start_weights_sha256": None},
                **{"setting": method, "stage_epochs": 0, "stages": None, "train_s": 10.0 + position},
                **changes,
            }
        )
    results = pd.DataFrame(rows)
    return results[results["teacher"].notna() | results["trial"].str.startswith("0")].reset_index(drop=True)


def make_curves(results: pd.DataFrame, *, epochs: int = EPOCHS) -> pd.DataFrame:
    """Every trial falls by one point each epoch to its test error; a hint stage before it stands at 99 %."""
    return pd.DataFrame(
        {"trial": trial, "stage": stage, "epoch": epoch, "test_error_pct": error + epochs - epoch if stage == "main" else 99.0}
        for trial, error in zip(results["trial"], results["test_error_pct"], strict=True)
        for stage in ("hint", "main")
        for epoch in range(1, epochs + 1)
    )


def compared(results: pd.DataFrame, *, pairs=PAIRS[:1], metric: str = "error", **figure_options):
    return compare(results, pairs=pairs, options=ReportOptions(metric=metric, figures=figure_options))


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def legend_texts(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def drawn_texts(figure) -> dict[Text, str]:
    """The texts that are drawn, ticks outside of a panel's range not among them."""
    found, draw = {}, Text.draw

    def record(text, *args, **options):
        if text.get_visible() and text.get_text().strip():
            found[text] = text.get_text()
        draw(text, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        figure.draw_without_rendering()
    return found


def illegible(figure) -> list[str]:
    """What is cut off, covers another text, or is too small."""
    boxes = {text: Text.get_window_extent(text) for text in drawn_texts(figure)}
    canvas = figure.bbox.padded(0.5)
    return [
        *(
            f"cut off: {text.get_text()}"
            for text, box in boxes.items()
            if not (canvas.contains(*box.min) and canvas.contains(*box.max))
        ),
        *(
            f"overlap: {one.get_text()} / {other.get_text()}"
            for one, other in itertools.combinations(boxes, 2)
            if boxes[one].padded(-0.5).overlaps(boxes[other].padded(-0.5))
        ),
        *(f"small: {text.get_text()}" for text in boxes if text.get_fontsize() < 6.5),
    ]


def muddled(axes) -> list[str]:
    """Lines from points to their names that cross a name or each other."""
    boxes = {text.get_text(): Text.get_window_extent(text).padded(-1) for text in axes.texts if text.get_text()}
    arrows = [text.arrow_patch for text in axes.texts if text.arrow_patch]
    lines = [arrow.get_transform().transform_path(arrow.get_path()) for arrow in arrows]
    return [
        *(f"over {name}" for line in lines for name, box in boxes.items() if line.intersects_bbox(box, filled=False)),
        *("two lines cross" for one, other in itertools.combinations(lines, 2) if one.intersects_path(other, filled=False)),
    ]


# Looks


@pytest.mark.parametrize("count", [29, 57])
def test_up_to_fifty_seven_methods_all_look_different(count):
    labels = [*LITERATURE, *(f"NEW {number}" for number in range(count - len(LITERATURE)))]
    looks = method_looks(labels)
    assert list(looks) == labels
    assert len(set(looks.values())) == count
    assert len({(look.colour, look.dashes) for look in looks.values()}) == count, "lines may have no markers"
    assert len({(look.colour, look.marker) for look in looks.values()}) == count, "points have no dashes"
    assert {look.marker for look in looks.values()} <= set(_SHAPES), "the page has a shape for each"


@pytest.mark.parametrize(("count", "marked"), [(7, False), (31, True)])
def test_lines_of_one_colour_have_markers_of_their_own_in_panels_and_legends(count, marked):
    names = ["scratch", *(f"m{number}" for number in range(count - 1))] if marked else METHODS_OF_THE_FIRST_SUITE
    found = make_results(methods=names, pairs=PAIRS)
    for figure in (profile(compared(found, pairs=PAIRS)), curves(compared(found, pairs=PAIRS), make_curves(found, epochs=60))):
        for lines in (figure.axes[0].lines, figure.legends[0].get_lines()):
            drawn = {(line.get_color(), line.get_marker()) for line in lines}
            assert len(drawn) == len(names)
            assert marked == any(marker not in ("", "None") for _, marker in drawn)


def test_a_known_method_looks_the_same_beside_any_others():
    alone = {label: method_looks([label])[label] for label in LITERATURE}
    assert method_looks(["OURS", *reversed(LITERATURE), "FT (k=2)"]).items() >= alone.items()


def test_a_new_method_keeps_its_look_unless_it_is_taken():
    assert method_looks(["scratch", "OURS"])["OURS"] == method_looks(["OURS"])["OURS"]
    assert method_looks(["OURS", "THEIRS"]) == method_looks(["THEIRS", "OURS"])


def test_settings_of_a_new_method_have_colours_of_their_own_while_there_are_any():
    labels = ["scratch", *(f"soft_pool (beta={beta})" for beta in ("0.1", "1", "10", "100"))]
    assert len({*method_colours(labels).values()}) == len(labels)


def test_the_seven_methods_of_the_first_suite_have_seven_colours():
    colours = method_colours(["scratch", "KD", "AT", "FitNets", "FT", "AT+KD", "FT+KD"])
    assert len(set(colours.values())) == 7
    assert (colours["scratch"], colours["KD"], colours["FT"]) == ("#000000", "#0072B2", "#CC79A7"), "as in figures already printed"


# Linear-light transforms of Machado, Oliveira and Fernandes, 2009, severity 1.
DEFICIENCIES = {
    "none": np.eye(3),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "tritanopia": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB under D65."""
    to_xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    f = np.cbrt(to_xyz @ np.clip(linear, 0, 1) / [0.9505, 1, 1.0888])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_any_two_colours_differ_for_every_eye(deficiency):
    colours = set(method_colours(LITERATURE).values())
    assert len(colours) == 8
    seen = [lab(DEFICIENCIES[deficiency] @ np.power(to_rgb(colour), 2.2)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 12


# Results and gains


def test_results_show_every_seed_the_mean_and_the_teacher():
    figure = results(compared(make_results()))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["scratch", "KD", "FT"]
    assert [list(dots.get_offsets()[:, 0]) for dots in axes.collections] == [
        pytest.approx([8.1, 8.2, 8.3]),
        pytest.approx([7.8, 7.9, 8.0]),
        pytest.approx([7.5, 7.6, 7.7]),
    ]
    means = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "|"]
    assert means == pytest.approx([8.2, 7.9, 7.6])
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() != "|"] == [pytest.approx(6.28)]
    assert legend_texts(figure) == ["one seed", "mean", "teacher"]
    assert axes.get_xlabel() == "test error (%) ↓"


def test_titles_are_short_and_leave_the_environment_to_the_caption():
    figure = results(compared(make_results()))
    assert figure.get_suptitle() == "Test error by method on cifar10\nresnet56 → resnet20"


def test_a_title_is_broken_before_its_brackets():
    figure = results(compared(make_results(dataset="CIFAR-10 (8,000 training images)")))
    assert figure.get_suptitle().splitlines()[:2] == ["Test error by method on CIFAR-10", "(8,000 training images)"]


@pytest.mark.parametrize(
    ("text", "letters", "lines"),
    [
        ("resnet56 (n = 3)", 12, ["resnet56", "(n = 3)"]),
        ("resnet56 over n = 3", 15, ["resnet56 over", "n = 3"]),
        ("FT (RepDistiller, beta=1)", 22, ["FT", "(RepDistiller, beta=1)"]),
        ("AT+KD (at.beta=300, kd.alpha=0.5)", 22, ["AT+KD (at.beta=300,", "kd.alpha=0.5)"]),  # no line holds these brackets
        ("on Fashion-MNIST", 12, ["on Fashion-", "MNIST"]),
        ("on Fashion-MNIST", 13, ["on", "Fashion-MNIST"]),
    ],
)
def test_lines_end_between_words_outside_of_brackets(text, letters, lines):
    assert broken(text, letters) == lines


def test_accuracy_turns_the_numbers_and_the_arrow():
    (axes,) = results(compared(make_results(), metric="accuracy")).axes
    means = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "|"]
    assert means == pytest.approx([91.8, 92.1, 92.4])
    assert axes.get_xlabel() == "test accuracy (%) ↑"


@pytest.mark.parametrize("metric", ["error", "accuracy"])
def test_gains_point_to_the_right_whatever_the_metric(metric):
    (axes,) = forest(compared(make_results(), metric=metric)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["KD", "FT"]
    gains = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert gains == pytest.approx([0.3, 0.6])


@pytest.mark.parametrize(("seeds", "intervals"), [(2, 0), (3, 2)])
def test_gains_have_intervals_from_three_seeds_on(seeds, intervals):
    (axes,) = forest(compared(make_results(seeds=seeds))).axes
    assert len(axes.collections) == intervals


def test_a_gain_that_may_be_chance_is_a_hollow_mark():
    frame = make_results(seeds=4)
    frame.loc[frame["method"] == "kd", "test_error_pct"] = [8.2, 8.1, 8.4, 8.3]
    figure = forest(compared(frame))
    (axes,) = figure.axes
    assert legend_texts(figure) == ["95 %, new seeds", "may be chance"]
    assert legend_texts(forest(compared(make_results(seeds=4)))) == ["95 %, new seeds"]
    assert [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"] == [
        "white",
        method_colours(["FT"])["FT"],
    ]


def test_there_is_a_panel_for_each_pair_and_scratch_stands_in_both():
    axes = panels(results(compared(make_results(pairs=PAIRS), pairs=PAIRS)))
    assert list(axes) == ["resnet56 → resnet20", "resnet110 → resnet20"]
    assert [len([line for line in panel.lines if line.get_marker() == "|"]) for panel in axes.values()] == [3, 3]


def test_seeds_of_equal_error_are_all_seen():
    figure = results(compared(make_results(methods=("kd",), test_error_pct=8.0)))
    dots = figure.axes[0].collections[0].get_offsets()
    assert len({tuple(dot) for dot in dots.tolist()}) == 3


def test_a_method_without_a_result_keeps_its_row():
    frame = make_results()
    frame.loc[frame["method"] == "kd", "status"] = "failed"
    for figure in (results(compared(frame)), forest(compared(frame))):
        assert texts(figure.axes[0]) == ["no result"]
        assert "KD" in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_a_method_far_off_is_an_arrow_with_its_value_and_does_not_squeeze_the_others():
    frame = make_results(methods=("scratch", "kd", "at", "sp", "ft"))
    frame.loc[frame["method"] == "ft", "test_error_pct"] = 75.65
    (axes,) = results(compared(frame)).axes
    assert texts(axes) == ["75.65 →"]
    assert axes.get_xlim()[1] < 9
    (axes,) = forest(compared(frame)).axes
    assert texts(axes) == ["← −67.45"]
    (axes,) = cost(compared(frame)).axes
    assert "FT 75.65 ↑" in texts(axes)
    assert axes.get_ylim()[1] < 9


def test_fewer_than_half_of_the_methods_can_be_far_off():
    extents = {name: Extent(value, value, value) for name, value in {"a": 1, "b": 1.1, "c": 70, "d": 71, "e": 1.2}.items()}
    spread_out = {str(value): Extent(value, value, value) for value in (1, 2, 2.4, 2.5, 2.6, 3, 4, 6)}
    assert shown_range(spread_out) == (1, 6, []), "there is no gap"
    assert shown_range(extents) == (1, 1.2, ["c", "d"])
    assert shown_range({name: extents[name] for name in "abcd"})[2] == []
    assert shown_range(extents, always=60)[:2] == (1, 71)
    equal = {name: Extent(value, value, value) for name, value in {"a": 0, "b": 0, "c": 0, "d": 0, "e": 5}.items()}
    assert shown_range(equal) == (0, 5, []), "a method has no distance from equal ones, and squeezes nothing"


def test_a_long_interval_ends_in_an_arrow_and_does_not_squeeze_the_others():
    frame = make_results(methods=("scratch", "kd", "at", "sp", "ft"), seeds=5)
    frame["test_error_pct"] += np.random.default_rng(0).normal(0, 0.1, len(frame))
    frame.loc[frame["method"] == "ft", "test_error_pct"] = [5.0, 9.0, 7.6, 8.5, 6]
    (axes,) = forest(compared(frame)).axes
    assert sorted(line.get_marker() for line in axes.lines if isinstance(line.get_marker(), int)) == [CARETLEFT, CARETRIGHT]
    assert np.diff(axes.get_xlim()) < 4


# Cost


def by_pareto(points: pd.DataFrame, sign: int) -> set[str]:
    """Every two points compared."""
    rows = {name: (row["cost"], sign * row["value"]) for name, row in points.iterrows()}
    return {
        name
        for name, (cost, loss) in rows.items()
        if not any(c <= cost and v <= loss and (c, v) != (cost, loss) for c, v in rows.values())
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12),
    st.sampled_from([METRICS["error"], METRICS["accuracy"]]),
)
def test_the_front_is_what_no_other_method_beats(points, metric):
    frame = pd.DataFrame(points, columns=["cost", "value"], index=[f"m{i}" for i in range(len(points))])
    front = pareto_front(frame, metric)
    assert set(front) == by_pareto(frame, 1 if metric.lower_is_better else -1)
    assert list(frame.loc[front, "cost"]) == sorted(frame.loc[front, "cost"])


def test_no_front_is_drawn_of_students_that_were_stacked():
    stacked = compared(make_results().assign(precision="fp32, stacked"))
    with pytest.raises(KdbenchError, match=r"times of stacked students are not what each costs alone\. Leave it out"):
        cost(stacked)


@pytest.mark.parametrize("metric", ["error", "accuracy"])
def test_the_front_is_drawn_and_named(metric):
    frame = make_results(methods=("scratch", "kd", "at", "ft"))
    frame["train_s"] = frame["method"].map({"scratch": 10.0, "kd": 12.0, "at": 11.0, "ft": 11.5})
    figure = cost(compared(frame, metric=metric))
    (front,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 1 and line.get_color() == GREY]
    value = {"scratch": 8.2, "at": 7.6, "ft": 7.3}
    value = value if metric == "error" else {method: 100 - error for method, error in value.items()}
    assert list(front.get_xdata())[:-1] == [10, 10, 11, 11, 11.5, 11.5]
    assert list(front.get_ydata())[1:] == pytest.approx([*[value["scratch"]] * 2, *[value["at"]] * 2, *[value["ft"]] * 2])
    assert legend_texts(figure) == ["Pareto front"]
    assert sorted(texts(figure.axes[0])) == ["AT", "FT", "KD", "scratch"]


def test_with_many_methods_the_front_alone_is_named_beside_its_points():
    frame = make_results(methods=["scratch", *(f"m{number}" for number in range(11))])
    frame["train_s"] = 10 + frame["test_error_pct"]  # the cheapest is the best
    figure = cost(compared(frame))
    assert texts(figure.axes[0]) == ["m10"]
    assert legend_texts(figure)[:3] == ["Pareto front", "scratch", "m0"]


def test_with_very_many_methods_the_front_and_the_baseline_alone_have_names_and_colours():
    frame = make_results(methods=["scratch", *(f"m{number}" for number in range(15))])
    frame["train_s"] = 10 + frame["test_error_pct"]
    figure = cost(compared(frame))
    assert sorted(texts(figure.axes[0])) == ["m14", "scratch"]
    assert legend_texts(figure) == ["Pareto front"]
    colours = [line.get_color() for line in figure.axes[0].lines if line.get_marker() not in ("", "None")]
    assert len(colours) == 16 and colours.count(colours[1]) == 14


def test_points_are_named_inside_the_panel_and_apart():
    names = ["scratch", *(f"method_{number}" for number in range(9))]
    crowd = make_results(methods=names, test_error_pct=8.0)
    crowd["train_s"] = crowd["method"].map({name: 5000.0 + 125 * position for position, name in enumerate(names[1:])})
    crowd.loc[crowd["method"] == "scratch", "train_s"] = 3000.0
    figure = cost(compared(crowd))
    (axes,) = figure.axes
    assert illegible(figure) == []
    boxes = [Text.get_window_extent(text) for text in axes.texts if text.get_text()]
    panel = axes.get_window_extent().padded(1)
    assert len(boxes) == len(names)
    assert all(panel.x0 <= box.x0 and box.x1 <= panel.x1 for box in boxes)
    assert axes.get_xlabel() == "training of one student (minutes) ←"


def test_lines_to_names_in_a_crowd_cross_no_name_and_no_other_line():
    front = [(33, 45.0), (25, 30.9), (26, 29.2), (34, 28.4), (72.6, 27.6), (72.9, 26.2), (73.2, 25.8), (73.5, 23.6), (75.6, 21.8)]
    names = ["scratch", *(f"a_long_name_{number}" for number in range(8))]
    crowd = make_results(methods=names)
    for name, (cost_s, error) in zip(names, front, strict=True):
        crowd.loc[crowd["method"] == name, ["train_s", "test_error_pct"]] = cost_s, error
    figure = cost(compared(crowd))
    assert any(text.arrow_patch for text in figure.axes[0].texts), "not all have room beside their points"
    assert illegible(figure) + muddled(figure.axes[0]) == []


def test_costs_of_two_environments_stand_in_two_panels():
    frame = make_results()
    frame.loc[frame["method"] == "ft", "environment"] = "CPU"
    assert list(panels(cost(compared(frame)))) == ["H100", "CPU"]


# Curves


def test_curves_are_means_over_seeds_of_the_main_stage_and_are_named_at_their_ends():
    frame = make_results()
    (whole,) = curves(compared(frame), make_curves(frame)).axes
    kd = next(line for line in whole.lines if line.get_color() == method_colours(["KD"])["KD"])
    assert list(kd.get_xdata()) == list(range(1, EPOCHS + 1))
    assert list(kd.get_ydata()) == pytest.approx([7.9 + EPOCHS - epoch for epoch in range(1, EPOCHS + 1)])
    assert texts(whole) == ["FT", "KD", "scratch"]
    assert not whole.collections, "bands would cover one another"


def test_curves_of_failed_trials_are_left_out():
    frame = make_results()
    frame.loc[frame["trial"] == "0-kd-1", "status"] = "failed"
    (whole,) = curves(compared(frame), make_curves(frame)).axes
    kd = next(line for line in whole.lines if line.get_color() == method_colours(["KD"])["KD"])
    assert list(kd.get_ydata())[-1] == pytest.approx(7.95)


@pytest.mark.parametrize(("epochs", "shown"), [(19, 1), (20, 2)])
def test_the_last_quarter_is_shown_apart_where_it_has_points_enough(epochs, shown, monkeypatch):
    monkeypatch.setitem(globals(), "EPOCHS", epochs)
    frame = make_results()
    figure = curves(compared(frame), make_curves(frame, epochs=epochs))
    assert len(figure.axes) == shown
    if shown == 2:
        assert min(figure.axes[1].lines[0].get_xdata()) == 16


def test_lines_from_ends_of_curves_to_names_cross_no_name():
    frame = make_results(methods=METHODS_OF_THE_FIRST_SUITE)
    frame["test_error_pct"] = 6 + 0.01 * frame["test_error_pct"]  # all end at the bottom
    figure = curves(compared(frame), make_curves(frame))
    assert len([text for text in figure.axes[0].texts if text.arrow_patch]) == 7
    assert muddled(figure.axes[0]) == []


@pytest.mark.parametrize(
    ("metric", "epochs", "label", "titles"),
    [
        ("error", 8, "test error (%), log scale ↓", [""]),
        ("error", 20, "test error (%) ↓", ["whole training, log scale", "last quarter"]),
        ("accuracy", 20, "test accuracy (%) ↑", ["whole training", "last quarter"]),
    ],
)
def test_a_figure_of_curves_says_where_its_axis_is_logarithmic(metric, epochs, label, titles):
    frame = make_results(seeds=1)
    figure = curves(compared(frame, metric=metric), make_curves(frame, epochs=epochs))
    assert (figure.get_supylabel() or figure.axes[0].get_ylabel()) == label
    assert [axes.get_title() for axes in figure.axes] == titles
    assert [axes.get_yscale() for axes in figure.axes] == ["log" if metric == "error" else "linear", "linear"][: len(titles)]


def test_an_error_of_0_is_drawn_on_an_axis_that_has_it():
    frame = make_results(seeds=1).assign(test_error_pct=0.0)
    figure = curves(compared(frame), make_curves(frame, epochs=8))
    (axes,) = figure.axes
    assert (axes.get_yscale(), figure.get_supylabel() or axes.get_ylabel()) == ("linear", "test error (%) ↓")
    assert axes.get_ylim()[0] <= 0


def test_many_curves_have_a_legend():
    frame = make_results(methods=[f"m{number}" for number in range(14)])
    figure = curves(compared(frame), make_curves(frame))
    assert legend_texts(figure) == [f"m{number}" for number in range(14)]
    assert not texts(figure.axes[0])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_names_at_the_ends_of_lines_keep_their_order_and_a_distance(places):
    spaced = spread(places, gap=5, low=0, high=100)
    order = np.argsort(places, kind="stable")
    assert np.all(np.diff(np.array(spaced)[order]) >= 5 - 1e-9)
    assert min(spaced) >= 0 and max(spaced) <= 100 + 1e-9
    if np.all(np.diff(np.sort(places)) >= 5):
        assert spaced == pytest.approx(places), "what has room stays where it is"


# Several pairs

FIVE = [(f"t{number}", f"s{number}") for number in range(5)]


def five_pairs(methods=("scratch", "kd", "at", "ft")) -> pd.DataFrame:
    """The last of the methods, usually FT, is best in all of five pairs, and scratch is the worst."""
    of_pairs = [make_results(methods=methods, pairs=[pair]) for pair in FIVE]
    return pd.concat(rows.assign(trial=f"{number}-" + rows["trial"]) for number, rows in enumerate(of_pairs))


def test_ranks_stand_on_a_line_and_a_bar_joins_what_is_not_told_apart():
    (axes,) = ranks(compared(five_pairs(), pairs=FIVE)).axes
    assert {text.get_text() for text in axes.texts} >= {"FT 1.00", "AT 2.00", "KD 3.00", "scratch 4.00"}
    bars = [list(line.get_xdata()) for line in axes.lines if line.get_color() == "black" and len(line.get_xdata()) == 2]
    assert [[round(end) for end in bar] for bar in bars] == [[1, 3], [2, 4]], "the critical difference is 2.10"
    assert axes.get_xlabel() == "mean rank over 5 pairs, 1 is best"


@pytest.mark.parametrize("style", ["paper", "slides"])
@pytest.mark.parametrize("count", [3, 20])
def test_long_names_of_ranks_do_not_cover_one_another(count, style):
    names = ["a method with a name that is long", "one (beta=50, k=2) of three lines that is longer still", "m"]
    methods = ["scratch", *(f"{names[number % 3]} {number}" for number in range(count - 1))]
    assert illegible(ranks(compared(five_pairs(methods), pairs=FIVE, style=style))) == []


def test_accuracy_ranks_as_error_does():
    (axes,) = ranks(compared(five_pairs(), pairs=FIVE, metric="accuracy")).axes
    assert "FT 1.00" in [text.get_text() for text in axes.texts]


def test_a_profile_rises_from_the_share_of_pairs_won():
    (axes,) = profile(compared(five_pairs(), pairs=FIVE)).axes
    starts = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
    assert starts == {"scratch": 0, "KD": 0, "AT": 0, "FT": 1}
    assert {line.get_ydata()[-1] for line in axes.lines} == {1}


@pytest.mark.parametrize(("metric", "drawn"), [("nll", "NLL"), ("accuracy", "error")])
def test_a_profile_has_the_metric_of_its_table(metric, drawn):
    frame = five_pairs()
    frame["test_nll"] = 5.0 - frame["test_error_pct"] / 100
    (axes,) = profile(compared(frame, pairs=FIVE, metric=metric)).axes
    assert axes.get_xlabel().startswith(drawn)
    starts = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
    assert max(starts, key=starts.get) == ("FT" if drawn == "error" else "scratch")


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (ranks, "needs 5 pairs and 3 methods that are done in all of them, and here are 1 and 3"),
        (profile, "needs two pairs or more, and here is one"),
        (lambda comparison: curves(comparison, pd.DataFrame()), "no training was tested at two epochs"),
        (lambda comparison: forest(compared(make_results(methods=("kd", "ft")))), "no gain over scratch to draw"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(draw, message):
    with pytest.raises(KdbenchError, match=message):
        draw(compared(make_results()))


@pytest.mark.parametrize("draw", [results, cost])
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(KdbenchError, match=r"no trial is done\. Run the suite first\."):
        draw(compared(make_results(status="failed")))


# Sizes and legibility


@pytest.mark.parametrize(
    ("options", "inches"),
    [
        ({}, (3.3, None)),
        ({"columns": 2}, (6.8, None)),
        ({"size": "4.5x3"}, (4.5, 3)),
        ({"style": "slides"}, (13.33, 7.5)),
        ({"style": "slides", "size": "10x5.6"}, (10, 5.6)),
    ],
)
def test_a_figure_has_the_size_that_is_asked_for(options, inches, tmp_path):
    figure = results(compared(make_results(), **options))
    width, height = figure.get_size_inches()
    assert width == inches[0]
    assert height == (inches[1] or pytest.approx(1.9, abs=0.3))
    (file,) = save(figure, tmp_path / "figure", formats=["png"])
    with Image.open(file) as image:
        assert image.size == pytest.approx((200 * width, 200 * height), abs=1)


def test_two_pairs_take_both_columns_unless_one_is_asked_for():
    frame = make_results(pairs=PAIRS)
    assert results(compared(frame, pairs=PAIRS)).get_size_inches()[0] == 6.8
    assert results(compared(frame, pairs=PAIRS, columns=1)).get_size_inches()[0] == 3.3


def test_letters_have_the_size_that_is_asked_for():
    figure = results(compared(make_results(), font_size=10))
    assert {text.get_fontsize() for text in drawn_texts(figure)} == {10, 8.75}


def test_letters_become_smaller_to_fit_and_no_smaller_than_can_be_read():
    frame = make_results(methods=["scratch", *(f"m{number}" for number in range(26))])
    figure = forest(compared(frame, style="slides"))
    assert 11 <= figure.axes[0].xaxis.label.get_size() < 18
    with pytest.raises(KdbenchError, match=r"does not fit 3.3 x 2.4 inches with letters of 7.5 points: it needs a height of \d"):
        results(compared(frame, size="3.3x2.4"))


def test_without_a_title_panels_of_several_pairs_keep_their_names():
    assert not results(compared(make_results(), title=False)).get_suptitle()
    figure = results(compared(make_results(pairs=PAIRS), pairs=PAIRS, title=False))
    assert not figure.get_suptitle()
    assert list(panels(figure)) == ["resnet56 → resnet20", "resnet110 → resnet20"]


LONG = ["scratch", "kd", "attention transfer with a long name", "méthode_très_longue_без_пробелов_и_ещё", "a_$x$_%&#", "ft"]
FRAMES = {
    "seven methods": lambda: make_results(methods=["scratch", "kd", "at", "fitnets", "ft", "at+kd", "ft+kd"], seeds=5),
    "27 methods": lambda: make_results(methods=["scratch", *(f"method_{number}" for number in range(26))]),
    "two methods": lambda: make_results(methods=["scratch", "kd"]),
    "one seed": lambda: make_results(seeds=1),
    "long names": lambda: make_results(
        methods=LONG, pairs=[("torchvision/convnext_large_in22k_ft", "timm/mobilenetv4_conv_small")]
    ),
    "five pairs": five_pairs,
}


def test_the_name_of_an_axis_is_broken_where_a_line_is_too_short():
    options = ReportOptions(names={"scratch": "The student without a teacher"}, figures={"columns": 1})
    (axes,) = (figure := forest(compare(make_results(), pairs=PAIRS[:1], options=options))).axes
    assert axes.get_xlabel().split("\n") == ["gain over The student without a teacher (points),", "better →"]
    assert illegible(figure) == []
    figure = forest(compare(make_results(pairs=PAIRS), pairs=PAIRS, options=options))
    assert len(figure.legends[0].get_title().get_text().split("\n")) == 2
    assert illegible(figure) == []


@pytest.mark.parametrize(
    ("name", "style", "metric"),
    [*((name, "paper", "error") for name in FRAMES), ("seven methods", "slides", "accuracy"), ("five pairs", "slides", "accuracy")],
)
def test_nothing_is_cut_off_covered_or_too_small(name, style, metric):
    frame = FRAMES[name]()
    pairs = list(dict.fromkeys(frame.dropna(subset="teacher")[["teacher", "student"]].itertuples(index=False, name=None)))
    comparison = compared(frame, pairs=pairs, style=style, metric=metric)
    drawn = [results(comparison), forest(comparison)]
    drawn += (
        [ranks(comparison), profile(comparison)] if len(pairs) > 1 else [cost(comparison), curves(comparison, make_curves(frame))]
    )
    assert [fault for figure in drawn for fault in illegible(figure)] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": "8cm"},
            r"'8cm' is not the size of a figure\. Give width and height in inches, from 1 to 60 each, such as 3\.3x2\.4",
        ),
        ({"size": "0.5x3"}, "is not the size of a figure"),
        ({"size": "3x2", "columns": 1}, "both say how wide a figure is"),
        ({"style": "slides", "columns": 2}, "a slide has none"),
        ({"columns": 3}, "must be 1 or 2"),
        ({"only": ["forrest"]}, r"only\[0\]: must be 'results', 'forest', 'ranks', 'cost', 'curves' or 'profile'"),
        ({"font_size": 1}, "must be greater than or equal to 4"),
    ],
)
def test_what_cannot_be_a_figure_is_told_with_the_choices(options, message):
    with pytest.raises(KdbenchError, match=message):
        validated(FigureOptions, options, source="options")


@pytest.mark.parametrize(
    ("given", "changes", "together"),
    [
        ({"columns": 2, "title": False}, {"size": "3x2"}, {"title": False, "size": "3x2"}),
        ({"size": "3x2"}, {"columns": 1}, {"columns": 1}),
        ({"columns": 2}, {"style": "slides"}, {"style": "slides"}),
        ({"only": ["cost"]}, {"only": ["forest"]}, {"only": ["forest"]}),
    ],
)
def test_an_option_stands_for_the_suites_and_for_what_it_replaces(given, changes, together):
    assert figures_with(given, changes) == together


# Files


def test_files_embed_truetype_fonts_and_do_not_depend_on_the_time(tmp_path):
    figure = results(compared(make_results(seeds=1)))
    files = save(figure, tmp_path / "a v1.5")
    assert [file.name for file in files] == ["a v1.5.png", "a v1.5.pdf"]
    with mpl.rc_context({"pdf.compression": 0}):
        save(figure, tmp_path / "plain", formats=["pdf"])
    pdf = (tmp_path / "plain.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def written(tmp_path, frame, *, pairs=PAIRS[:1], formats=("md", "png"), **figure_options) -> list[str]:
    comparison = compared(frame, pairs=pairs, **figure_options)
    files = write_report(comparison, make_curves(frame), title="Short", directory=tmp_path, formats=formats)
    assert all(file.stat().st_size for file in files)
    return [file.name for file in files]


def test_a_report_embeds_its_figures_with_captions(tmp_path):
    files = written(tmp_path, make_results())
    assert files == ["report.md", "test_error.png", "forest.png", "curves.png", "cost.png"]
    text = (tmp_path / "report.md").read_text()
    assert all(f"]({file})" in text for file in files[1:])
    captions = [line for line in text.splitlines() if line.endswith("n = 3 seeds. Measured on H100.")]
    assert len(captions) == 4


def test_a_report_has_no_gains_of_fewer_than_three_seeds(tmp_path):
    assert written(tmp_path, make_results(seeds=2))[1:] == ["test_error.png", "curves.png", "cost.png"]


@pytest.mark.parametrize(("seeds", "teacher", "drawn"), [(3, 6.28, True), (1, None, False)])
def test_captions_explain_no_more_than_what_is_drawn(seeds, teacher, drawn, tmp_path):
    comparison = compared(make_results(seeds=seeds, teacher_error_pct=teacher), only=["results", "cost"])
    of_results, of_cost = (figure.caption for figure in write_figures(comparison, pd.DataFrame(), directory=tmp_path, formats=[]))
    assert ("dashed line is the teacher" in of_results) == ("one standard deviation over seeds" in of_cost) == drawn


def test_a_report_of_many_pairs_has_ranks(tmp_path):
    assert usual_figures(compared(five_pairs(), pairs=FIVE)) == ["results", "forest", "ranks", "curves", "cost"]
    assert written(tmp_path, five_pairs(), pairs=FIVE, formats=["png"], only=["ranks"]) == ["ranks.png"]


def test_a_report_has_the_figures_that_are_asked_for_and_says_what_cannot_be_drawn(tmp_path):
    assert written(tmp_path, make_results(), formats=["pdf"], only=["cost", "forest"]) == ["cost.pdf", "forest.pdf"]
    with pytest.raises(KdbenchError, match="critical-difference diagram needs 5 pairs"):
        written(tmp_path, make_results(), only=["ranks"])


def test_pairs_that_do_not_fit_one_slide_fill_several(tmp_path):
    files = written(tmp_path, five_pairs(), pairs=FIVE, formats=["png"], only=["results"], size="3.3x3")
    assert files == ["test_error-1.png", "test_error-2.png"]


def test_drawing_leaves_no_global_state():
    with mpl.rc_context():
        mpl.rcdefaults()
        before = dict(mpl.rcParams)
        results(compared(make_results(seeds=1)))
        assert dict(mpl.rcParams) == before


def test_tables_need_no_drawing_library():
    code = "import sys, kdbench.report; print([name for name in ('matplotlib', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_method_has_one_colour_in_all_figures():
    frame = make_results()
    drawn = [draw(compared(frame)) for draw in (results, forest, cost)] + [curves(compared(frame), make_curves(frame))]
    for figure in drawn:
        assert method_colours(["FT"])["FT"] in [
            colour for line in figure.axes[0].lines for colour in (line.get_color(), line.get_markeredgecolor())
        ]


def test_a_method_that_the_report_calls_otherwise_keeps_its_look():
    named = compare(make_results(), options=ReportOptions(names={"kd": "Hinton KD"}))
    assert colours_of(named)["Hinton KD"] == method_colours(["KD"])["KD"]
