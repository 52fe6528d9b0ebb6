"""Paths that users write: `~` is the home folder everywhere, and a path in a suite begins in the suite's folder."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from pydantic import BaseModel, Field, FilePath

import kdbench
from kdbench.data import DATASETS, Dataset, Source, SourceParams, register_dataset
from kdbench.method.interface import METHODS, Method, register
from kdbench.method.specs import build_part
from kdbench.method.stages import Losses
from kdbench.paths import has_path, map_paths
from kdbench.report.published_numbers import REQUIRED, read_published
from kdbench.results.store import Store
from kdbench.spec.record import PROTOCOL
from kdbench.spec.trial import MethodParams
from kdbench.suite.plugins import load_plugins, load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.suite.suite import Suite

load_shipped()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder that is the working folder, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def _registries_as_before() -> Iterator[None]:
    undo = METHODS.snapshot(), DATASETS.snapshot()
    yield
    for restore in undo:
        restore()


def suite(
    dataset: str, *, folder: str = "sub", methods: str = "[scratch]", call: Callable[[str], str | Path] = lambda file: file
) -> Suite:
    """A suite that stands in a folder below the working one."""
    Path(folder).mkdir(exist_ok=True)
    file = f"{folder}/s.yaml"
    Path(file).write_text(
        f"title: t\ndataset: {dataset}\nrecipe: digits-quick\nseeds: [0]\nmethods: {methods}\n"
        "pairs: [{teacher: resnet14, student: resnet8}]\n"
    )
    return load_suite(call(file))


def folder_of(root: str, **options: object) -> Path:
    _, params = suite(f"{{name: imagefolder, label: mine, size: 8, root: {root}}}", **options).source  # type: ignore[arg-type]
    return vars(params)["root"]


# In a suite


def test_a_relative_path_begins_in_the_folder_of_the_suite_from_wherever_that_is_run(home, monkeypatch):
    for root, expected in (("images", "sub/images"), ("../images", "sub/../images"), ("/images", "/images")):
        assert folder_of(root) == Path(expected)
    monkeypatch.chdir(Path("sub"))
    assert load_suite("s.yaml").trials == load_suite(home / "sub" / "s.yaml").trials
    assert folder_of("images", folder=".") == Path("images")


def test_a_path_in_a_shipped_suite_begins_in_the_working_folder():
    _, params = load_suite("ft-cifar10-jpeg-short").source
    assert vars(params)["root"] == Path("data/cifar10-jpeg")


def test_what_a_data_set_reads_unless_told_otherwise_is_in_the_working_folder():
    _, params = suite("cifar10").source
    assert vars(params)["root"] == Path("data")


def test_a_path_from_the_working_folder_is_told_as_the_suite_must_have_it():
    Path("images").mkdir()
    with pytest.raises(kdbench.KdbenchError) as error:
        folder_of("images")
    assert str(error.value) == (
        "sub/s.yaml, dataset: there is no sub/images, and a path in a suite begins in the suite's folder. For images in the folder "
        "where kdbench was started, write ../images."
    )
    assert folder_of("../images").samefile("images")


class Nested(BaseModel):
    file: Path | None = None


class Everything(BaseModel):
    one: Path
    checked: FilePath
    maybe: Path | None
    either: Path | Literal["none"]
    text: str
    text_first: str | Path
    many: list[Path]
    pair: tuple[str, Path]
    by_name: dict[str, Path | None]
    nested: Nested


def test_what_is_a_path_is_told_by_the_types_of_the_fields_alone():
    given = {
        "one": "a",
        "checked": "b",
        "maybe": None,
        "either": "none",
        "text": "c",
        "text_first": "d",
        "many": ["e", "f"],
        "pair": ["g", "h"],
        "by_name": {"i": "j", "k": None},
        "nested": {"file": "l"},
        "unknown": "m",
    }
    assert map_paths(Everything, given, lambda path: f"<{path}>") == {
        **given,
        "one": "<a>",
        "checked": "<b>",
        "many": ["<e>", "<f>"],
        "pair": ["g", "<h>"],
        "by_name": {"i": "<j>", "k": None},
        "nested": {"file": "<l>"},
    }
    assert map_paths(Everything, {"either": "x", "maybe": "y"}, lambda path: f"<{path}>") == {"either": "<x>", "maybe": "<y>"}
    assert {name for name, field in Everything.model_fields.items() if not has_path(field.annotation)} == {"text"}


def test_a_data_set_of_ones_own_has_its_paths_placed_and_its_trials_keep_their_identity():
    @register_dataset("listed")
    class Listed(Source):
        class Params(SourceParams):
            root: Path = Field(exclude=True)
            lists: tuple[Path, ...] = ()

        def check(self) -> None:
            raise NotImplementedError

        def load(self) -> Dataset:
            raise NotImplementedError

    found = suite("{name: listed, root: here, lists: [a.txt, ./b.txt]}")
    assert found.source[1] == Listed.Params(root=Path("sub/here"), lists=(Path("sub/a.txt"), Path("sub/b.txt")))
    assert found.trials[0].dataset.params["lists"] == ["a.txt", "b.txt"]
    assert "root" not in found.trials[0].dataset.params


def test_a_methods_file_is_found_beside_the_suite_and_known_by_its_content(home):
    @register("second_teacher")
    class Second(Method):
        class Params(MethodParams):
            weights: Path | None = None

        params: Params

        def losses(self, student: object, teacher: object, batch: object) -> Losses:
            raise NotImplementedError

    def trial(content: str, folder: str) -> str:
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "w.pth").write_text(content)
        (found,) = suite("digits", folder=folder, methods="[{second_teacher: {weights: w.pth}}]").trials
        network = SimpleNamespace(logits=(10,), lacking=list)
        pair = SimpleNamespace(student=network, teacher=network, smallest_batch=32, others=())
        assert build_part(found.methods[0], pair).params.weights == home / folder / "w.pth"  # type: ignore[arg-type, attr-defined]
        return found.id

    first = trial("one", "first")
    assert trial("one", "moved") == first
    assert trial("two", "first") != first
    assert suite("digits", methods="[second_teacher]").trials[0].methods[0].params == {"weights": None}


# The home folder


def test_the_home_folder_in_a_suite(home):
    assert folder_of("~/images") == home / "images"
    suite("digits", call=lambda file: f"~/{file}")
    (home / "w.pth").write_bytes(b"")
    pairs = "[{teacher: {model: resnet14, weights: ~/w.pth}, student: resnet8}]"
    Path("sub/s.yaml").write_text(Path("sub/s.yaml").read_text().replace("[{teacher: resnet14, student: resnet8}]", pairs))
    (teacher,) = load_suite("sub/s.yaml", methods=["kd"]).teachers
    assert teacher.weights is not None and teacher.weights.file == home / "w.pth"


def test_the_home_folder_wherever_python_takes_a_path(home):
    (home / "mine.py").write_text("from kdbench import register\n\n@register('mine')\nclass M: ...\n")
    (home / "mine.csv").write_text(",".join(REQUIRED) + "\n")
    assert Store(Path("~/r"), protocol=PROTOCOL).root == home / "r"
    assert read_published([Path("~/mine.csv")]).empty
    for act in (
        lambda: kdbench.load_results("~/r"),
        lambda: kdbench.load_student("~/r/trials/t"),
        lambda: load_plugins(["~/mine.py"]),
    ):
        with pytest.raises(kdbench.KdbenchError, match=re.escape(str(home))):
            act()


def test_a_home_folder_that_nobody_has_is_a_name_like_any_other():
    assert folder_of("~nobody-at-all/images") == Path("sub/~nobody-at-all/images")


def test_a_folder_that_may_not_be_entered_is_no_missing_file(monkeypatch):
    original = Path.stat

    def closed(path: Path, **options: bool) -> os.stat_result:
        if "closed" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, **options)

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(PermissionError):
        load_suite("closed/s.yaml")
