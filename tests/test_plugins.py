"""Methods, models and data sets from outside: a file, a folder, the folder `methods`, another package."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdbench
from kdbench.data import DATASETS
from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS
from kdbench.models import MODELS, build_model
from kdbench.suite import plugins
from kdbench.suite.plugins import load_path, load_plugins, load_shipped

METHOD = '''
from pydantic import NonNegativeFloat

from kdbench import Method, MethodParams, register


@register("NAME")
class Mine(Method):
    """CE(z_s, y) + beta mean(z_s^2)

    Paper: none.
    """

    reads = ("logits",)

    class Params(MethodParams):
        beta: NonNegativeFloat = 0.1

    def losses(self, student, teacher, batch):
        return {"size": self.params.beta * student.logits.square().mean()}
'''

MODEL = """
from kdbench import build_model, register_model


@register_model("NAME")
def small(*, num_classes, in_channels):
    return build_model("resnet8", num_classes=num_classes, in_channels=in_channels)
"""

DATASET = '''
import torch

from kdbench import Dataset, Source, Split, register_dataset


@register_dataset("NAME")
class Noise(Source):
    """Noise: 64 training and 32 test images of 8x8x1, 2 classes; made on the spot."""

    def check(self):
        pass

    def load(self):
        def split(n, seed):
            random = torch.Generator().manual_seed(seed)
            images = torch.randint(256, (n, 8, 8, 1), dtype=torch.uint8, generator=random)
            return Split(images, torch.arange(n) % 2)

        return Dataset(split(64, 0), split(32, 1), ("even", "odd"), mean=(0.5,), std=(0.3,))
'''

SUITE = """
title: All of my own
dataset: NOISE
recipe: {epochs: 1, batch_size: 32, optimiser: {lr: 0.05}}
seeds: [0]
methods: [scratch, METHOD, METHOD+kd]
pairs:
  - {teacher: MODEL, student: MODEL}
