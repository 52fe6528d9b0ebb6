"""What a figure shows, and that one method looks the same in all of them."""

import itertools
import json
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation

from kdbench.errors import KdbenchError
from kdbench.report import compare, write_report
from kdbench.report.plots import cost_plot, curves_plot, method_colours, method_looks, result_plot, save

PAIRS = [("resnet56", "resnet20"), ("resnet110", "resnet20")]
EPOCHS = 8
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


def make_curves(results: pd.DataFrame) -> pd.DataFrame:
    """Every trial falls by one point each epoch to its test error; a hint stage before it stands at 99 %."""
    return pd.DataFrame(
        {"trial": trial, "stage": stage, "epoch": epoch, "test_error_pct": error + EPOCHS - epoch if stage == "main" else 99.0}
        for trial, error in zip(results["trial"], results["test_error_pct"], strict=True)
        for stage in ("hint", "main")
        for epoch in range(1, EPOCHS + 1)
    )


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


# Looks


def test_up_to_twenty_nine_methods_all_look_different():
    labels = [*LITERATURE, *(f"NEW {number}" for number in range(8))]
    looks = method_looks(labels)
    assert list(looks) == labels
    assert len(set(looks.values())) == 29
    assert len({(look.colour, look.dashes) for look in looks.values()}) == 29, "lines have no markers"
    assert len({(look.colour, look.marker) for look in looks.values()}) == 29, "points have no dashes"


def test_a_known_method_looks_the_same_beside_any_others():
    alone = {label: method_looks([label])[label] for label in LITERATURE}
    assert method_looks(["OURS", *reversed(LITERATURE), "FT (k=2)"]).items() >= alone.items()


def test_a_new_method_keeps_its_look_unless_it_is_taken():
    assert method_looks(["scratch", "OURS"])["OURS"] == method_looks(["OURS"])["OURS"]
    assert method_looks(["OURS", "THEIRS"]) == method_looks(["THEIRS", "OURS"])


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


# The figures


def test_the_error_plot_shows_every_seed_the_mean_and_the_teacher():
    figure = result_plot(compare(make_results(), pairs=PAIRS[:1]))
    axes = panels(figure)["resnet56 → resnet20"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["scratch", "KD", "FT"]
    assert [list(dots.get_offsets()[:, 0]) for dots in axes.collections[::2]] == [
        pytest.approx([8.1, 8.2, 8.3]),
        pytest.approx([7.8, 7.9, 8.0]),
        pytest.approx([7.5, 7.6, 7.7]),
    ]
    means = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "|"]
    assert means == pytest.approx([8.2, 7.9, 7.6])
    assert texts(axes) == ["teacher 6.28"]
    assert "(%)" in axes.get_xlabel()
    assert "cifar10, n = 3 seeds" in figure.get_suptitle()


def test_an_interval_is_drawn_from_three_seeds_on():
    def intervals(seeds):
        (axes,) = result_plot(compare(make_results(seeds=seeds), pairs=PAIRS[:1])).axes
        return [lines for lines in axes.collections if hasattr(lines, "get_segments")]

    assert len(intervals(2)) == 0
    assert len(intervals(3)) == 3


def test_there_is_a_panel_for_each_pair_and_scratch_stands_in_both():
    results = make_results(pairs=PAIRS)
    axes = panels(result_plot(compare(results, pairs=PAIRS)))
    assert list(axes) == ["resnet56 → resnet20", "resnet110 → resnet20"]
    assert [len([line for line in panel.lines if line.get_marker() == "|"]) for panel in axes.values()] == [3, 3]


def test_a_method_has_one_colour_in_all_figures():
    results = make_results()
    colour = method_colours(["FT"])["FT"]
    (errors,) = result_plot(compare(results, pairs=PAIRS[:1])).axes
    (cost,) = cost_plot(compare(results, pairs=PAIRS[:1])).axes
    curves = curves_plot(compare(results, pairs=PAIRS[:1]), make_curves(results)).axes[0]
    assert colour in [line.get_color() for line in errors.lines]
    assert colour in [line.get_color() for line in cost.lines]
    assert colour in [line.get_color() for line in curves.lines]


def test_curves_are_means_over_seeds_of_the_main_stage():
    results = make_results()
    (whole,) = curves_plot(compare(results, pairs=PAIRS[:1]), make_curves(results)).axes
    kd = next(line for line in whole.lines if line.get_color() == method_colours(["KD"])["KD"])
    assert list(kd.get_xdata()) == list(range(1, EPOCHS + 1))
    assert list(kd.get_ydata()) == pytest.approx([7.9 + EPOCHS - epoch for epoch in range(1, EPOCHS + 1)])
    assert len(whole.collections) == 3, "a band for each method"


