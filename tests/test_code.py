"""What is hashed of the code that makes a number: a plugin's file, and all that it draws on within its folder or package."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdbench.data import DATASETS
from kdbench.errors import KdbenchError
from kdbench.method.interface import METHODS
from kdbench.models import MODELS
from kdbench.spec.trial import MethodSpec
from kdbench.suite import code_hash as code_of
from kdbench.suite import imports
from kdbench.suite.plugins import load_path, load_plugins

METHOD = '''
from kdbench import Method, register

@register("mine")
class Mine(Method):
    """CE + distance"""

    reads = ("pooled",)

    def losses(self, student, teacher, batch):
        return {"distance": distance(student.pooled, teacher.pooled)}
'''
BESIDE = "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parent))\n"
DISTANCE = "def distance(a, b):\n    return (a - b).square().mean()\n"
NETWORK = """
from kdbench import build_model, register_model

@register_model("narrow")
def narrow(*, num_classes, in_channels):
    return build_model("resnet8", num_classes=num_classes, in_channels=in_channels)
"""

DERIVED = """
from kdbench import register
from kdbench.method.interface import METHODS

@register("mine")
class Mine(METHODS.get("base")):
    '''CE'''
"""

PLUGINS: dict[str, tuple[dict[str, str], str]] = {
    "a module beside it": (
        {"mine.py": f"{BESIDE}from other_losses import distance\n{METHOD}", "other_losses.py": DISTANCE},
        "other_losses.py",
    ),
    "a module under another name": (
        {"mine.py": f"{BESIDE}import other_losses as ours\ndistance = ours.distance\n{METHOD}", "other_losses.py": DISTANCE},
        "other_losses.py",
    ),
    "a module of a module": (
        {
            "mine.py": f"{BESIDE}from other_a import distance\n{METHOD}",
            "other_a.py": "from other_b import distance",
            "other_b.py": DISTANCE,
        },
        "other_b.py",
    ),
    "a module of a package": (
        {
            "mine.py": f"{BESIDE}from other_lib.losses import distance\n{METHOD}",
            "other_lib/__init__.py": "",
            "other_lib/losses.py": "from . import inner\nfrom .inner import distance",
            "other_lib/inner.py": DISTANCE,
        },
        "other_lib/inner.py",
    ),
    "what a package runs when it is imported": (
        {
            "mine.py": f"{BESIDE}from other_lib.losses import distance\n{METHOD}",
            "other_lib/__init__.py": "SCALE = 1\n",
            "other_lib/losses.py": f"from other_lib import SCALE\n{DISTANCE}",
        },
        "other_lib/__init__.py",
    ),
    "a folder without __init__": (
        {"mine.py": f"{BESIDE}from other_space.losses import distance\n{METHOD}", "other_space/losses.py": DISTANCE},
        "other_space/losses.py",
    ),
    "an import inside a function": (
        {
            "mine.py": f"{BESIDE}def distance(a, b):\n    import other_late\n    return other_late.distance(a, b)\n{METHOD}",
            "other_late.py": DISTANCE,
        },
        "other_late.py",
    ),
    "an import by a name that stands there": (
        {
            "mine.py": f"{BESIDE}import importlib\ndistance = importlib.import_module('other_losses').distance\n{METHOD}",
            "other_losses.py": DISTANCE,
        },
        "other_losses.py",
    ),
    "an import by a name that is made": (
        {"mine.py": f"{BESIDE}distance = __import__('other_' + 'losses').distance\n{METHOD}", "other_losses.py": DISTANCE},
        "other_losses.py",
    ),
    "a base class in another plugin": (
        {
            "base.py": f"{DISTANCE}{METHOD}".replace('"mine"', '"base"').replace("Mine", "Base"),
            "mine.py": DERIVED,
        },
        "base.py",
    ),
    "a network that a parameter names": ({"mine.py": f"{DISTANCE}{METHOD}", "network.py": NETWORK}, "network.py"),
}


@pytest.fixture(autouse=True)
def _forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load_plugins()
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit in the same second would be overlooked
    undo = [registry.snapshot() for registry in (METHODS, MODELS, DATASETS)]
    yield
    forget(tmp_path, undo)


def forget(folder: Path, undo: list[Callable[[], None]]) -> None:
    """As a new process would be."""
    for restore in undo:
        restore()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")).startswith(str(folder)):
            del sys.modules[name]
    sys.path[:] = [place for place in sys.path if not place.startswith(str(folder))]
    sys.path_importer_cache.clear()
    code_of._files_hash.cache_clear()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def code(folder: Path, plugins: list[str], params: dict[str, Any]) -> str:
    """The hash of the method `mine`, as a process of its own computes it."""
    undo = [registry.snapshot() for registry in (METHODS, MODELS, DATASETS)]
    try:
        for name in plugins:
            load_path(folder / name)
        return code_of.method_code([MethodSpec(name="mine", params=params)])
    finally:
        forget(folder, undo)


@pytest.mark.parametrize(("files", "edited"), PLUGINS.values(), ids=PLUGINS)
def test_an_edit_of_whatever_a_method_draws_on_changes_its_hash(files, edited, tmp_path):
    write(tmp_path, {**files, "bystander.py": "x = 1\n"} if "name that is made" not in str(files) else files)
    plugins = [name for name in files if name in ("base.py", "network.py")] + ["mine.py"]
    before = code(tmp_path, plugins, {"nested": {"peer": "narrow"}})
    (tmp_path / "bystander.py").write_text("x = 2\n")
    comment = (tmp_path / edited).read_text() + "# no change\n"
    (tmp_path / edited).write_text(comment)
    if "__import__" not in files["mine.py"]:
        assert code(tmp_path, plugins, {"nested": {"peer": "narrow"}}) == before
    (tmp_path / edited).write_text(comment + "EXTRA = 1\n")
    assert code(tmp_path, plugins, {"nested": {"peer": "narrow"}}) != before


def test_the_hash_does_not_depend_on_where_the_plugin_lies(tmp_path):
    files, _ = PLUGINS["a module of a package"]
    for name in ("here", "there"):
        write(tmp_path / name, files)
    assert code(tmp_path / "here", ["mine.py"], {}) == code(tmp_path / "there", ["mine.py"], {})


@pytest.mark.parametrize("folder", ["site-packages", "target"])
def test_an_installed_package_is_followed_by_its_own_files_alone(tmp_path, folder):
    """Of torch and the like, records hold the versions; `pip install --target` puts them into a folder of any name."""
    site = tmp_path / folder
    record = "other_dep.py,sha256=x,1\nother_lib/__init__.py,,\n../../bin/other,,\n"
    write(site, {"other_dep-1.0.dist-info/RECORD": record})
    write(site, {"other_lib/__init__.py": "", "other_lib/mine.py": f"from other_dep import distance\nfrom . import inner\n{METHOD}",
                 "other_lib/inner.py": DISTANCE, "other_dep.py": DISTANCE})  # fmt: skip
    sys.path.insert(0, str(site))
    found = {file.relative_to(site).as_posix() for file in code_of.followed([site / "other_lib" / "mine.py"])}
    assert found == {"other_lib/mine.py", "other_lib/inner.py", "other_lib/__init__.py"}


def test_a_module_of_ones_own_counts_in_a_folder_where_packages_are_installed_too(tmp_path):
    """As after `pip install --target .`."""
    write(
        tmp_path, {"other_dep-1.0.dist-info/RECORD": "other_dep.py,sha256=x,1\n", "other_dep.py": "", "other_losses.py": DISTANCE}
    )
    write(tmp_path, {"mine.py": f"import other_dep\nfrom other_losses import distance\n{METHOD}"})
    sys.path.insert(0, str(tmp_path))
    assert {file.name for file in code_of.followed([tmp_path / "mine.py"])} == {"mine.py", "other_losses.py"}


def test_what_kdbench_needs_is_not_followed_wherever_it_lies(tmp_path, monkeypatch):
    """Of a source checkout of torch there is no list of what is installed, and following it took minutes at each start."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    imported = {"pillow": "PIL", "PyYAML": "yaml", "scikit-learn": "sklearn"}
    needed = [imported.get(name, name) for name in (re.split("[>=]", text)[0] for text in project["dependencies"])]
    for name in needed:
        for known in [known for known in sys.modules if known.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, known)
        write(tmp_path, {f"checkout/{name}/__init__.py": "from . import inner", f"checkout/{name}/inner.py": ""})
    write(tmp_path, {"mine.py": f"import {', '.join(needed)}\nfrom torch.inner import distance\n{METHOD}"})
    sys.path.insert(0, str(tmp_path / "checkout"))
    assert code_of.followed([tmp_path / "mine.py"]) == [tmp_path / "mine.py"]
    inner = {"__init__.py", "inner.py"}
    assert {file.name for file in code_of.followed([tmp_path / "checkout" / "torch" / "__init__.py"])} == inner


