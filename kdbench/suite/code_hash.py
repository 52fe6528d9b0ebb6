"""Which code made a number: hashes of source files that ignore comments, docstrings and layout."""

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from kdbench.data import DATASETS, Source
from kdbench.method.interface import METHODS, Method
from kdbench.models import MODELS, Network
from kdbench.registry import Entry
from kdbench.spec.trial import MethodSpec, TrialSpec
from kdbench.suite.imports import belongs, followed, is_core, parsed

_BASES = (Method, Network, Source)

_CORE = (
    *("streams.py", "spec/base.py", "spec/optimiser.py", "spec/augmentation.py", "spec/recipe.py", "suite/teacher_stages.py"),
    *("method", "data", "models", "training"),
)
_NO_NUMBERS = ("method/description.py", "training/own_loop.py")
"""Of these, what no trial runs through."""


@cache
def core_code() -> str:
    """Hash of everything in the package that can change a number: 16 hexadecimal characters."""
    package = Path(__file__).parents[1]
    files = {file for name in _CORE for file in ([package / name] if "." in name else (package / name).rglob("*.py"))}
    return _hash(files - {package / name for name in _NO_NUMBERS})


def trial_code(trial: TrialSpec) -> str:
    """Hash of the code that a trial is made of beside the core: of its methods, and of a plugin's student or data set.

    Raises:
        KdbenchError: code that stands in no file.
    """
    named = ((MODELS, trial.student), (DATASETS, trial.dataset.name))
    return _code_of(trial.methods, [entry for registry, name in named for entry in registry.entries() if entry.name == name])


def method_code(methods: Iterable[MethodSpec]) -> str:
    """Hash of the code of some methods, and of the plugins' networks that their parameters name."""
    return _code_of(methods, ())


def _code_of(methods: Iterable[MethodSpec], others: Iterable[Entry[Any]]) -> str:
    methods = list(methods)
    names = set().union(*(_texts(part.params) for part in methods))
    networks = (entry for entry in MODELS.entries() if entry.name in names)
    entries: list[Entry[Any]] = [*(METHODS.entry(part.name) for part in methods), *networks, *others]
    return _files_hash(tuple(sorted(set().union(*map(_files_of, entries)))))


def _texts(value: object) -> set[str]:
    """Every string among the values of a JSON value."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(_texts, inner))


@cache
def _files_of(entry: Entry[Any]) -> frozenset[str]:
    """Where the code of what is registered stands, without the core."""
    return frozenset(str(file) for file in (Path(entry.file), *_files_of_bases(entry)) if not is_core(file))


def _files_of_bases(entry: Entry[Any]) -> list[Path]:
    """Where the classes stand that a plugin's class derives from, in another plugin too; none of what is no class."""
    bases = entry.value.__mro__[1:] if isinstance(entry.value, type) else ()
    files = [(base, getattr(sys.modules.get(base.__module__), "__file__", None)) for base in bases]
    own = Path(entry.file)
    return [Path(file) for base, file in files if file and (issubclass(base, _BASES) or belongs(Path(file), own))]


@cache
def _files_hash(files: tuple[str, ...]) -> str:
    return _hash(followed(map(Path, files)))


def _hash(files: Iterable[Path]) -> str:
    """Of the code in some files, wherever they lie and in whatever order they are given."""
    total = hashlib.sha256()
    for code in sorted(map(_code, files)):
        total.update(code)
    return total.hexdigest()[:16]


def _code(file: Path) -> bytes:
    """What counts of a file: of a compiled module all of it, of Python's source all but comments, docstrings and layout."""
    if file.suffix != ".py":
        return file.read_bytes()
    tree = parsed(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            # Of a plugin only the docstring: what lies in records must go on to agree with its code.
            texts = node.body if is_core(file) else node.body[:1]
            node.body = [*(part for part in texts if not _is_text(part)), *node.body[len(texts) :]]
    return repr(_outline(tree)).encode()


def _is_text(statement: ast.stmt) -> bool:
    """Whether it only describes: a docstring, or the text under a field."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


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