"""

KINDS = {"methods": (METHODS, METHOD), "models": (MODELS, MODEL), "datasets": (DATASETS, DATASET)}


@pytest.fixture(autouse=True)
def _forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    load_shipped()
    monkeypatch.chdir(tmp_path)
    undo = [registry.snapshot() for registry, _ in KINDS.values()]
    modules = set(sys.modules)
    yield
    for restore in undo:
        restore()
    for name in set(sys.modules) - modules:
        if name.startswith(("kdbench_shipped_", "other_")):
            del sys.modules[name]


def write(name: str, text: str, *, as_: str = "mine") -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace("NAME", as_))
    return file


def refusal(path: str | Path) -> str:
    before = [registry.entries() for registry, _ in KINDS.values()]
    with pytest.raises(KdbenchError) as error:
        load_path(Path(path))
    assert [registry.entries() for registry, _ in KINDS.values()] == before
    return str(error.value)


# Where plugins come from


def test_a_command_that_a_message_gives_has_the_file_of_ones_own():
    load_path(write("my nets/mine.py", MODEL))
    with pytest.raises(KdbenchError, match=r"`kdbench show model mine --modules --plugin 'my nets/mine.py'` lists them"):
        build_model("mine", hooks=["nothing"])
    with pytest.raises(KdbenchError, match=r"`kdbench show model resnet8 --modules` lists them"):
        build_model("resnet8", hooks=["nothing"])


def test_a_file_that_has_changed_since_it_was_loaded_is_refused(tmp_path, monkeypatch):
    """In a notebook, say, from whatever folder: its new hash would stand beside numbers of the old code."""
    file = write("mine.py", METHOD)
    load_path(file)
    load_path(file)
    monkeypatch.chdir("/")
    load_path(tmp_path / file)
    (tmp_path / file).write_text(METHOD + "\n# another line\n")
    assert refusal(tmp_path / file).endswith("mine.py has changed since it was loaded. Restart Python to use the new version.")


@pytest.mark.parametrize("reads", ["('poolled',)", "'pooled'"])
def test_a_hook_point_that_does_not_exist_is_refused(reads):
    told = refusal(write("mine.py", METHOD.replace('("logits",)', reads)))
    assert told.endswith(
        "Give a tuple of names among logits, stem, features, preactivations, pooled, raw, tokens, heads, pooled_maps."
    )
    assert reads.strip("()',") in told


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_may_hold_any_kind(kind):
    registry, text = KINDS[kind]
    load_path(write("mine.py", text))
    assert "mine" in registry.names()


def test_a_file_may_hold_all_kinds_and_a_suite_may_use_them():
    load_path(write("mine.py", METHOD + MODEL + DATASET))
    write("own.yaml", SUITE.replace("NOISE", "mine").replace("METHOD", "mine").replace("MODEL", "mine"))
    frame = kdbench.run_suite("own.yaml", device="cpu")
    assert list(zip(frame["method"], frame["status"], strict=True)) == [("scratch", "done"), ("mine", "done"), ("mine+kd", "done")]
    assert set(frame["student"]) == set(frame["dataset"]) == {"mine"}


def test_a_folder_gives_all_its_files_but_those_with_an_underscore():
    write("folder/a.py", METHOD, as_="a_for_test")
    write("folder/b.py", METHOD, as_="b_for_test")
    write("folder/_c.py", "raise RuntimeError\n")
    load_path(Path("folder"))
    assert {"a_for_test", "b_for_test"} <= set(METHODS.names())


def test_a_file_is_loaded_once():
    file = write("mine.py", METHOD)
    load_path(file)
    load_path(file.resolve())
    assert Path(METHODS.entry("mine").file) == file.resolve()


def test_a_file_dropped_into_the_folder_of_methods_is_enough(monkeypatch):
    write("methods/good.py", METHOD)
    monkeypatch.setattr(plugins, "shipped", lambda folder: Path(folder))
    assert load_shipped.__wrapped__() == ()
    assert "mine" in METHODS.names()


def test_a_broken_file_in_the_folder_of_methods_leaves_the_others_usable(monkeypatch):
    write("methods/a_broken.py", "import no_such_library\n")
    write("methods/good.py", METHOD)
    monkeypatch.setattr(plugins, "shipped", lambda folder: Path(folder))
    assert load_shipped.__wrapped__() == (
        "methods/a_broken.py:1: ModuleNotFoundError: No module named 'no_such_library'. Correct the file, or leave it out.",
    )
    assert "mine" in METHODS.names()


def test_a_module_beside_a_plugin_that_python_does_not_find_is_told_of(tmp_path):
    (tmp_path / "mine.py").write_text(f"from beside_it import x\n{METHOD}")
    (tmp_path / "beside_it.py").write_text("x = 1\n")
    with pytest.raises(KdbenchError, match=rf"beside_it\.py lies beside it: write PYTHONPATH={tmp_path} before the command\.$"):
        load_path(tmp_path / "mine.py")


def test_what_ships_has_no_problem():
    assert load_shipped() == ()


def test_a_problem_of_what_is_installed_is_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(plugins, "load_shipped", lambda: ("x.py:1: broken.",))
    load_plugins()
    assert [record.getMessage() for record in caplog.records] == ["x.py:1: broken. The other plugins can be used."]


# Packages


def install(target: Path, package: str, points: dict[str, str], **modules: str) -> None:
    """What an installer leaves: a package, and its metadata with entry points, group -> module."""
    for name, text in modules.items():
        write(str(target / package / f"{name}.py"), text, as_=f"{package}_{name}")
    write(str(target / package / "__init__.py"), "")
    info = f"{package}-1.0.dist-info"
    write(str(target / info / "METADATA"), f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    text = "".join(f"[{group}]\n{package} = {module}\n\n" for group, module in points.items())
    (target / info / "entry_points.txt").write_text(text)


def test_an_installed_package_brings_all_kinds(monkeypatch, tmp_path):
    points = {f"kdbench.{kind}": f"other_good.{kind}" for kind in KINDS}
    install(tmp_path / "site", "other_good", points, methods=METHOD, models=MODEL, datasets=DATASET)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert load_shipped.__wrapped__() == ()
    for kind, (registry, _) in KINDS.items():
        assert f"other_good_{kind}" in registry.names()
    assert build_model("other_good_models").classifier.out_features == 10


def test_a_package_may_name_a_class_in_a_module(monkeypatch, tmp_path):
    install(tmp_path / "site", "other_class", {"kdbench.methods": "other_class.methods:Mine"}, methods=METHOD)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert load_shipped.__wrapped__() == ()
    assert "other_class_methods" in METHODS.names()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 / 0\n", "{file}:1: ZeroDivisionError: division by zero. Correct the file, or leave it out."),
        (METHOD + "\n\n1 / 0\n", "{file}:23: ZeroDivisionError: division by zero. Correct the file, or leave it out."),
        (
            "import no_such_library\n",
            "{file}:1: ModuleNotFoundError: No module named 'no_such_library'. Correct the file, or leave it out.",
        ),
        ("def f(:\n", "{file}:1: SyntaxError: invalid syntax. Correct the file, or leave it out."),
    ],
)
def test_a_broken_package_is_told_by_its_name_file_and_line(text, told, monkeypatch, tmp_path):
    install(tmp_path / "site", "other_broken", {"kdbench.methods": "other_broken.methods"}, methods=text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    file = tmp_path / "site" / "other_broken" / "methods.py"
    assert load_shipped.__wrapped__() == (f"plugin 'other_broken' of other_broken: {told.format(file=file)}",)
    assert "other_broken_methods" not in METHODS.names()


def test_a_package_whose_module_is_missing(monkeypatch, tmp_path):
    install(tmp_path / "site", "other_missing", {"kdbench.models": "other_missing.nothing"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert load_shipped.__wrapped__() == (
        "plugin 'other_missing' of other_missing: ModuleNotFoundError: No module named 'other_missing.nothing'. "
        "Correct the file, or leave it out.",
    )


def test_the_command_line_finds_packages_and_warns_of_broken_ones(tmp_path):
    install(tmp_path / "site", "other_good", {"kdbench.methods": "other_good.methods"}, methods=METHOD)
    install(tmp_path / "site", "other_broken", {"kdbench.methods": "other_broken.methods"}, methods="1 / 0\n")
    done = subprocess.run(
        [sys.executable, "-c", "from kdbench.cli import main; main()", "list", "methods", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path / "site"), *sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    names = [entry["name"] for entry in json.loads(done.stdout)]
    assert {"other_good_methods", "kd"} <= set(names)
    (line,) = done.stderr.splitlines()
    assert line.startswith("kdbench: plugin 'other_broken' of other_broken: ")
    assert line.endswith("ZeroDivisionError: division by zero. Correct the file, or leave it out. The other plugins can be used.")


def test_a_package_that_pip_builds_and_installs(tmp_path):
    pytest.importorskip("hatchling")
    pytest.importorskip("pip")
    write("built/other_built/__init__.py", "")
    write("built/other_built/methods.py", METHOD)
    write(
        "built/pyproject.toml",
        """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "other-built"
