"""The public surface: names, signatures, command line, record keys, exit statuses. A change here is a change for users."""

import ast
import dataclasses
import inspect
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer
from conftest import OWN
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

import kdbench
from kdbench import cli
from kdbench.errors import UntrainedStages
from kdbench.method.interface import METHODS
from kdbench.spec.record import Record
from kdbench.suite.plugins import load_shipped

load_shipped()

TINY = """
title: Tiny
dataset: {name: digits, train_images: 200}
recipe: {base: digits-quick, epochs: 1, schedule: {milestones: []}}
seeds: [0]
methods: [scratch, kd]
pairs:
  - {teacher: resnet14, student: resnet8}
"""


# What is frozen

FUNCTIONS = {
    "build_method": (
        "(name, *, student, teacher, labels=None, teacher_parts=None, image_shape=None, batch_size=None, ce=None, **parameters)"
    ),
    "build_model": "(name, *, num_classes=10, in_channels=3, hooks=(), image_size=None)",
    "load_outcomes": "(path, trials)",
    "load_results": "(path, *, suite=None, plugins=())",
    "load_student": "(folder, *, normalise=False, plugins=())",
    "register": "(name, *, interface=1)",
    "register_dataset": "(name, *, interface=1)",
    "register_model": "(name, *, interface=1)",
    "run_suite": (
        "(suite, *, results='results', methods=(), seeds=(), device='auto', engine='', address='', lanes=0, claim=False, "
        "claim_timeout_s=600, device_timeout_s=600, stop_after_s=None, rerun='missing', plugins=())"
    ),
    "outputs_of": "(network, batch)",
    "rotations": "(images, labels)",
    "train_stages": "(method, teacher, loader, *, student=None, optimiser=None, survey_loader=None, precision='default', seed=0)",
    "batch_norm_needs": "(*maps)",
    "decoupled": "(logits, labels, temperature)",
    "deepest_pairs": "(student, teacher)",
    "factor_convolutions": "(*widths, transposed=False, norm=False)",
    "full_precision": "(term)",
    "hint_regressor": "(student, teacher)",
    "kd_divergence": "(student_logits, teacher_logits, temperature)",
    "masked_log_softmax": "(logits, kept)",
    "middle": "(groups)",
    "pairing_notes": "(student, teacher)",
    "pool_to": "(maps, size)",
    "pool_to_smaller": "(a, b)",
    "pooling_notes": "(student, teacher)",
    "refuse_memory": "(numbers, holding, *, limit_gib)",
    "sample_divergences": "(student_logits, teacher_logits)",
    "refuse_unclassified_maps": "(**networks)",
    "spatial_notes": "(student, teacher)",
    "standardized_logits": "(logits)",
}
VALUES = {
    "Batch": ["images", "labels", "indices", "epoch", "epochs", "generator", "soft_labels", "views", "label_smoothing"],
    "Dataset": ["train", "test", "classes", "mean", "std", "passed_over", "notes", "resize"],
    "Outcomes": ["wrong", "images_by_class", "mistakes", "data_fingerprint", "classes"],
    "Outputs": [
        *("logits", "stem", "features", "preactivations", "pooled"),
        *("raw", "tokens", "heads", "pooled_maps", "views", "others", "classifier"),
    ],
    "Pair": ["student", "teacher", "labels", "teacher_parts", "image_shape", "smallest_batch", "largest_batch", "others"],
    "ParameterGroup": ["module", "lr_factor", "weight_decay"],
    "Shapes": ["logits", "stem", "features", "preactivations", "pooled", "raw", "tokens", "heads", "pooled_maps"],
    "Split": ["images", "labels"],
    "Stage": ["name", "epochs", "losses", "modules", "trains_student", "optimiser", "milestones"],
    "Survey": ["name", "module", "see", "finish"],
    "View": ["images", "labels"],
    "TeacherParts": ["classifier_weight", "classifier_bias", "norms"],
}
CLASSES = {
    "AdamW",
    "Composition",
    "KdbenchError",
    "Method",
    "MethodParams",
    "Network",
    "PairError",
    "SGD",
    "Source",
    "SourceParams",
}
TYPES = {"Losses", "UnitInterval"}