def test_curves_of_failed_trials_are_left_out():
    results = make_results()
    results.loc[results["trial"] == "0-kd-1", "status"] = "failed"
    (whole,) = curves_plot(compare(results, pairs=PAIRS[:1]), make_curves(results)).axes
    kd = next(line for line in whole.lines if line.get_color() == method_colours(["KD"])["KD"])
    assert list(kd.get_ydata())[-1] == pytest.approx(7.95)


def test_seeds_of_equal_error_are_all_seen():
    figure = result_plot(compare(make_results(methods=("kd",), test_error_pct=8.0), pairs=PAIRS[:1]))
    dots = figure.axes[0].collections[0].get_offsets()
    assert len({tuple(dot) for dot in dots.tolist()}) == 3


@pytest.mark.parametrize(("epochs", "shown"), [(19, 1), (20, 2)])
def test_the_last_quarter_is_shown_apart_where_it_has_points_enough(epochs, shown, monkeypatch):
    monkeypatch.setitem(globals(), "EPOCHS", epochs)
    results = make_results()
    figure = curves_plot(compare(results, pairs=PAIRS[:1]), make_curves(results))
    assert len(figure.axes) == shown
    if shown == 2:
        assert min(figure.axes[1].lines[0].get_xdata()) == 16


def test_many_curves_go_without_bands_and_the_title_does_not_promise_them():
    results = make_results(methods=[f"m{number}" for number in range(9)])
    figure = curves_plot(compare(results, pairs=PAIRS[:1]), make_curves(results))
    assert not figure.axes[0].collections
    assert "standard deviation" not in figure.get_suptitle()


def test_points_of_the_cost_plot_are_named_inside_the_panel_and_apart():
    names = ["scratch", *(f"method_{number}" for number in range(9))]
    crowd = make_results(methods=names, test_error_pct=8.0)
    crowd["train_s"] = crowd["method"].map({name: 5000.0 + 125 * position for position, name in enumerate(names[1:])})
    crowd.loc[crowd["method"] == "scratch", "train_s"] = 3000.0
    figure = cost_plot(compare(crowd, pairs=PAIRS[:1]))
    (axes,) = figure.axes
    figure.draw_without_rendering()
    boxes = {text.get_text(): text.get_tightbbox() for text in axes.texts if isinstance(text, Annotation) and text.get_text()}
    assert len(boxes) == len(names)
    assert not [pair for pair in itertools.combinations(boxes, 2) if boxes[pair[0]].overlaps(boxes[pair[1]])]
    panel = axes.get_window_extent()
    assert all(panel.x0 <= box.x0 and box.x1 <= panel.x1 for box in boxes.values())
    assert axes.get_xlabel() == "training of one student (minutes), left is cheaper"


def test_costs_of_two_environments_stand_in_two_panels():
    results = make_results()
    results.loc[results["method"] == "ft", "environment"] = "CPU"
    assert list(panels(cost_plot(compare(results, pairs=PAIRS[:1])))) == ["resnet56 → resnet20\nH100", "resnet56 → resnet20\nCPU"]


def test_legends_and_panels_do_not_cover_one_another():
    results = make_results(methods=[f"m{number}" for number in range(12)])
    figure = curves_plot(compare(results, pairs=PAIRS[:1]), make_curves(results))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert not [axes for axes in figure.axes if axes.get_tightbbox().overlaps(legend.get_window_extent())]
    assert figure.bbox.x0 <= legend.get_window_extent().x0
    assert legend.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize("draw", [result_plot, cost_plot])
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(KdbenchError, match=r"no trial is done\. Run the suite first\."):
        draw(compare(make_results(status="failed"), pairs=PAIRS[:1]))


# Files


def test_files_embed_truetype_fonts_and_do_not_depend_on_the_time(tmp_path):
    figure = result_plot(compare(make_results(seeds=1), pairs=PAIRS[:1]))
    files = save(figure, tmp_path / "a v1.5")
    assert [file.name for file in files] == ["a v1.5.png", "a v1.5.pdf"]
    with mpl.rc_context({"pdf.compression": 0}):
        save(figure, tmp_path / "plain", formats=["pdf"])
    pdf = (tmp_path / "plain.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_a_report_embeds_its_figures(tmp_path):
    results = make_results(seeds=1)
    files = write_report(
        compare(results, pairs=PAIRS[:1]), make_curves(results), title="Short", directory=tmp_path, formats=["md", "png"]
    )
    assert [file.name for file in files] == ["report.md", "test_error.png", "curves.png", "cost.png"]
    assert all(file.stat().st_size for file in files)
    text = files[0].read_text()
    assert all(f"]({file.name})" in text for file in files[1:])


def test_drawing_leaves_no_global_state():
    with mpl.rc_context():
        mpl.rcdefaults()
        before = dict(mpl.rcParams)
        result_plot(compare(make_results(seeds=1), pairs=PAIRS[:1]))
        assert dict(mpl.rcParams) == before


def test_tables_need_no_drawing_library():
    code = "import sys, kdbench.report; print([name for name in ('matplotlib', 'seaborn', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
