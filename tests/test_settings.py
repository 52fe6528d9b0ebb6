"""`kdbench show` of suites, recipes, data sets and examples; `kdbench new` of suites and of the examples."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import Lab

from kdbench import KdbenchError
from kdbench.catalogue.images import contents_of
from kdbench.catalogue.listing import listing
from kdbench.catalogue.plan import plan_as_text
from kdbench.catalogue.show import shown
from kdbench.data import DATASETS
from kdbench.spec.recipe import Recipe
from kdbench.suite.file import SuiteFile
from kdbench.suite.imports import is_core
from kdbench.suite.recipes import recipe_tree
from kdbench.suite.resolve import load_suite
from kdbench.suite.scaffold import new_examples, new_suite
from kdbench.suite.shipped import example_names, recipe_names, shipped
from kdbench.suite.suite import Suite

ROOT = Path(__file__).parent.parent


def ids(suite: Suite) -> list[str]:
    return [trial.id for trial in (*suite.teachers, *suite.trials)]


# A suite


@pytest.mark.parametrize(
    "name", ["quick", "ablations/ft-variants", "crd-cross", "ft-cifar10-jpeg-short", str(ROOT / "examples/own_images.yaml")]
)
def test_a_suite_is_shown_as_one_that_gives_the_same_trials(name, tmp_path):
    value, text = shown("suite", name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(text)
    assert ids(load_suite(copy)) == ids(load_suite(name))
    assert value["suite"] == yaml.safe_load(text) == shown("suite", str(copy))[0]["suite"]
    assert value["suite"].keys() | {"stages"} == set(SuiteFile.model_fields), "every key stands there"
    assert value["suite"]["recipe"].keys() == set(Recipe.model_fields)
    assert value["suite"]["dataset"].keys() == {"name", *load_suite(name).source[0].Params.model_fields}
    assert value["trials"] == len(load_suite(name).trials)


def test_the_head_of_a_suite_says_what_its_images_are(lab: Lab):
    value, text = shown("suite", str(lab.write(dataset={"label": "mine"})))
    assert value["data"]["classes"] == ["at0", "at1", "at2"]
    head = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert head == (
        f"{lab.root / 'tiny.yaml'}: 1 teacher and 2 students 72 training images and 30 test images in 3 classes (24 a class) "
        "classes: at0, at1, at2"
    )
    assert value["suite"]["methods"] == ["scratch", {"kd": {"temperature": 4.0, "alpha": 0.9}}]
    assert "stages" not in value["suite"], "it has no effect on these methods, and is refused"


def test_images_that_are_not_there_are_said_in_a_suite_and_in_a_plan(lab: Lab):
    suite = lab.suite(dataset={"root": str(lab.root / "none")})
    value, text = shown("suite", str(suite.file))
    told = f"images: root: there is no folder {lab.root / 'none'}; give one that holds train/<class>/ and test/<class>/."
    assert value["data"] is None
    assert told in " ".join(line.removeprefix("# ") for line in text.splitlines())
    contents = contents_of(suite.source, cache=lab.store.cache)
    assert plan_as_text(lab.plan(suite), [], contents).splitlines()[1] == f"  {told}"


# A recipe, a data set


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_shown_as_a_suite_may_have_it_with_what_its_keys_mean(name):
    value, text = shown("recipe", name)
    recipe = Recipe.model_validate(recipe_tree({"base": name}))
    assert Recipe.model_validate(yaml.safe_load(text)["recipe"]) == recipe
    assert {key["key"]: key["value"] for key in value["keys"]}["optimiser.lr"] == recipe.optimiser.lr
    assert all(key["meaning"] for key in value["keys"])
    assert "\n  # Images in a batch. The last batch of an epoch has what is left.\n  batch_size: " in text


@pytest.mark.parametrize("name", sorted(name for name in DATASETS.names() if is_core(Path(DATASETS.entry(name).file))))
def test_a_data_set_is_shown_with_all_keys_their_defaults_and_meanings(name):
    value, text = shown("dataset", name)
    fields = DATASETS.get(name).Params.model_fields
    with_computed = re.sub(r"# (\w+):  \(computed", r"\1:  # (computed", text)
    assert {key["key"] for key in value["keys"]} == fields.keys() == yaml.safe_load(with_computed)["dataset"].keys() - {"name"}
    assert all(key["meaning"] for key in value["keys"])
    assert {key["key"] for key in value["keys"] if key["required"]} == {key for key in fields if fields[key].is_required()}


def test_the_keys_of_a_folder_of_images_need_no_place():
    value, text = shown("dataset", "imagefolder")
    assert value["data"] is None
    assert [key["key"] for key in value["keys"] if key["required"]] == ["label", "root", "size"]
    assert "\n  # 3 for colour, 1 for grey.\n  channels: 3\n" in text
    assert text.index("  size:  # required\n") < text.index("  validation: 0.0\n"), "what must be given stands first"
    assert "  # resize:  (computed unless given)\n" in shown("dataset", "imagestream")[1]


def test_a_data_set_that_is_known_tells_its_classes():
    value, text = shown("dataset", "cifar10")
    assert value["data"]["classes"][:2] == ["airplane", "automobile"]
    assert value["data"]["train_images"]["images"] == 50_000
    assert "# 50,000 training images and 10,000 test images in 10 classes (5,000 a class)\n# classes: airplane, automobile," in text
    assert "\n# classes (training + test images): 0 (142 + 36), 1 (146 + 36)," in shown("dataset", "digits")[1]


def test_a_data_set_that_is_known_tells_its_normalisation():
    value, text = shown("dataset", "cifar10")
    assert value["normalisation"] == {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}
    said = "pixels: 0..1, normalised with mean 0.4914, 0.4822, 0.4465 and std 0.2023, 0.1994, 0.2010"
    assert f"# {said}\n" in text
    assert "# pixels: 0..1, normalised with mean 0.3052 and std 0.3758\n" in shown("dataset", "digits")[1]
    assert shown("dataset", "imagefolder")[0]["normalisation"] is None


def test_a_folder_of_images_tells_what_would_be_read(images):
    value, text = shown("dataset", str(images))
    assert value["data"]["classes"] == ["at0", "at1", "at2"]
    assert "image_shape" not in value["data"], "a suite's `size` says that"
    assert text.splitlines()[0] == "72 training images and 30 test images in 3 classes (24 a class)"
    assert text.splitlines()[-2:] == [
        "the first image, train/at0/00.png, has 8x8 pixels",
        f"in a suite: dataset: {{name: imagefolder, label: {images.name}, root: {images}, size: 8}}",
    ], "small images are not enlarged"


@pytest.mark.parametrize(
    ("what", "name", "message"),
    [
        ("suite", "quik", "unknown suite 'quik'. Did you mean 'quick'?"),
        ("recipe", "shrot", "unknown recipe 'shrot'. Did you mean 'short'? Choose one of deit-imagenet, digits-quick,"),
        ("dataset", "cifar11", "unknown data set 'cifar11'. Did you mean 'cifar10'?"),
        (
            "dataset",
            "/no/such/place",
            "there is no folder /no/such/place. Give one of images, or a name of `kdbench list datasets`.",
        ),
        ("example", "own_images", "unknown example 'own_images'. Did you mean 'own_images.yaml'? See `kdbench list examples`."),
    ],
)
def test_what_is_not_known_is_told_with_what_is(what, name, message):
    with pytest.raises(KdbenchError) as refused:
        shown(what, name)
    assert str(refused.value).startswith(message)


# New files


def test_a_new_suite_runs_at_once_and_names_every_key(tmp_path):
    (file,) = new_suite("mine", tmp_path)
    assert file == tmp_path / "mine.yaml"
    suite = load_suite(file)
    assert (len(suite.teachers), len(suite.trials)) == (1, 15)
    text = file.read_text()
    assert all(f"{key}:" in text for key in SuiteFile.model_fields)
    assert "kdbench run mine.yaml\n" in text
    loose = text.replace("# plugins:", "plugins:").replace("# teacher:", "teacher:").replace("# keep_students:", "keep_students:")
    loose = loose.replace("# stages:", "stages:").replace("  - rkd+kd\n", "  - ft\n")
    file.write_text(loose)
    assert len(load_suite(file).trials) == 15, "what stands in comments is right, too"


def test_a_new_suite_can_be_called_with_its_ending_and_overwrites_nothing(tmp_path):
    (file,) = new_suite("mine.yaml", tmp_path)
    with pytest.raises(KdbenchError, match=r"mine\.yaml exists already\. Choose another name, or move it away\.$"):
        new_suite("mine", tmp_path)
    for name, told in (("quick", "ships with kdbench. Choose another name."), ("a/b", "Use letters, digits, underscores and")):
        with pytest.raises(KdbenchError, match=told):
            new_suite(name, tmp_path)
    assert list(tmp_path.iterdir()) == [file]


def test_the_examples_are_copied_and_work_where_they_are(tmp_path):
    files = new_examples(tmp_path / "examples")
    assert [file.read_bytes() for file in files] == [(ROOT / "examples" / file.name).read_bytes() for file in files]
    assert {file.name for file in files} == {file.name for file in (ROOT / "examples").glob("*.*")}
    assert [entry["name"] for entry in listing("examples")] == [file.name for file in files] == example_names()
    assert all(entry["about"] for entry in listing("examples"))
    assert shown("example", "cosine.py")[0]["text"] == (tmp_path / "examples/cosine.py").read_text()
    assert load_suite(tmp_path / "examples/own_images.yaml").source[1].root == tmp_path / "examples/path/to/images"
    with pytest.raises(KdbenchError, match="exists already"):
        new_examples(tmp_path / "examples")


def test_the_wheel_brings_what_ships(monkeypatch):
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    asked = {"methods", "suites", "examples"}
    assert build["wheel"]["force-include"] == {folder: f"kdbench/{folder}" for folder in asked}
    assert asked <= set(build["sdist"]["include"])
    monkeypatch.setattr("kdbench.suite.imports._PACKAGE", ROOT)  # they lie below the package then
    assert not any(is_core(shipped(folder) / "any.py") for folder in ("methods", "examples")), "they are plugins like any other"