REPORTS = {
    "best_epoch_table": "comparison",
    "claims": "comparison",
    "compare": "results, pairs, methods, options",
    "cost_table": "comparison",
    "gain_table": "comparison",
    "latex_names": "comparison",
    "result_table": "comparison",
    "ranks_table": "comparison",
    "pairwise_table": "comparison",
    "tuning_table": "comparison",
    "win_tie_loss_table": "comparison",
    "profile_table": "comparison",
    "shared_errors_table": "comparison",
    "beside_teacher_table": "comparison",
    "class_errors_table": "comparison",
    "confusions_table": "comparison",
    "selection_table": "comparison",
    "terminal_tables": "comparison, title, width, published",
    "to_csv": "table",
    "to_latex": "table, options, prefix, names",
    "to_markdown": "table",
    "write_report": "comparison, curves, title, directory, name, formats, published, sources",
}

COMMANDS = {
    "run": "SUITE --results --methods --seeds --device --engine --address --lanes --claim --claim-timeout --device-timeout"
    " --stop-after --rerun --plugin",
    "status": "SUITE --results --watch --json",
    "plan": "SUITE --results --methods --seeds --plugin --device --difference --check --json",
    "report": (
        "SUITE --results --methods --seeds --format --output --published --published-csv --plugin --metric --baseline --table "
        "--dataset --recipe --pair --name --group --decimals --spread --rows --mean --sizes --second-best --significance "
        "--highlight --cite --caption --latex --label --figure --style --columns --size --font-size --title"
    ),
    "list": "WHAT SUITE --results --plugin --json",
    "show": "WHAT NAME --input --classes --hook --modules --results --plugin --json",
    "check": "NAME --plugin --json",
    "new": "WHAT NAME",
    "merge": "INTO SOURCES --keep --dry-run",
    "export": "SOURCE FILE --no-outcomes --curves --results --plugin",
    "deploy": "TRIAL --format --output --suite --results --plugin",
    "trials list": "SUITES --results --plugin --json",
    "trials show": "TRIAL --results --json",
    "trials remove": "TRIAL --results --dry-run --yes",
    "trials prune": "SUITES --results --plugin --dry-run --yes",
}

RECORD = """
    protocol trial suite tuning status reason spec dataset recipe precision epochs teacher student method setting seed notes
    test_error_pct test_top5_error_pct test_nll test_ece_pct test_adaptive_ece_pct teacher_agreement_pct teacher_kl
    best_test_error_pct best_epoch validation_error_pct selected_test_error_pct selected_epoch
    train_error_pct train_loss
    teacher_error_pct teacher_top5_error_pct teacher_nll teacher_ece_pct teacher_adaptive_ece_pct
    student_params student_macs teacher_params teacher_macs extra_params stage_epochs
    stages start_weights_sha256 weights_sha256 teacher_weights_sha256 other_teachers_weights_sha256 teacher_norms_folded
    method_code core_code data_fingerprint data
    train_s data_s teacher_s startup_s train_images_per_s inference_images_per_s teacher_inference_images_per_s peak_mem_mib
    jobs_on_machine environment planned planned_again first_finished finished
"""

PROMISED_COLUMNS = """
    trial suite dataset teacher student method seed status test_error_pct best_test_error_pct teacher_error_pct student_params
    student_macs train_images_per_s train_s epochs
"""


def test_the_public_names():
    assert set(kdbench.__all__) == {"__version__", *FUNCTIONS, *VALUES, *CLASSES, *TYPES}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_signature_of_a_public_function(name):
    signature = inspect.signature(getattr(kdbench, name))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    assert str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)) == FUNCTIONS[name]


@pytest.mark.parametrize("name", VALUES)
def test_the_fields_of_a_public_value(name):
    assert [field.name for field in dataclasses.fields(getattr(kdbench, name))] == VALUES[name]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_public_class(name):
    assert inspect.isclass(getattr(kdbench, name))