def test_a_folder_that_is_taken_whole_is_read_once(tmp_path, monkeypatch):
    """In a library many files may import by names that are made."""
    names = [f"part{number}" for number in range(9)]
    write(tmp_path, {f"other_lib/{name}.py": "def late(name):\n    return __import__(name)\n" for name in ("__init__", *names)})
    read = []
    monkeypatch.setattr(imports, "parsed", lambda file: read.append(file) or ast.parse(file.read_bytes()))
    assert len(imports.followed([tmp_path / "other_lib" / "__init__.py"])) == 10
    assert len(read) == 2 * 10


@pytest.mark.parametrize("place", ["Path(__file__).parent", "Path(__file__).resolve().parent"])
def test_a_link_to_the_folder_of_a_plugin_changes_neither_its_hash_nor_what_it_may_import(place, tmp_path):
    late = "def late():\n    import other_late\n"
    mine = BESIDE.replace("Path(__file__).parent", place) + f"from other_losses import distance\n{late}{METHOD}"
    write(tmp_path / "real", {"mine.py": mine, "other_losses.py": f"{late}{DISTANCE}", "other_late.py": ""})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "mine.py").symlink_to(tmp_path / "real" / "mine.py")
    expected = code(tmp_path / "real", ["mine.py"], {})
    assert code(tmp_path / "link", ["mine.py"], {}) == expected
    if "resolve" in place:
        assert code(tmp_path / "files", ["mine.py"], {}) == expected


