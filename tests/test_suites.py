"""What a suite may say, what trials follow from it, and the one sentence that answers every mistake."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import OWN
from torch import nn

from kdbench.data import Dataset, SourceParams, Split
from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS
from kdbench.spec.base import Spec
from kdbench.spec.validation import validated
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.suite.shipped import recipe_names, shipped, suite_names
from kdbench.suite.suite import Suite
from kdbench.training.builder import Builder

load_shipped()

LINES = {
    "title": "title: Mine",
    "dataset": "dataset: digits",
    "recipe": "recipe: {base: digits-quick, epochs: 2, schedule: {milestones: [1]}}",
    "seeds": "seeds: [0, 1]",
    "methods": "methods: [scratch, kd]",
    "pairs": "pairs:\n  - {teacher: resnet20, student: resnet8}",
}


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str | bytes | None = None, *, only: tuple[str, ...] = (), reseeded: tuple[int, ...] = (), **lines: str) -> Suite:
    """The suite of `LINES` with other lines, or of a text of its own, read from mine.yaml."""
    if text is None:
        text = "\n".join({**LINES, **lines}.values()) + "\n"
    Path("mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_suite("mine.yaml", methods=only, seeds=reseeded)


def refusal(*args: str | bytes, **options: object) -> str:
    with pytest.raises(KdbenchError) as error:
        load(*args, **options)  # type: ignore[arg-type]
    assert error.value.__suppress_context__ or error.value.__cause__ is None
    return str(error.value)


# What a suite says


def test_the_trials_are_every_pair_with_every_method_and_every_seed():
    suite = load(pairs="pairs:\n  - {teacher: resnet20, student: resnet8}\n  - {teacher: resnet20, student: resnet14}")
    assert [(t.teacher and t.teacher.student, t.student, t.method, t.seed) for t in suite.trials] == [
        (None, "resnet8", "scratch", 0),
        (None, "resnet8", "scratch", 1),
        ("resnet20", "resnet8", "kd", 0),
        ("resnet20", "resnet8", "kd", 1),
        (None, "resnet14", "scratch", 0),
        (None, "resnet14", "scratch", 1),
        ("resnet20", "resnet14", "kd", 0),
        ("resnet20", "resnet14", "kd", 1),
    ]
    assert [teacher.student for teacher in suite.teachers] == ["resnet20"]
    assert suite.pairs == (("resnet20", "resnet8"), ("resnet20", "resnet14"))
    assert (suite.name, suite.title) == ("mine", "Mine")


def test_a_student_without_a_teacher_is_one_trial_whatever_pairs_it_is_in():
    suite = load(pairs="pairs:\n  - {teacher: resnet20, student: resnet8}\n  - {teacher: resnet14, student: resnet8}")
    assert [trial.method for trial in suite.trials] == ["scratch", "scratch", "kd", "kd", "kd", "kd"]


@pytest.mark.parametrize(
    ("entry", "method", "k"),
    [
        ("- ft", "ft", 0.5),
        ("- ft:", "ft", 0.5),
        ("- ft: {}", "ft", 0.5),
        ("- ft: {k: 2}", "ft", 2.0),
        ("- ft+kd", "ft+kd", 0.5),
        ("- ft+kd:", "ft+kd", 0.5),
        ("- ft+kd: {ft: {k: 2}}", "ft+kd", 2.0),
        ("- ft+kd: {ft: , kd: {alpha: 0.5}}", "ft+kd", 0.5),
    ],
)
def test_a_method_is_a_name_or_a_name_with_parameters(entry, method, k):
    suite = load(methods=f"methods:\n  {entry}")
    assert {trial.method for trial in suite.trials} == {method}
    assert {trial.methods[0].params["k"] for trial in suite.trials} == {k}


def test_a_method_may_stand_in_several_settings():
    suite = load(methods="methods: [{ft: {k: 1}}, {ft: {k: 2}}]", reseeded=(0,))
    assert [trial.methods[0].params["k"] for trial in suite.trials] == [1.0, 2.0]
    assert suite.methods == ("ft",)


def test_how_often_a_stage_of_the_teacher_is_trained_concerns_the_trials_that_have_one_alone():
    methods = "methods: [scratch, kd, fitnets, ft, ft+kd]"
    default, seed, teacher = (load(methods=methods, stages=line) for line in ("", "stages: per-seed", "stages: per-teacher"))
    assert default.trials == seed.trials
    differ = [trial.method for trial, other in zip(seed.trials, teacher.trials, strict=True) if trial.id != other.id]
    assert differ == ["ft", "ft", "ft+kd", "ft+kd"]
    assert {trial.stages for trial in teacher.trials} == {None, "per-teacher"}
    assert load(methods=methods, stages="stages: per-teacher", only=("kd",)).trials == tuple(
        t for t in seed.trials if t.method == "kd"
    )


@pytest.mark.parametrize("value", ["per-seed", "per-teacher"])
def test_how_often_a_stage_of_the_teacher_is_trained_is_refused_where_there_is_none(value):
    assert refusal(methods="methods: [scratch, kd, fitnets]", stages=f"stages: {value}") == (
        "mine.yaml, stages: no method of the suite has a stage that learns from the teacher alone, so the key has no effect. "
        "Remove it."
    )


def test_a_pair_has_its_own_recipe_parameters_and_exceptions():
    suite = load(
        methods="methods: [scratch, ft, ft+kd, at]",
        pairs="""pairs:
  - {teacher: resnet20, student: resnet8, recipe: {optimiser: {lr: 0.01}}, methods: {ft: {beta: 200}}, without: [at]}
  - {teacher: resnet20, student: resnet14}""",
        reseeded=(0,),
    )
    first, second = suite.trials[:3], suite.trials[3:]
    assert [trial.method for trial in first] == ["scratch", "ft", "ft+kd"]
    assert [trial.method for trial in second] == ["scratch", "ft", "ft+kd", "at"]
    assert {trial.recipe.optimiser.lr for trial in first} == {0.01}
    assert {trial.recipe.optimiser.lr for trial in second} == {0.05}
    assert first[0].recipe.optimiser.weight_decay == 0.0005
    assert [trial.methods[0].params["beta"] for trial in (*first[1:], second[1])] == [200, 200, 500]
    assert [teacher.recipe.optimiser.lr for teacher in suite.teachers] == [0.05]


def test_teachers_have_their_own_seed_and_recipe():
    suite = load(title="title: Mine\nteacher: {seed: 7, recipe: {epochs: 5}}")
    assert [(teacher.seed, teacher.recipe.epochs) for teacher in suite.teachers] == [(7, 5)]
    assert {trial.recipe.epochs for trial in suite.trials} == {2}


def test_a_pair_and_the_teachers_may_have_another_recipe_that_ships():
    pair = "{teacher: resnet20, student: resnet8, recipe: {base: repdistiller, epochs: 230}}"
    suite = load(title="title: Mine\nteacher: {recipe: {base: short}}", pairs=f"pairs: [{pair}]")
    assert {(trial.recipe.epochs, trial.recipe.schedule.milestones) for trial in suite.trials} == {(230, (150, 180, 210))}
    assert [(teacher.recipe.epochs, teacher.recipe.batch_size) for teacher in suite.teachers] == [(6, 128)]
    assert refusal(pairs="pairs: [{teacher: resnet20, student: resnet8, recipe: {base: shrt}}]").startswith(
        "mine.yaml, pairs[0].recipe: unknown recipe 'shrt'. Did you mean 'short'?"
    )


def test_the_suites_of_transformers_take_the_recipe_of_the_students_kind():
    for dataset in ("cifar100", "imagenet"):
        trials = load_suite(f"ofa-{dataset}").trials
        convolutional = {trial.student for trial in trials if not hasattr(trial.recipe.optimiser, "name")}
        assert convolutional == {"timm/resnet18", "timm/mobilenetv2_100"}
        assert {trial.recipe.mixup for trial in trials if trial.student not in convolutional} == {0.8}
    (teacher,) = load_suite("vit-cifar100").teachers
    assert (teacher.student, teacher.input.size, teacher.recipe.schedule.warm_up_epochs) == ("resnet56", 32, 0)
    assert not teacher.recipe.optimiser.decay_norms_and_biases  # pycls/core/optimizer.py of the authors, for every optimiser


def test_methods_that_are_asked_for_are_picked_or_added():
    assert load(only=("kd",)).methods == ("kd",)
    assert load(only=("at", "kd", "at")).methods == ("at", "kd")
    assert [trial.method for trial in load(only=("kd", "scratch"), reseeded=(0,)).trials] == ["kd", "scratch"]


def test_a_composition_that_is_asked_for_has_the_parameters_that_the_file_gives_its_parts():
    suite = load(methods="methods:\n  - kd\n  - at: {beta: 7}", only=("at+kd",))
    assert [part.params.get("beta") for part in suite.trials[0].methods] == [7.0, None]


def test_picking_methods_keeps_the_file_valid():
    pairs = "pairs:\n  - {teacher: resnet20, student: resnet8, methods: {kd: {alpha: 0.5}}, without: [scratch]}"
    assert [trial.method for trial in load(pairs=pairs, only=("at",), reseeded=(0,)).trials] == ["at"]


def test_a_pair_that_the_picked_methods_leave_empty_is_left_out():
    pairs = "pairs:\n  - {teacher: resnet20, student: resnet8, without: [kd]}\n  - {teacher: resnet20, student: resnet14}"
    assert load(pairs=pairs, only=("kd",)).pairs == (("resnet20", "resnet14"),)


def test_seeds_that_are_asked_for_replace_the_files():
    assert {trial.seed for trial in load(reseeded=(5, 6)).trials} == {5, 6}


@pytest.mark.parametrize(
    ("params", "label"),
    [
        ("", "digits"),
        (", label: Digits, train_images: 1200", "Digits (1,200 training images)"),
        (", validation: 0.1", "digits (10 % held out)"),
        (", train_images: 1200, validation: 0.025", "digits (1,200 training images, 2.5 % held out)"),
    ],
)
def test_tables_tell_what_is_not_trained_on(params, label):
    """And keep such trials apart: seeds with fewer images are no more seeds of those with all."""
    assert {trial.dataset.label for trial in load(dataset=f"dataset: {{name: digits{params}}}").trials} == {label}


def test_a_suite_may_name_its_plugins(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mine.py").write_text(
        "from kdbench import Method, register\n\n\n@register('of_this_suite')\nclass Mine(Method):\n"
        "    def losses(self, student, teacher, batch):\n        return {}\n"
    )
    text = "\n".join({**LINES, "methods": "methods: [of_this_suite]"}.values())
    (tmp_path / "below" / "with.yaml").write_text(f"{text}\nplugins: [mine.py]\n")
    undo = METHODS.snapshot()
    try:
        (trial, _) = load_suite("below/with.yaml").trials
        assert trial.id == load(text).trials[0].id, "where a method comes from is no part of a trial"
    finally:
        undo()
    assert refusal(f"{text}\nplugins: [none.py]\n") == (
        "mine.yaml, plugins[0]: no plugin at none.py. Give a Python file or a folder of them."
    )


def test_yaml_may_merge_mappings():
    suite = load(recipe="recipe: {<<: {base: digits-quick, epochs: 9}, epochs: 8}")
    assert {trial.recipe.epochs for trial in suite.trials} == {8}


def test_how_a_network_is_read_is_part_of_its_trials_where_it_is_given():
    plain, raw, blocks = (
        load(methods="methods: [kd]", reseeded=(0,), pairs=f"pairs: [{{teacher: resnet8, student: {student}}}]").trials[0]
        for student in ("wrn_10_1", "{model: wrn_10_1, hooks: raw}", "{model: wrn_10_1, hooks: [groups.0.0, groups.2.0]}")
    )
    assert len({plain.id, raw.id, blocks.id}) == 3
    assert "hooks" not in plain.model_dump()
    assert (raw.hooks, raw.label) == (("raw",), "wrn_10_1 (raw)")
    assert blocks.label == "wrn_10_1 (hooks groups.0.0 .2.0)"
    for hooks, told in ((("a.b", "c"), "a.b c"), (("a.b", "a.c.b"), "a.b .c.b"), (("a", "ab"), "a ab"), (("a.b", "a"), "a.b a")):
        assert plain.model_copy(update={"hooks": hooks}).label == f"wrn_10_1 (hooks {told})"
    many = [plain.model_copy(update={"hooks": tuple(f"stage_{i}_of_the_network" for i in (0, last))}).label for last in (1, 2)]
    assert {len(label) for label in many} == {len("wrn_10_1 (hooks 0123)")} and len(set(many)) == 2
    mistake = refusal(pairs="pairs: [{teacher: resnet8, student: {model: wrn_10_1, hooks: rwa}}]")
    assert mistake == "mine.yaml, pairs[0].student.hooks: must be a list (got 'rwa'). Write it in square brackets: [rwa]."


def test_the_crd_benchmark_reads_wide_networks_alone_before_norm_and_activation():
    trials = [trial for name in ("crd-same", "crd-cross") for trial in load_suite(name).trials]
    networks = {(spec.student, spec.hooks) for trial in trials for spec in (trial, trial.teacher) if spec}
    assert {name for name, hooks in networks if hooks} == {"wrn_40_2", "wrn_40_1", "wrn_16_2"}
    assert {hooks for name, hooks in networks if name.startswith("wrn")} == {("raw",)}


@pytest.mark.parametrize("name", suite_names())
def test_a_shipped_suite_is_valid(name):
    assert load_suite(name).trials


IMAGES = {
    "digits": (8, 1, 10),
    "fashion_mnist": (28, 1, 10),
    "cifar10": (32, 3, 10),
    "cifar100": (32, 3, 100),
    "imagefolder": (32, 3, 10),
    "imagestream": (224, 3, 1000),
}
"""Of each data set that a shipped suite has: height and width, channels, classes."""


@pytest.mark.parametrize("name", suite_names())
def test_every_method_of_a_shipped_suite_does_every_pair_that_it_is_listed_for(name, monkeypatch):
    """On a few black images, with weights that nobody filled: what a method refuses, it refuses by shapes."""
    for fill in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_"):
        monkeypatch.setattr(nn.init, fill, lambda tensor, *_, **__: tensor)
    suite = load_suite(name)
    size, channels, classes = IMAGES[suite.trials[0].dataset.name]
    images = Split(torch.zeros(20, size, size, channels, dtype=torch.uint8), torch.arange(20) % classes)
    grey = (0.5,) * channels
    builder = Builder(Dataset(images, images, tuple(map(str, range(classes))), grey, grey), SourceParams(), torch.device("cpu"))
    parts = cache(builder.blank_parts)
    for trial in {(t.teacher and t.teacher.label, t.label, str(t.methods)): t for t in suite.trials}.values():
        taught = trial.teacher or trial
        builder.composition(trial, parts(taught.student, taught.hooks))


@pytest.mark.parametrize("name", [name for name in suite_names() if name.startswith(("ft-", "crd-", "ablations/"))])
def test_a_shipped_suite_that_repeats_a_paper_has_seeds_for_a_claim(name):
    assert len({trial.seed for trial in load_suite(name).trials}) >= 3


def test_the_crd_benchmark_has_the_lower_rate_for_the_small_networks_alone():
    trials = [trial for name in ("crd-same", "crd-cross") for trial in load_suite(name).trials]
    slow = {trial.student for trial in trials if trial.recipe.optimiser.lr == 0.01}
    assert slow == {"mobilenetv2_half", "shufflenetv1", "shufflenetv2"}
    assert {trial.recipe.optimiser.lr for trial in trials if trial.student not in slow} == {0.05}
    assert {trial.teacher.recipe.optimiser.lr for trial in trials if trial.teacher} == {0.05}


def test_the_quick_suite_weighs_small_maps_as_the_authors_weigh_theirs():
    """Mean squares of maps of unit norm fall with the number of positions, mean absolute values with its root."""
    suite = load_suite("quick")
    assert {trial.seed for trial in suite.trials} == {0, 1, 2}
    assert suite.methods == ("scratch", "kd", "fitnets", "at", "ft", "at+kd", "ft+kd")
    (side,) = {IMAGES[trial.dataset.name][0] for trial in suite.trials}
    fewer_positions = (32 / side) ** 2
    authors = {name: METHODS.get(name).Params().model_dump() for name in ("kd", "fitnets", "at", "ft")}
    (epochs,) = {trial.recipe.epochs for trial in suite.trials}
    changes = {
        "at": {"beta": authors["at"]["beta"] / fewer_positions},
        "ft": {"beta": authors["ft"]["beta"] / fewer_positions**0.5},
        "fitnets": {"hint_epochs": max(1, round(epochs * authors["fitnets"]["hint_epochs"] / 240))},
    }
    for part in (part for trial in suite.trials for part in trial.methods if part.name in authors):
        assert part.params == authors[part.name] | changes.get(part.name, {})


def test_there_are_suites_and_recipes():
    assert {"quick", "ablations/ft-k"} <= set(suite_names())
    assert "ft-authors" in recipe_names()


# Mistakes: names


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            {"methods": "methods: [scratch, kdd]"},
            f"methods[1]: unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}",
        ),
        (
            {"methods": "methods: [scratch, ft+kdd]"},
            f"methods[1]: unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}",
        ),
        ({"methods": "methods: [ft+ft]"}, "methods[0]: 'ft+ft' names a method twice. Name each once."),
        (
            {"pairs": "pairs:\n  - {teacher: resnt20, student: resnet8}"},
            f"pairs[0].teacher: unknown model 'resnt20'. Did you mean 'resnet20'? See `kdbench list models`{OWN}",
        ),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: mobilnetv2_half}"},
            f"pairs[0].student: unknown model 'mobilnetv2_half'. Did you mean 'mobilenetv2_half'? See `kdbench list models`{OWN}",
        ),
        (
            {"dataset": "dataset: digit"},
            f"dataset: unknown data set 'digit'. Did you mean 'digits'? See `kdbench list datasets`{OWN}",
        ),
        (
            {"dataset": "dataset: {name: digit}"},
            f"dataset: unknown data set 'digit'. Did you mean 'digits'? See `kdbench list datasets`{OWN}",
        ),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, without: [kt]}"},
            "pairs[0].without[0]: 'kt' is not one of the suite's methods. Did you mean 'kd'?",
        ),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, methods: {kt: {alpha: 1}}}"},
            "pairs[0].methods.kt: 'kt' is not one of the suite's methods. Did you mean 'kd'?",
        ),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, without: [rkd+crd]}"},
            "pairs[0].without[0]: 'rkd+crd' is not one of the suite's methods. Choose one of kd, scratch.",
        ),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(lines, message):
    assert refusal(**lines) == f"mine.yaml, {message}"


@pytest.mark.parametrize("recipe", ["recipe: digit-quick", "recipe: {base: digit-quick, epochs: 3}"])
def test_an_unknown_recipe_is_answered_with_the_nearest_and_all(recipe):
    known = ", ".join(recipe_names())
    assert (
        refusal(recipe=recipe)
        == f"mine.yaml, recipe: unknown recipe 'digit-quick'. Did you mean 'digits-quick'? Choose one of {known}."
    )


def test_an_unknown_suite_is_answered_with_the_nearest():
    with pytest.raises(KdbenchError) as error:
        load_suite("quik")
    assert str(error.value) == (
        "unknown suite 'quik'. Did you mean 'quick'? Give a path to a YAML file, or see `kdbench list suites`."
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mine", "unknown suite 'mine'. Did you mean 'mine.yaml'? Give a path"),
        ("my/own", "unknown suite 'my/own'. Did you mean 'my/own.yaml'? Give a path"),
        ("mine.yml", "no suite file at mine.yml. Did you mean 'mine.yaml'? See"),
        ("mien.yml", "no suite file at mien.yml. Did you mean 'mine.yaml'? See"),
        ("my/mine.yaml", "no suite file at my/mine.yaml. See"),
        ("mine.2", "unknown suite 'mine.2'. Did you mean 'mine.2.yaml'? Give a path"),
        ("mine.3", "unknown suite 'mine.3'. Give a path"),
        ("quik", "unknown suite 'quik'. Did you mean 'quick'? Give a path"),
        ("my", "my is a folder, not a suite. Give a folder of results with --results"),
    ],
)
def test_a_file_that_lies_there_is_suggested(name, told):
    Path("my").mkdir()
    for file in ("mine.yaml", "mine.2.yaml", "my/own.yaml"):
        Path(file).touch()
    with pytest.raises(KdbenchError) as error:
        load_suite(name)
    assert str(error.value).startswith(told)


def test_a_suite_file_that_is_not_there():
    with pytest.raises(KdbenchError) as error:
        load_suite("suites/none.yaml")
    assert str(error.value) == "no suite file at suites/none.yaml. See `kdbench list suites` for those that ship with kdbench."


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (("kdd",), f"--methods: unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}"),
        (("kd", "at+kdd"), f"--methods: unknown method 'kdd'. Did you mean 'kd'? See `kdbench list methods`{OWN}"),
        (("at+at",), "--methods: 'at+at' names a method twice. Name each once."),
    ],
)
def test_an_unknown_method_that_is_asked_for(methods, message):
    assert refusal(only=methods) == message


# Mistakes: keys

MISSPELT = [
    ({"seeds": "seeds: [0]\nseedss: [1]"}, "seedss", "seeds"),
    ({"seeds": "seeds: [0]\nteacher: {sed: 1}"}, "teacher.sed", "seed"),
    ({"seeds": "seeds: [0]\nteacher: {recipe: {epoch: 1}}"}, "teacher.recipe.epoch", "epochs"),
    ({"pairs": "pairs:\n  - {teacherr: resnet20, student: resnet8}"}, "pairs[0].teacherr", "teacher"),
    ({"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, recip: {}}"}, "pairs[0].recip", "recipe"),
    ({"recipe": "recipe: {base: digits-quick, epoch: 8}"}, "recipe.epoch", "epochs"),
    ({"recipe": "recipe: {base: digits-quick, optimiser: {lrr: 1}}"}, "recipe.optimiser.lrr", "lr"),
    ({"recipe": "recipe: {base: digits-quick, augmentation: {flipp: 1}}"}, "recipe.augmentation.flipp", "flip"),
    (
        {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, recipe: {optimiser: {lrr: 1}}}"},
        "pairs[0].recipe.optimiser.lrr",
        "lr",
    ),
    (
        {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, methods: {kd: {alpa: 1}}}"},
        "pairs[0].methods.kd.alpa",
        "alpha",
    ),
    ({"methods": "methods: [scratch, kd, {ft: {kk: 2}}]"}, "methods[2].ft.kk", "k"),
    ({"methods": "methods: [{ft+kd: {ft: {kk: 2}}}]"}, "methods[0].ft+kd.ft.kk", "k"),
    ({"dataset": "dataset: {name: digits, lable: x}"}, "dataset.lable", "label"),
]


@pytest.mark.parametrize(("lines", "place", "meant"), MISSPELT, ids=[place for _, place, _ in MISSPELT])
def test_a_misspelt_key_is_told_with_its_place_and_the_nearest(lines, place, meant):
    assert refusal(**lines) == f"mine.yaml, {place}: unknown key. Did you mean '{meant}'?"


@pytest.mark.parametrize("key", ["title", "dataset", "recipe", "seeds", "methods", "pairs"])
def test_a_missing_key(key):
    assert refusal(**{key: ""}) == f"mine.yaml, {key}: this key is missing. Add it."


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ({"pairs": "pairs:\n  - {teacher: resnet20}"}, "pairs[0].student"),
        ({"dataset": "dataset: {label: x}"}, "dataset.name"),
        ({"dataset": "dataset: {name: imagefolder, label: x, size: 8}"}, "dataset.root"),
    ],
)
def test_a_missing_key_below(lines, place):
    assert refusal(**lines) == f"mine.yaml, {place}: this key is missing. Add it."


def test_a_recipe_that_is_not_whole():
    fix = "Add it, or name a recipe to start from, such as `base: repdistiller`."
    assert refusal(recipe="recipe: {epochs: 1}") == f"mine.yaml, recipe.batch_size: this key is missing. {fix}"
    assert refusal(recipe="recipe: {epoch: 1}") == "mine.yaml, recipe.epoch: unknown key. Did you mean 'epochs'?"


@pytest.mark.parametrize("name", ["kd+", "+kd", "ft++kd"])
def test_a_sum_that_lacks_a_method(name):
    fix = "lacks a name beside a plus. Write one on each side, such as `ft+kd`."
    assert refusal(methods=f"methods: [{name}]") == f"mine.yaml, methods[0]: '{name}' {fix}"
    assert refusal(only=(name,)) == f"--methods: '{name}' {fix}"


def test_a_folder_of_images_is_no_name_of_a_data_set():
    fix = "If it is a folder of images, write `{name: imagefolder, label: ..., root: data/mine, size: ...}`."
    assert refusal(dataset="dataset: data/mine") == f"mine.yaml, dataset: unknown data set 'data/mine'. {fix}"


@pytest.mark.parametrize("key", ["at", "k"])
def test_parameters_of_a_composition_stand_under_its_parts(key):
    assert refusal(methods=f"methods: [{{ft+kd: {{{key}: 2}}}}]") == (
        f"mine.yaml, methods[0].ft+kd.{key}: 'ft+kd' combines methods. Write each one's parameters under its name: `ft: {{...}}`."
    )


# Mistakes: values

NO_NUMBER = "must be a number, not true or false."
DIGITS = "Write it in digits."
LIST, MAPPING = "must be a list", "must be a mapping of keys to values"
HYPHEN = "Put a hyphen before each of its items."
KD = "methods[0].kd.temperature: must be a number"
KEY = "a key must be text (got 1). Put it in quotes, or remove it."
NAMED = "must be a name, or a mapping of keys to values with the name under"
SEEDS = "seeds: must be a list of seeds, such as [0, 1, 2]"
VALUES = "must be values by parameter, such as {temperature: [2, 8]}, or a list of settings, such as [{temperature: 2}]"
NO_WEIGHT = "give a weight of the cross-entropy, 0 or more; or weights by epoch from epoch 0 on: `{0: 1, 30: 0.5}`."


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"recipe": "recipe: {base: digits-quick, epochs: 0}"}, "recipe.epochs: must be greater than 0 (got 0)."),
        (
            {"recipe": "recipe: {base: digits-quick, epochs: many}"},
            "recipe.epochs: must be a whole number (got 'many'). Write it in digits.",
        ),
        (
            {"recipe": "recipe: {base: digits-quick, optimiser: {lr: .nan}}"},
            "recipe.optimiser.lr: must be a finite number (got nan).",
        ),
        (
            {"recipe": "recipe: {base: digits-quick, precision: fp16}"},
            "recipe.precision: must be 'default', 'fp32', 'tf32' or 'bf16' (got 'fp16').",
        ),
        (
            {"recipe": "recipe: {base: digits-quick, optimiser: {nesterov: true, momentum: 0}}"},
            "recipe.optimiser: nesterov needs a momentum above 0.",
        ),
        ({"methods": "methods: [{kd: {alpha: 1.5}}]"}, "methods[0].kd.alpha: must be less than or equal to 1 (got 1.5)."),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, methods: {kd: {alpha: -1}}}"},
            "pairs[0].methods.kd.alpha: must be greater than or equal to 0 (got -1).",
        ),
        (
            {"dataset": "dataset: {name: digits, validation: 0.9}"},
            "dataset.validation: must be less than or equal to 0.5 (got 0.9).",
        ),
        ({"seeds": "seeds: [-1]"}, "seeds[0]: must be greater than or equal to 0 (got -1)."),
        ({"seeds": "seeds: [0.5]"}, "seeds[0]: must be a whole number (got 0.5). Write it without a fraction."),
        ({"seeds": "seeds: [yes]"}, f"seeds[0]: {NO_NUMBER} {DIGITS}"),
        ({"recipe": "recipe: {base: digits-quick, mixup: on}"}, f"recipe.mixup: {NO_NUMBER} {DIGITS}"),
        ({"recipe": "recipe: {base: digits-quick, epochs: true}"}, f"recipe.epochs: {NO_NUMBER} {DIGITS}"),
        ({"recipe": "recipe: {base: digits-quick, label_smoothing: false}"}, f"recipe.label_smoothing: {NO_NUMBER} {DIGITS}"),
        (
            {"recipe": "recipe: {base: digits-quick, schedule: {milestones: [1, true]}}"},
            f"recipe.schedule.milestones[1]: {NO_NUMBER} {DIGITS}",
        ),
        ({"methods": "methods: [{kd: {temperature: true}}]"}, f"methods[0].kd.temperature: {NO_NUMBER} Write one, such as 4."),
        ({"methods": "methods: [{kd: {ce: true}}]"}, f"methods[0].kd.ce: {NO_WEIGHT}"),
        ({"dataset": "dataset: {name: digits, validation: yes}"}, f"dataset.validation: {NO_NUMBER} {DIGITS}"),
        ({"seeds": "seeds: []"}, "seeds: must not be empty. Give at least one."),
        ({"seeds": "seeds: [1, 2, 1]"}, "seeds: a seed is named twice. Name each once."),
    ],
)
def test_a_value_out_of_range(lines, message):
    assert refusal(**lines) == f"mine.yaml, {message}"


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("name", METHODS.names())
def test_no_number_of_a_method_is_true_or_false_and_what_is_a_boolean_still_is(name, value):
    kind = METHODS.get(name).Params
    for key, default in dict(kind()).items():
        if type(default) is bool:
            assert getattr(validated(kind, {key: value}, source="x"), key) is value
        elif type(default) in (int, float):
            with pytest.raises(KdbenchError, match=rf"x, {key}: {NO_NUMBER}"):
                validated(kind, {key: value}, source="x")


def test_what_may_be_a_number_or_a_boolean_may_be_true():
    class Either(Spec):
        strength: bool | float = 0.5
        weights: dict[int, float] = {}

    assert validated(Either, {"strength": True}, source="x").strength is True
    with pytest.raises(KdbenchError, match=rf"x, weights\[3\]: {NO_NUMBER}"):
        validated(Either, {"weights": {3: True}}, source="x")


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ((-1,), "--seeds: -1 cannot be a seed. Give whole numbers from 0 up."),
        ((1, 1), "--seeds: a seed is named twice. Name each once."),
    ],
)
def test_seeds_that_cannot_be_asked_for(seeds, message):
    assert refusal(reseeded=seeds) == message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"methods": "methods: kd"}, f"methods: {LIST} (got 'kd'). Write it in square brackets: [kd]."),
        ({"methods": "methods:"}, f"methods: {LIST} (got nothing). {HYPHEN}"),
        ({"methods": "methods: {kd: {alpha: 0.5}}"}, f"methods: {LIST} (got {{'kd': {{'alpha': 0.5}}}}). {HYPHEN}"),
        ({"methods": "methods: []"}, "methods: must not be empty. Give at least one."),
        ({"methods": "methods: [{kd: 3}]"}, f"methods[0].kd: {MAPPING} (got 3). Write `{{key: value}}`."),
        ({"methods": "methods: [{kd: {1: 3}}]"}, "methods[0].kd: a key must be text (got 1). Put it in quotes, or remove it."),
        ({"methods": "methods: [at, {kd: {1: 3}}]"}, "methods[1].kd: a key must be text (got 1). Put it in quotes, or remove it."),
        ({"methods": "methods: [{~: 2}]"}, "methods[0]: a key must be text (got nothing). Put it in quotes, or remove it."),
        ({"methods": "methods: [{scratch: {a: 1}}]"}, "methods[0].scratch.a: unknown key. Remove it."),
        ({"methods": "methods: [{kd: {temperature: warm}}]"}, f"{KD} (got 'warm'). Write one, such as 4."),
        ({"methods": "methods: [{kd: {temperature: [4]}}]"}, f"{KD} (got [4]). Write one, such as 4."),
        ({"methods": "methods: [{kd: {temperature: }}]"}, f"{KD} (got nothing). Write one, such as 4; or leave the key out."),
        ({"methods": "methods: [{kd: {heat: 4}}]"}, "methods[0].kd.heat: unknown key. Choose one of temperature, alpha."),
        (
            {"pairs": "pairs: {teacher: resnet20, student: resnet8}"},
            f"pairs: {LIST} (got {{'student': 'resnet8', 'teacher': 'resnet20'}}). {HYPHEN}",
        ),
        ({"pairs": "pairs: [resnet8]"}, f"pairs[0]: {MAPPING} (got 'resnet8'). Write `{{teacher: ..., student: ...}}`."),
        ({"pairs": "pairs:\n  - {teacher: 20, student: resnet8}"}, f"pairs[0].teacher: {NAMED} `model` (got 20)."),
        (
            {"pairs": "pairs:\n  - {teacher: {model: 20}, student: resnet8}"},
            "pairs[0].teacher.model: must be text (got 20). Put it in quotes: '20'.",
        ),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, without: kd}"},
            f"pairs[0].without: {LIST} (got 'kd'). Write it in square brackets: [kd].",
        ),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, recipe: }"},
            f"pairs[0].recipe: {MAPPING} (got nothing). Write `{{key: value}}`; or leave the key out.",
        ),
        ({"seeds": "seeds: 3"}, f"{SEEDS} (got 3)."),
        ({"seeds": "seeds: 0-2"}, f"{SEEDS} (got '0-2')."),
        ({"seeds": "seeds:"}, f"{SEEDS} (got nothing)."),
        ({"seeds": "seeds: ['0']"}, "seeds[0]: must be a whole number (got '0'). Write it without quotes: 0."),
        ({"recipe": "recipe: 3"}, f"recipe: {NAMED} `base` (got 3)."),
        ({"recipe": "recipe: {base: 3}"}, "recipe.base: must be text (got 3). Put it in quotes: '3'."),
        (
            {"recipe": "recipe: {base: digits-quick, optimiser: sgd}"},
            f"recipe.optimiser: {MAPPING} (got 'sgd'). Write {{name: sgd}}.",
        ),
        (
            {"recipe": "recipe: {base: digits-quick, augmentation: {pad: 0, resized_crop: {scale: [0.5]}}}"},
            "recipe.augmentation.resized_crop.scale: the list is too short (got [0.5]). Add a value.",
        ),
        (
            {"recipe": "recipe: {base: digits-quick, compile: maybe}"},
            "recipe.compile: must be true or false (got 'maybe'). Write one of the two.",
        ),
        ({"dataset": "dataset: [digits]"}, f"dataset: {NAMED} `name` (got ['digits'])."),
        ({"dataset": "dataset: {name: 3}"}, "dataset.name: must be text (got 3). Put it in quotes: '3'."),
        ({"title": "title: true"}, "title: must be text (got true). Put it in quotes: 'true'."),
        ({"title": "title: 2026-11-27"}, "title: must be text (got 2026-11-27). Put it in quotes: '2026-11-27'."),
        ({"title": "title:"}, "title: must be text (got nothing). Write it after the colon."),
        ({"title": "title: [a]"}, "title: must be text (got ['a']). Write one text."),
        ({"title": "title: a\ntune: {budget: 3, grid: {kd: [3]}}"}, f"tune.grid.kd: {VALUES} (got [3])."),
        ({"title": "title: a\ntune: {budget: 3, grid: {kd: {1: [2]}}}"}, f"tune.grid.kd: {KEY}"),
        ({"title": "title: a\ntune: {budget: 3, grid: {kd: [{1: 2}]}}"}, f"tune.grid.kd[0]: {KEY}"),
        ({"seeds": "seeds: true"}, f"{SEEDS} (got true)."),
        (
            {"recipe": "recipe: {base: digits-quick, augmentation: {resized_crop: {scale: [0.5, 1, 2]}}}"},
            "recipe.augmentation.resized_crop.scale: the list is too long (got [0.5, 1, 2]). Give 2 values.",
        ),
        (
            {"recipe": "recipe: {base: digits-quick, optimiser: {lr: [0.1]}}"},
            "recipe.optimiser.lr: must be a number (got [0.1]). Write one number, without brackets.",
        ),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, recipe: fast}"},
            f"pairs[0].recipe: {MAPPING} (got 'fast'). Write {{base: fast}}.",
        ),
        ({"title": "title: a\nteacher: {recipe: x}"}, f"teacher.recipe: {MAPPING} (got 'x'). Write {{base: x}}."),
        (
            {"methods": "methods:\n  - kd: {}\n    at: {}"},
            "methods[0]: has kd and at side by side. Write each method as an entry of its own with a hyphen before it, and "
            "parameters in braces after the name, `- kd: {...}`.",
        ),
    ],
)
def test_a_value_of_the_wrong_kind(lines, message):
    assert refusal(**lines) == f"mine.yaml, {message}"


@pytest.mark.parametrize(("entry", "got"), [("3", "3"), ("", "nothing"), ("[ft]", "['ft']")])
def test_a_method_entry_of_the_wrong_kind(entry, got):
    assert refusal(methods=f"methods:\n  - {entry}") == (
        f"mine.yaml, methods[0]: must be a name, or one name with its parameters, such as `- ft: {{k: 2}}` (got {got})."
    )


@pytest.mark.parametrize("entry", ["{kd: , temperature: 2}", "kd:\n    temperature: 2"])
def test_parameters_that_stand_beside_the_name_of_their_method(entry):
    assert refusal(methods=f"methods:\n  - {entry}") == (
        "mine.yaml, methods[0]: has kd and temperature side by side. Write parameters in braces after the name, "
        "`- kd: {temperature: ...}`, and each method as an entry of its own."
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"seeds": "seeds: [0]\nepochs: 3"}, "epochs: unknown key. Write it as `recipe: {epochs: ...}`."),
        ({"seeds": "seeds: [0]\nlr: 0.1"}, "lr: unknown key. Write it as `recipe: {optimiser: {lr: ...}}`."),
        ({"recipe": "recipe: {base: digits-quick, lr: 1}"}, "recipe.lr: unknown key. Write it as `optimiser: {lr: ...}`."),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, recipe: {pad: 0}}"},
            "pairs[0].recipe.pad: unknown key. Write it as `augmentation: {pad: ...}`.",
        ),
        ({"seeds": "seeds: [0]\nname: mine"}, "name: unknown key. Write it as `title: ...`."),
        ({"recipe": "recipe: {name: short}"}, "recipe.name: unknown key. A recipe that ships is named by `base: NAME`."),
    ],
)
def test_a_key_of_a_recipe_that_stands_too_high_is_told_with_its_place(lines, message):
    assert refusal(**lines) == f"mine.yaml, {message}"


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ({"recipe": "recipe: {base: digits-quick, epochs: 3, schedule: {milestones: [1, 3]}}"}, "recipe"),
        (
            {"pairs": "pairs:\n  - {teacher: resnet20, student: resnet8, recipe: {epochs: 3, schedule: {milestones: [3]}}}"},
            "pairs[0].recipe",
        ),
        ({"seeds": "seeds: [0]\nteacher: {recipe: {epochs: 3, schedule: {milestones: [3]}}}"}, "teacher.recipe"),
    ],
)
def test_a_milestone_that_is_never_reached(lines, place):
    assert refusal(**lines) == (
        f"mine.yaml, {place}: schedule.milestones: 3 is never reached in 3 epochs; give milestones below `epochs`."
    )


def test_a_mistake_in_the_recipe_is_not_blamed_on_a_pair():
    message = refusal(
        recipe="recipe: {base: digits-quick, optimiser: {lrr: 1}}",
        pairs="pairs:\n  - {teacher: resnet20, student: resnet8, recipe: {batch_size: 32}}",
    )
    assert message == "mine.yaml, recipe.optimiser.lrr: unknown key. Did you mean 'lr'?"


# Mistakes: repetitions, and what has no effect


@pytest.mark.parametrize("second", ["kd", "kd: {temperature: 4.0}"])
def test_a_method_that_stands_there_twice(second):
    place = "methods[1]" if second == "kd" else "methods[1].kd"
    assert refusal(methods=f"methods:\n  - kd\n  - {second}") == (
        f"mine.yaml, {place}: for pairs[0] this is the same as methods[0]. Remove one of the two."
    )


def test_a_pair_that_stands_there_twice():
    pair = "  - {teacher: resnet20, student: resnet8}"
    assert (
        refusal(pairs=f"pairs:\n{pair}\n{pair}") == "mine.yaml, pairs[1]: the suite has this pair already. Remove one of the two."
    )


def test_a_pair_without_any_method():
    assert refusal(pairs="pairs:\n  - {teacher: resnet20, student: resnet8, without: [kd, scratch]}") == (
        "mine.yaml, pairs[0].without: no method is left for this pair. Remove the pair."
    )


def test_methods_that_no_pair_has():
    pairs = "pairs:\n  - {teacher: resnet20, student: resnet8, without: [kd]}"
    assert refusal(pairs=pairs, only=("kd",)) == ("mine.yaml, pairs: `without` leaves kd out of every pair. Choose other methods.")


# Mistakes: the file


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- b\n", "hello\n"])
def test_a_file_without_a_mapping(text):
    assert (
        refusal(text)
        == "mine.yaml holds no keys with values, such as `title: My suite`. `kdbench new suite NAME` writes a suite to start from."
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title: a\nseeds: [1\npairs: b\n", "line 3: while parsing a flow sequence, expected ',' or ']', but got ':'."),
        ("title: a\nseeds: [0]\ntitle: b\n", "line 3: the key 'title' is given twice."),
        ("title: a\nrecipe:\n  epochs: 1\n  epochs: 2\n", "line 4: the key 'epochs' is given twice."),
        ("title: a\n---\ntitle: b\n", "line 2: expected a single document in the stream, but found another document."),
        ("title: *a\n", "line 1: found undefined alias 'a'."),
        (
            "title: a\n\tseeds: [0]\n",
            "line 2: while scanning for the next token, found character '\\t' that cannot start any token.",
        ),
    ],
)
def test_a_mistake_of_yaml_is_told_with_its_line(text, told):
    assert refusal(text) == f"mine.yaml, {told} Correct the YAML."


def test_code_in_yaml_is_refused():
    assert "could not determine a constructor" in refusal("title: !!python/object/apply:os.getcwd []\n")


def test_a_file_that_is_not_text():
    assert refusal(b"title: \xff\xfe\n") == "mine.yaml is not YAML text (invalid start byte). Save it as plain text in UTF-8."
    assert refusal("title: a\x01\n").startswith("mine.yaml is not YAML text (")


def test_the_file_is_named_as_the_user_wrote_it(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mine.yaml").write_text("hello\n")
    for name in ("below/mine.yaml", f"{tmp_path}/below/mine.yaml"):
        with pytest.raises(KdbenchError) as error:
            load_suite(name)
        assert str(error.value).startswith(f"{name} holds no keys with values")


def test_tiny_imagenet_is_streamed_as_its_recipe_says(tmp_path: Path) -> None:
    """The line that the recipe's comment tells users to write."""
    told = (shipped("suites") / "recipes" / "tiny-imagenet.yaml").read_text()
    (line,) = re.findall(r"^# `(recipe: .*)`\.$", told, flags=re.MULTILINE)
    file = tmp_path / "streamed.yaml"
    file.write_text(
        f"title: t\ndataset: {{name: imagestream, label: Tiny-ImageNet, root: {tmp_path}, size: 64}}\n{line}\n"
        "seeds: [0]\nmethods: [scratch]\npairs: [{teacher: resnet20, student: resnet8}]\n"
    )
    recipe = load_suite(file).trials[0].recipe
    assert recipe.epochs == 240 and recipe.augmentation.resized_crop is not None