def test_the_signatures_of_reports():
    import kdbench.report

    found = {}
    for name in REPORTS:
        parameters = inspect.signature(getattr(kdbench.report, name)).parameters.values()
        found[name] = ", ".join(parameter.name for parameter in parameters)
    assert found == REPORTS
    assert {*REPORTS, "Comparison", "FORMATS", "ReportOptions", "Sources", "Table"} == {*kdbench.report.__all__}


def test_every_public_name_is_told_to_type_checkers():
    tree = ast.parse(Path(kdbench.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert typed == {name: (f"kdbench.{home}", name) for name, home in kdbench._HOMES.items()}


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="module 'kdbench' has no attribute 'run_suit'"):
        _ = kdbench.run_suit
    assert "run_suite" in dir(kdbench)


def commands():
    """The commands by name, those of a group behind the group's."""
    found = typer.main.get_command(cli.app).commands
    groups = {name: command.commands for name, command in found.items() if hasattr(command, "commands")}
    inner = {f"{group} {name}": command for group in groups for name, command in groups[group].items()}
    return {name: command for name, command in found.items() if name not in groups} | inner


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_a_command(command):
    found = commands()[command].params
    assert " ".join(p.opts[0].upper() if p.param_type_name == "argument" else p.opts[0] for p in found) == COMMANDS[command]


def test_the_commands_and_exit_statuses():
    assert set(COMMANDS) == set(commands())
    assert (cli.ALL_DONE, cli.TRIAL_FAILED, cli.BAD_USAGE, cli.STOPPED) == (0, 1, 2, 3)


def test_the_keys_of_a_record():
    assert list(Record.model_fields) == RECORD.split()


# What an import costs


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split())


def test_importing_kdbench_imports_nothing_heavy():
    assert not {"torch", "pandas", "matplotlib", "numpy", "pydantic"} & modules_after("import kdbench")


def test_help_and_a_suite_that_is_not_there_import_nothing_heavy():
    tried = "try:\n    app(['run', 'none.yaml'], standalone_mode=False)\nexcept ValueError:\n    pass"
    loaded = modules_after(f"from kdbench.cli import app\napp(['run', '--help'], standalone_mode=False)\n{tried}")
    assert "kdbench.cli" in loaded
    assert not {"torch", "pandas", "matplotlib", "numpy", "yaml"} & loaded


def test_planning_imports_nothing_heavy_beside_torch():
    code = "from kdbench.cli import app\napp(['plan', 'quick', '--json'], standalone_mode=False)"
    assert not {"pandas", "matplotlib", "scipy", "sklearn", "kdbench.runner.run", "kdbench.models.measure"} & modules_after(code)


def test_reading_results_imports_no_torch():
    assert "torch" not in modules_after("import kdbench\nkdbench.load_results")


def test_the_report_of_a_directory_imports_no_torch(copy, tmp_path_factory):
    arguments = ["report", str(copy), "--format", "md", "--output", str(tmp_path_factory.mktemp("report"))]
    loaded = modules_after(f"from kdbench.cli import app\napp({arguments}, standalone_mode=False)")
    assert "pandas.core" in loaded
    assert not {"torch.nn", "matplotlib.figure"} & loaded  # the report itself says `torch`