@pytest.mark.parametrize("relative", [False, True])
def test_a_module_that_was_imported_in_the_place_of_another_is_refused(relative, tmp_path, monkeypatch):
    """Python keeps the first module of a name: the second plugin would train with the first one's loss."""
    files = {"mine.py": f"{BESIDE}from other_losses import distance\n{METHOD}", "other_losses.py": DISTANCE}
    write(tmp_path / "first", files)
    write(tmp_path / "second", {**files, "mine.py": files["mine.py"].replace('"mine"', '"too"')})
    load_path(tmp_path / "first" / "mine.py")
    monkeypatch.chdir(tmp_path / "second")
    with pytest.raises(
        KdbenchError,
        match=r"second/mine.py imports 'other_losses', which is .*second/other_losses.py, and .*first/other_losses.py was",
    ):
        load_path(Path("mine.py") if relative else tmp_path / "second" / "mine.py")
    assert "too" not in METHODS


def test_a_module_that_has_changed_since_its_plugin_was_loaded_is_refused(tmp_path):
    write(tmp_path, PLUGINS["a module beside it"][0])
    load_path(tmp_path / "mine.py")
    (tmp_path / "other_losses.py").write_text("# another\n" + DISTANCE)
    with pytest.raises(KdbenchError, match=r"other_losses.py has changed since it was loaded. Restart Python"):
        load_path(tmp_path / "mine.py")


def test_what_is_typed_into_a_notebook_has_no_hash():
    exec(compile(DISTANCE + METHOD, "/tmp/ipykernel_1/2.py", "exec"), {"__name__": "cell"})
    with pytest.raises(KdbenchError, match=r"/tmp/ipykernel_1/2.py cannot be read.*Write the code into a file and give that file"):
        code_of.method_code([MethodSpec(name="mine", params={})])


def test_files_that_lie_about_are_no_code_where_a_name_is_made(tmp_path):
    files, _ = PLUGINS["an import by a name that is made"]
    write(tmp_path, files)
    before = code(tmp_path, ["mine.py"], {})
    (tmp_path / "old.py").write_text("print 'Python 2'\n")
    (tmp_path / "latin.py").write_bytes(b"x = 'caf\xe9'\n")
    assert code(tmp_path, ["mine.py"], {}) == before


def test_a_method_called_exec_imports_nothing(tmp_path):
    write(tmp_path, {"mine.py": f"{DISTANCE}def show(query):\n    query.exec()\n{METHOD}", "bystander.py": "x = 1\n"})
    assert code_of.followed([tmp_path / "mine.py"]) == [tmp_path / "mine.py"]


def test_text_is_no_code_of_the_core_and_the_docstring_alone_is_none_of_a_plugin(tmp_path, monkeypatch):
    plain, told = tmp_path / "plain.py", tmp_path / "told.py"
    plain.write_text("class Params:\n    beta: float = 1.0\n\n\ndef f():\n    return 'value'\n")
    told.write_text(
        "class Params:\n    beta: float = 1.0\n    '''Weight.'''\n\n\n'''Of no class.'''\n\ndef f():\n    return 'value'\n"
    )
    assert code_of._hash([plain]) != code_of._hash([told])  # as in all records that there are
    monkeypatch.setattr(code_of, "is_core", lambda file: True)
    assert code_of._hash([plain]) == code_of._hash([told])
    told.write_text(plain.read_text().replace("'value'", "'other'"))
    assert code_of._hash([plain]) != code_of._hash([told])
