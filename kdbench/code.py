"""Which code made a number: hashes of source files that ignore comments, docstrings and layout."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from kdbench.data import DATASETS
from kdbench.method import METHODS
from kdbench.models import MODELS
from kdbench.trial import MethodSpec, TrialSpec

_CORE = ("losses.py", "method.py", "outputs.py", "recipe.py", "streams.py", "data", "models", "training")


@cache
def core_code() -> str:
    """Hash of everything in the package that can change a number: 16 hexadecimal characters."""
    package = Path(__file__).parent
    return _hash(file for name in _CORE for file in sorted((package / name).rglob("*.py") if "." not in name else [package / name]))


def trial_code(trial: TrialSpec) -> str:
    """Hash of what a trial is made of beside the core: the files of its methods, and of a plugin's student or data set."""
    named = ((MODELS, trial.student), (DATASETS, trial.dataset.name))
    files = (entry.file for registry, name in named for entry in registry.entries() if entry.name == name)
    own = (file for file in files if not Path(file).is_relative_to(Path(__file__).parent))
    return _files_hash((*(METHODS.entry(part.name).file for part in trial.methods), *own))


def method_code(methods: Iterable[MethodSpec]) -> str:
    """Hash of the files of some methods."""
    return _files_hash(tuple(METHODS.entry(part.name).file for part in methods))


@cache
def _files_hash(files: tuple[str, ...]) -> str:
    return _hash(Path(file) for file in files)


def _hash(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        total.update(repr(_outline(tree)).encode())
    return total.hexdigest()[:16]


def _outline(node: object) -> object:
    """The syntax tree as nested lists, without what is empty: Python versions differ in the empty things that they have."""
    if isinstance(node, list):
        return [_outline(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some format specifications with an empty text
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
    return [type(node).__name__, *((name, _outline(value)) for name, value in fields)]