# A suite from Python


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the tiny suite was run by `run_suite`; read it only."""
    root = tmp_path_factory.mktemp("public")
    (root / "tiny.yaml").write_text(TINY)
    frame = kdbench.run_suite(root / "tiny.yaml", results=root / "results", device="cpu")
    frame.to_pickle(root / "returned.pkl")
    return root


def test_run_suite_returns_its_students(home):
    frame = pd.read_pickle(home / "returned.pkl")
    assert list(frame["method"]) == ["scratch", "kd"]
    assert set(frame["status"]) == {"done"}
    assert frame["test_error_pct"].between(0, 100).all()


def test_run_suite_is_quiet_and_does_nothing_twice(home, capfd, monkeypatch):
    monkeypatch.setattr("kdbench.training.builder.Builder.student", None)
    again = kdbench.run_suite(str(home / "tiny.yaml"), results=str(home / "results"), device="cpu")
    pd.testing.assert_frame_equal(again, pd.read_pickle(home / "returned.pkl"))
    assert capfd.readouterr() == ("", "")


def test_run_suite_stops_and_says_what_is_missing(home, tmp_path):
    frame = kdbench.run_suite(home / "tiny.yaml", results=tmp_path, device="cpu", stop_after_s=0, methods=["kd"], seeds=[3, 4])
    assert list(zip(frame["method"], frame["seed"], frame["status"], strict=True)) == [("kd", 3, "missing"), ("kd", 4, "missing")]
    assert frame["test_error_pct"].isna().all()


def test_run_suite_returns_failures_as_rows(home, tmp_path):
    plugin = tmp_path / "breaks.py"
    plugin.write_text(
        "from kdbench import Method, register\n\n\n"
        "@register('breaks_for_test')\n"
        "class Breaks(Method):\n"
        "    reads = ('logits',)\n\n"
        "    def losses(self, student, teacher, batch):\n"
        "        raise RuntimeError('a [/mistake] of mine')\n"
    )
    restore = METHODS.snapshot()
    try:
        frame = kdbench.run_suite(
            home / "tiny.yaml", results=tmp_path / "r", device="cpu", methods=["scratch", "breaks_for_test"], plugins=[plugin]
        )
    finally:
        restore()
    assert dict(zip(frame["method"], frame["status"], strict=True)) == {"scratch": "done", "breaks_for_test": "failed"}
    told = "RuntimeError: a [/mistake] of mine (breaks.py:9); `kdbench check breaks.py` tries the method without training"
    assert frame["reason"].iloc[1] == told


def test_run_suite_refuses_a_mistake_before_anything_starts(home, tmp_path):
    with pytest.raises(kdbench.KdbenchError, match="unknown method 'kdd'"):
        kdbench.run_suite(home / "tiny.yaml", results=tmp_path / "r", methods=["kdd"])
    with pytest.raises(kdbench.KdbenchError, match="unknown device 'gpu'"):
        kdbench.run_suite(home / "tiny.yaml", results=tmp_path / "r", device="gpu")
    for given, told in (({"methods": "kd,ft"}, "methods=['kd', 'ft']"), ({"seeds": 0}, "seeds=[0, 1, 2]")):
        with pytest.raises(kdbench.KdbenchError, match=re.escape(f"is no list. Write {told}.")):
            kdbench.run_suite(home / "tiny.yaml", results=tmp_path / "r", **given)
    for seed in ("0", 0.5, True):
        with pytest.raises(kdbench.KdbenchError, match=re.escape(f"seeds: {seed!r} is no whole number")):
            kdbench.run_suite(home / "tiny.yaml", results=tmp_path / "r", seeds=[seed])
    for seconds in ("9m", -1, float("nan")):
        with pytest.raises(kdbench.KdbenchError, match=re.escape(f"stop_after_s: {seconds!r} is no number of seconds")):
            kdbench.run_suite(home / "tiny.yaml", results=tmp_path / "r", stop_after_s=seconds)
    with pytest.raises(kdbench.KdbenchError, match="'2' students cannot train at once"):
        kdbench.run_suite(home / "tiny.yaml", results=tmp_path / "r", lanes="2")
    with pytest.raises(kdbench.KdbenchError, match=re.escape("hooks: 'layer1' is no list. Write hooks=['layer1', 'layer2'].")):
        kdbench.build_model("torchvision/resnet18", hooks="layer1")
    with pytest.raises(kdbench.KdbenchError, match="-1 students cannot train at once"):
        kdbench.run_suite(home / "tiny.yaml", results=tmp_path / "r", lanes=-1)
    with pytest.raises(kdbench.KdbenchError, match="'fail' is none of missing, failed, weights, all"):
        kdbench.run_suite(home / "tiny.yaml", results=tmp_path / "r", rerun="fail")
    assert not (tmp_path / "r").exists()


# Results as a frame


def test_load_results_has_a_row_for_every_trial(home):
    frame = kdbench.load_results(home / "results")
    assert frame["trial"].is_unique
    assert set(zip(frame["student"], frame["method"], strict=True)) == {
        ("resnet14", "scratch"),
        ("resnet8", "scratch"),
        ("resnet8", "kd"),
    }


def test_load_results_has_these_columns(home):
    frame = kdbench.load_results(str(home / "results"))
    assert {*PROMISED_COLUMNS.split(), *RECORD.split()} - {"spec", "tuning"} <= set(frame.columns)
    assert json.loads(frame.set_index("method")["method_params"]["kd"]) == {"kd": METHODS.get("kd").Params().model_dump()}


def test_columns_of_numbers_are_numbers_where_some_are_missing(home):
    frame = kdbench.load_results(home / "results")
    assert frame["teacher_error_pct"].dtype == "float64"
    assert frame["selected_test_error_pct"].dtype == "float64"
    assert frame["teacher_params"].dtype == "Int64"
    assert frame.groupby("method")["teacher_params"].mean()["kd"] == frame.set_index("student")["student_params"]["resnet14"]


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """Records of one's own to break."""
    for file in (home / "results").glob("trials/*/record.json"):
        target = tmp_path / "trials" / file.parent.name / file.name
        target.parent.mkdir(parents=True)
        target.write_bytes(file.read_bytes())
    return tmp_path