version = "1.0"

[project.entry-points."kdbench.methods"]
mine = "other_built.methods"
""",
    )
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", "site"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "./built"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", "from kdbench.cli import main; main()", "show", "method", "mine", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path / "site"), *sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)["file"] == str(tmp_path / "site" / "other_built" / "methods.py")


# Mistakes


def test_nothing_there():
    assert refusal("none.py") == "no plugin at none.py. Give a Python file or a folder of them."
    Path("empty").mkdir()
    assert refusal("empty") == (
        "empty holds no Python file to load: tests, and files that begin with an underscore, are left out. Give a "
        "Python file or a folder of them."
    )
    assert refusal(write("mine.txt", METHOD)) == "mine.txt is not a Python file. Give a file whose name ends with .py."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\ndef f(:\n", ":2: SyntaxError: invalid syntax. Correct the file, or leave it out."),
        ("x = 1\n1 / 0\n", ":2: ZeroDivisionError: division by zero. Correct the file, or leave it out."),
        (
            "import json\njson.loads('')\n",
            ":2: JSONDecodeError: Expecting value: line 1 column 1 (char 0). Correct the file, or leave it out.",
        ),
        ("from kdbench import Metod\n", ":1: ImportError: cannot import name 'Metod' from 'kdbench'"),
        ("import sys\nsys.exit(4)\n", ":2: SystemExit: 4. Correct the file, or leave it out."),
        ("x = 1\n", " registers nothing. Put `@kdbench.register(NAME)` above its method, or leave the file out."),
    ],
)
def test_a_file_that_fails_to_import_is_told_with_its_line(text, told):
    assert refusal(write("below/mine.py", text)).startswith(f"below/mine.py{told}")


def test_a_file_that_fails_half_way_leaves_nothing_and_may_be_mended():
    whole = METHOD + MODEL + DATASET
    file = write("mine.py", whole + "\n1 / 0\n")
    assert "ZeroDivisionError" in refusal(file)
    file.write_text(whole.replace("NAME", "mine"))
    load_path(file)
    for registry, _ in KINDS.values():
        assert "mine" in registry.names()


def test_tests_in_a_folder_of_plugins_are_none():
    write("folder/a.py", METHOD, as_="a_for_test")
    write("folder/test_a.py", "1 / 0\n")
    write("folder/conftest.py", "1 / 0\n")
    load_path(Path("folder"))
    assert "a_for_test" in METHODS.names()


def test_one_path_is_no_list_of_plugins():
    with pytest.raises(KdbenchError, match=r"plugins: 'mine.py' is no list\. Write plugins=\['mine.py'\]\."):
        load_plugins("mine.py")


def test_a_broken_file_leaves_others_as_they_are():
    write("folder/a.py", METHOD, as_="a_for_test")
    write("folder/b.py", "1 / 0\n")
    with pytest.raises(KdbenchError):
        load_path(Path("folder"))
    assert {"a_for_test", "kd", "ft"} <= set(METHODS.names())


@pytest.mark.parametrize(
    ("kind", "word", "taken", "line"),
    [("methods", "method", "kd", 8), ("models", "model", "resnet8", 5), ("datasets", "data set", "digits", 7)],
)
def test_a_name_that_is_taken_is_told_with_both_places(kind, word, taken, line):
    registry, text = KINDS[kind]
    file = write("mine.py", text, as_=taken)
    entry = registry.entry(taken)
    message = refusal(file)
    assert message.endswith(f": the {word} name '{taken}' is taken by {entry.file}:{entry.line}. Choose another name.")
    assert message.startswith(f"{file.resolve()}:")
    assert abs(int(message.split(":")[1]) - line) <= 1  # Python versions differ in which line of a decorated class they give


@pytest.mark.parametrize(
    ("kind", "name", "taken"), [("methods", "KD", "kd"), ("methods", "cat-kd", "catkd"), ("models", "ResNet_8", "resnet8")]
)
def test_a_name_that_readers_take_for_another_is_taken(kind, name, taken):
    registry, text = KINDS[kind]
    entry = registry.entry(taken)
    told = f"name '{name}' is taken by {entry.file}:{entry.line}, which writes it '{taken}'. Choose another name."
    assert refusal(write("mine.py", text, as_=name)).endswith(told)


def test_a_name_of_a_family_is_taken():
    told = "the model name 'wrn_10_1' is taken by a family that kdbench has. Choose another name."
    assert refusal(write("mine.py", KINDS["models"][1], as_="wrn_10_1")).endswith(told)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_for_another_interface_is_refused(kind):
    registry, text = KINDS[kind]
    file = write("mine.py", text.replace('"NAME"', '"NAME", interface=2'))
    message = refusal(file)
    assert message.startswith(f"{file.resolve()}:")
    assert message.endswith(
        f": the {registry.kind} 'mine' is written for interface 2 of kdbench, and this one has interface 1. "
        "Install a version of either that fits the other."
    )


def test_what_says_nothing_of_its_interface_is_of_the_first(monkeypatch):
    monkeypatch.setattr("kdbench.registry.INTERFACE", 2)
    message = refusal(write("mine.py", METHOD))
    assert "the method 'mine' is written for interface 1 of kdbench, and this one has interface 2." in message
    load_path(write("newer.py", METHOD.replace('"NAME"', '"NAME", interface=2')))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("(Method)", "", "method 'mine' is not a class derived from kdbench.Method. Derive it from that."),
        (
            "    def losses",
            "    def __init__(self): pass\n\n    def losses",
            "method 'mine' has an __init__ of its own. Make its modules and buffers in build(self, pair) instead.",
        ),
        ("def losses", "def loses", "method 'mine' does not define losses. Define it: kdbench.Method has it empty."),
        ('"NAME"', '"a+b"', "'a+b' cannot be a method's name. Make it of letters, digits, underscores and hyphens."),
        ('"NAME"', '""', "'' cannot be a method's name. Make it of letters, digits, underscores and hyphens."),
    ],
)
def test_a_method_that_is_none(old, new, told):
    assert refusal(write("mine.py", METHOD.replace(old, new))).endswith(f": {told}")


def test_a_data_set_that_is_none():
    assert refusal(write("mine.py", DATASET.replace("def load", "def lod"))).endswith(
        ": data set 'mine' does not define load. Define it: kdbench.Source has it empty."
    )


def test_a_file_that_is_imported_and_given_as_a_plugin_is_told_so():
    file = write("mine.py", METHOD)
    load_path(file)
    spec = importlib.util.spec_from_file_location("mine_for_test", file)
    with pytest.raises(
        KdbenchError, match=r"the method 'mine' is registered already, by this very line\. Import the file or give it"
    ):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