def test_a_broken_record_is_left_out_with_a_warning(copy, caplog):
    first, *rest = sorted(copy.glob("trials/*/record.json"))
    first.write_bytes(first.read_bytes()[:100])
    frame = kdbench.load_results(copy)
    assert set(frame["trial"]) == {file.parent.name for file in rest}
    assert [r.getMessage() for r in caplog.records] == [f"{first} is left out: it is not a whole record (1 mistake)."]


def test_a_record_of_a_newer_kdbench_is_named_and_stays(copy, home, caplog):
    first = min(copy.glob("trials/*/record.json"))
    first.write_text(json.dumps({**json.loads(first.read_bytes()), "key_of_tomorrow": 1}))
    before = files_of(copy)
    kdbench.load_results(copy)
    assert caplog.messages == [f"{first} is left out: a newer kdbench wrote it, with key_of_tomorrow, so update kdbench."]
    newer = r"record of a newer kdbench, with key_of_tomorrow\. Update kdbench"
    with pytest.raises(kdbench.KdbenchError, match=newer):
        kdbench.load_results(copy, suite=home / "tiny.yaml")
    with pytest.raises(kdbench.KdbenchError, match=newer):
        kdbench.run_suite(home / "tiny.yaml", results=copy)
    assert {file: held for file, held in files_of(copy).items() if file in before} == before, "nothing was set aside"


def test_a_second_record_of_a_trial_is_left_out_with_a_warning(copy, caplog):
    first = min(copy.glob("trials/*/record.json"))
    second = copy / "trials" / "zz_copy" / "record.json"
    second.parent.mkdir()
    second.write_bytes(first.read_bytes())
    assert kdbench.load_results(copy)["trial"].is_unique
    assert [r.getMessage() for r in caplog.records] == [f"{second} is left out: it is the record of {first.parent.name}."]


def test_a_record_of_an_earlier_version_is_read(copy):
    for file in copy.glob("trials/*/record.json"):
        record = json.loads(file.read_text())
        del record["data"]
        file.write_text(json.dumps(record))
    frame = kdbench.load_results(copy)
    assert len(frame) == 3
    assert frame[["data", "num_classes", "train_images", "test_images", "passed_over_files", "data_notes"]].isna().all(axis=None)
    assert frame["train_images"].dtype == "Int64"


def files_of(root: Path) -> dict[Path, tuple[int, bytes]]:
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in root.rglob("*") if file.is_file()}


def test_load_results_gives_the_trials_of_a_suite_whatever_trained_them(copy, home, caplog):
    suite = copy / "second.yaml"
    suite.write_text(TINY.replace("[scratch, kd]", "[kd, at]"))
    frame = kdbench.load_results(copy, suite=suite)
    assert list(zip(frame["method"], frame["status"], frame["suite"], strict=True)) == [
        ("kd", "done", "tiny"),
        ("at", "missing", "second"),
    ]
    pd.testing.assert_frame_equal(frame, kdbench.run_suite(suite, results=copy, device="cpu", stop_after_s=0))
    pd.testing.assert_frame_equal(kdbench.load_results(copy, suite=home / "tiny.yaml"), pd.read_pickle(home / "returned.pkl"))
    broken = copy / "trials" / frame["trial"][0] / "record.json"
    broken.write_text("{")
    before = files_of(copy)
    assert list(kdbench.load_results(copy, suite=suite)["status"]) == ["missing", "missing"]
    assert files_of(copy) == before, "nothing is written, and nothing set aside"
    assert f"{broken} cannot be used: it is not a whole record (1 mistake)." in caplog.messages


def test_a_suite_of_plugins_is_read_from_its_results(copy):
    (copy / "plugin.py").write_text(
        "from kdbench import Method, register\n\n\n@register('read_for_test')\nclass Mine(Method):\n"
        "    def losses(self, student, teacher, batch):\n        return {}\n"
    )
    (copy / "own.yaml").write_text(TINY.replace("kd]", "read_for_test]"))
    restore = METHODS.snapshot()
    try:
        frame = kdbench.load_results(copy, suite=copy / "own.yaml", plugins=[copy / "plugin.py"])
    finally:
        restore()
    assert list(zip(frame["method"], frame["status"], strict=True)) == [("scratch", "done"), ("read_for_test", "missing")]
    with pytest.raises(kdbench.KdbenchError, match=r"^plugins have no effect on all records of a directory\. Give them with suite"):
        kdbench.load_results(copy, plugins=[copy / "plugin.py"])
    with pytest.raises(kdbench.KdbenchError, match=r"^there is no directory .*nowhere\. Give the one"):
        kdbench.load_results(copy / "nowhere", suite="quick")
    with pytest.raises(kdbench.KdbenchError, match=r"^unknown suite 'quik'"):
        kdbench.load_results(copy, suite="quik")


def test_a_directory_without_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", "nowhere"):
        with pytest.raises(kdbench.KdbenchError) as error:
            kdbench.load_results(name)
        assert str(error.value) == f"no records under '{name}'. Give the directory that `kdbench run --results` wrote to."


# A method in a loop of one's own


@pytest.fixture(scope="module")
def networks() -> tuple[kdbench.Network, kdbench.Network]:
    """A student and a teacher."""
    torch.manual_seed(0)
    return kdbench.build_model("resnet8", num_classes=7, in_channels=1), kdbench.build_model(
        "resnet14", num_classes=7, in_channels=1
    )


@pytest.fixture(scope="module")
def batch() -> kdbench.Batch:
    random = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 1, 16, 16, generator=random), torch.randint(7, (8,), generator=random)
    views = {
        "strong": kdbench.View(images + 1, labels),
        "rotations": kdbench.rotations(images, labels),
        "mixup": kdbench.View(images.flip(0) / 2 + images / 2, F.one_hot(labels, 7).float()),
    }
    return kdbench.Batch(images, labels, torch.arange(8), epoch=0, epochs=2, generator=random, views=views)


@pytest.fixture(scope="module")
def outputs(networks, batch) -> tuple[kdbench.Outputs, kdbench.Outputs]:
    student, teacher = networks
    with torch.no_grad():
        target = kdbench.outputs_of(teacher.eval(), batch)
    return kdbench.outputs_of(student, batch), target


def test_a_model_by_its_name(networks):
    assert isinstance(networks[0], kdbench.Network)
    assert networks[0].classifier.out_features == 7
    with pytest.raises(kdbench.KdbenchError, match=r"unknown model 'resnt8'\. Did you mean 'resnet8'\?"):
        kdbench.build_model("resnt8")


def test_a_method_by_its_name(outputs, batch):
    student, teacher = outputs
    method = kdbench.build_method("kd", student=student, teacher=teacher, temperature=2.0, alpha=0.5)
    assert isinstance(method, kdbench.Composition)
    (term,) = method.losses(student, teacher, batch).values()
    assert torch.equal(term, 0.5 * kdbench.kd_divergence(student.logits, teacher.logits, 2.0))
    assert method.ce_weight == 0.5


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_can_be_built(name, networks, outputs, batch):
    student, teacher = outputs
    student = dataclasses.replace(student, heads=(student.logits, student.logits))  # for DeiT's distillation token
    if views := METHODS.get(name).views:
        counts = {view: 3 if view == "rotations" else 1 for view in views}
        shown = {view: (batch.images.repeat_interleave(n, 0), batch.labels.repeat_interleave(n)) for view, n in counts.items()}
        batch = dataclasses.replace(batch, views={view: kdbench.View(*given) for view, given in shown.items()})
        student, teacher = (kdbench.outputs_of(network, batch) for network in networks)
    method = kdbench.build_method(
        name,
        student=student,
        teacher=teacher,
        labels=batch.labels,
        teacher_parts=networks[1].teacher_parts(),
        image_shape=tuple(batch.images.shape[1:]),
    )
    with warnings.catch_warnings(action="ignore", category=UntrainedStages):  # whether they can be computed is all that counts here
        terms = method.losses(student, teacher, batch)
    total = sum(terms.values()) + method.ce_weight * cross_entropy(method.predict(student), batch.labels)
    assert torch.isfinite(total)


def test_parameters_of_a_composition_are_given_by_part(outputs):
    student, teacher = outputs
    method = kdbench.build_method("ft+kd", student=student, teacher=teacher, ft={"k": 2})
    assert (method.parts["ft"].params.k, method.parts["kd"].params) == (2.0, METHODS.get("kd").Params())
    assert kdbench.build_method("ft", student=student, teacher=teacher, ft={"k": 2}).parts["ft"].params.k == 2


def test_a_network_is_no_outputs(outputs):
    with pytest.raises(kdbench.KdbenchError, match=r"a PostActivation is no Outputs\. Give what"):
        kdbench.build_method("kd", student=kdbench.build_model("resnet8"), teacher=outputs[1])


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ftt", {}, f"unknown method 'ftt'. Did you mean 'ft'? See `kdbench list methods`{OWN}"),
        ("ft", {"kk": 2}, "build_method, ft.kk: unknown key. Did you mean 'k'?"),
        ("ft", {"k": 0}, "build_method, ft.k: must be greater than 0 (got 0)."),
        ("ft+kd", {"ft": {"kk": 2}}, "build_method, ft.kk: unknown key. Did you mean 'k'?"),
        ("ft+kd", {"k": 2}, "build_method: 'ft+kd' has no part 'k'. Give parameters by part: ft={...}."),
        ("ft+ft", {}, "'ft+ft' names a method twice. Name each once."),
    ],
)
def test_a_mistake_in_building_a_method(name, parameters, message, outputs):
    student, teacher = outputs
    with pytest.raises(kdbench.KdbenchError) as error:
        kdbench.build_method(name, student=student, teacher=teacher, **parameters)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("crd", "it needs the labels of the training images. Give them to build_method as labels=..."),
        ("simkd", "it needs parts of the teacher. Give them to build_method as teacher_parts=teacher.teacher_parts()"),
        ("ofd", "it needs parts of the teacher. Give them to build_method as teacher_parts=teacher.teacher_parts()"),
    ],
)
def test_what_a_method_needs_is_asked_for(name, asked, outputs):
    with pytest.raises(kdbench.PairError) as error:
        kdbench.build_method(name, student=outputs[0], teacher=outputs[1])
    assert str(error.value).endswith(asked)
