"""Where methods, models and data sets come from: the folder that ships with kdbench, installed packages, a user's own files."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
import traceback
from abc import ABCMeta
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kdbench.data import DATASETS, Source
from kdbench.errors import KdbenchError
from kdbench.files import write_bytes
from kdbench.method.interface import METHODS, Method
from kdbench.method.outputs import Shapes
from kdbench.models import MODELS
from kdbench.paths import expanded, found
from kdbench.registry import OWN_FILES, Registry
from kdbench.suite.imports import followed
from kdbench.suite.shipped import shipped

GROUPS = ("kdbench.methods", "kdbench.models", "kdbench.datasets")
"""Entry points of other packages: each names a module, or a class or function in one, whose import registers something."""

_REGISTRIES = (METHODS, MODELS, DATASETS)

log = logging.getLogger("kdbench")


def load_plugins(paths: Iterable[str | Path] = ()) -> None:
    """Import all that ships and is installed, warn of what of it cannot be used, and import a user's own files.

    Raises:
        KdbenchError: one of `paths` does not exist or fails to import; the message names the file and the line.
    """
    if isinstance(paths, str | Path):
        raise KdbenchError(f"plugins: {str(paths)!r} is no list. Write plugins=[{str(paths)!r}].")
    for problem in load_shipped():
        log.warning("%s The other plugins can be used.", problem)
    for path in paths:
        load_path(expanded(path))


@cache
def load_shipped() -> tuple[str, ...]:
    """Import every shipped method and every installed plugin once.

    Returns:
        One message for each that could not be imported; the others are usable all the same.
    """
    problems = []
    for file in _files(shipped("methods")):
        try:
            _load_file(file)
        except KdbenchError as problem:
            problems.append(str(problem))
    for point in (point for group in GROUPS for point in entry_points(group=group)):
        try:
            with _whole_or_not_at_all():
                point.load()
        except KdbenchError as problem:
            problems.append(f"plugin '{point.name}' of {point.dist.name if point.dist else point.module}: {problem}")
    return tuple(problems)


def load_path(path: Path) -> None:
    """Import a user's Python file, or every file of a folder but tests and those whose name begins with an underscore.

    Raises:
        KdbenchError: nothing there, or a file that fails to import or registers nothing; the message names the file and the line.
    """
    if not found(path):
        raise KdbenchError(f"no plugin at {path}. Give a Python file or a folder of them.")
    load_shipped()
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise KdbenchError(
            f"{path} holds no Python file to load: tests, and files that begin with an underscore, are left out. Give a Python "
            "file or a folder of them."
        )
    for file in files:
        _load_file(file)


@dataclass(frozen=True)
class OwnFiles:
    """The user's own files that a process has imported, so that another one, also on another machine, can import the same.

    Attributes:
        modules: each file by the name of its module, in the order of their import.
        texts: what stands in these files and in those that they import.
        search: where Python looks for what they import.
    """

    modules: Mapping[str, Path]
    texts: Mapping[Path, bytes]
    search: tuple[Path, ...]

    @classmethod
    def loaded(cls) -> OwnFiles:
        """Those of this process."""
        own = {name: module for name, module in sys.modules.items() if name.startswith(OWN_FILES)}
        texts = {file.absolute(): text for module in own.values() for file, text in vars(module)["__sources__"].items()}
        places = [Path(place).absolute() for place in sys.path]
        search = tuple(place for place in places if any(file.is_relative_to(place) for file in texts))
        return cls({name: Path(str(module.__file__)).absolute() for name, module in own.items()}, texts, search)

    def copied(self, folder: Path) -> OwnFiles:
        """Write them into a folder, each under the path that it had; the files there."""

        def placed(path: Path) -> Path:
            return folder / path.relative_to(path.anchor)

        for file, text in self.texts.items():
            write_bytes(placed(file), text)
        return OwnFiles(
            {name: placed(file) for name, file in self.modules.items()},
            {placed(file): text for file, text in self.texts.items()},
            tuple(map(placed, self.search)),
        )

    def load(self) -> None:
        """Import them, with all that ships and is installed.

        Raises:
            KdbenchError: as `load_plugins`.
        """
        load_plugins()
        sys.path[:0] = [str(place) for place in self.search if str(place) not in sys.path]
        for name, file in self.modules.items():
            _load_file(file, name)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.py") if not file.name.startswith(("_", "test_")) and file.name != "conftest.py")


def _load_file(file: Path, name: str = "") -> None:
    name = name or _module_name(file)
    if name in sys.modules:
        for source, text in vars(sys.modules[name])["__sources__"].items():
            if source.read_bytes() != text:
                raise KdbenchError(f"{source} has changed since it was loaded. Restart Python to use the new version.")
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise KdbenchError(f"{file} is not a Python file. Give a file whose name ends with .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic resolves annotations through it
    try:
        with _whole_or_not_at_all(file):
            spec.loader.exec_module(module)
            sources = {source: source.read_bytes() for source in followed([file])}
    except BaseException:
        del sys.modules[name]
        raise
    vars(module)["__sources__"] = sources


def _module_name(file: Path) -> str:
    """The same in every process, so that what a plugin defines can be sent from one to another."""
    if file.is_relative_to(shipped("methods")):
        return f"kdbench_shipped_{file.stem}"
    return f"{OWN_FILES}{file.stem}_{sha256(str(file.resolve()).encode()).hexdigest()[:16]}"


@contextmanager
def _whole_or_not_at_all(file: Path | None = None) -> Iterator[None]:
    """What the block registers counts only if the block comes to its end and all of it can be used.

    Args:
        file: the one that is imported, which must register something; None for a package, which may be imported already.

    Raises:
        KdbenchError: otherwise; the message names the file and the line.
    """
    restore = [registry.snapshot() for registry in _REGISTRIES]
    known = [len(registry) for registry in _REGISTRIES]
    try:
        yield
        if file and known == [len(registry) for registry in _REGISTRIES]:
            raise KdbenchError(f"{file} registers nothing. Put `@kdbench.register(NAME)` above its method, or leave the file out.")
        for registry, base in ((METHODS, Method), (DATASETS, Source)):
            _refuse_unfinished(registry, base)
        _refuse_unknown_points()
    except (Exception, SystemExit) as problem:  # whatever a plugin raises must not take the others down
        for undo in restore:
            undo()
        if isinstance(problem, KdbenchError):
            raise
        words = problem.msg if isinstance(problem, SyntaxError) else problem
        reason = f"{type(problem).__name__}: {words}"
        fix = "Correct the file, or leave it out."
        if file and isinstance(problem, ModuleNotFoundError) and (file.parent / f"{problem.name}.py").is_file():
            fix = f"{problem.name}.py lies beside it: write PYTHONPATH={file.absolute().parent} before the command."
        raise KdbenchError(f"{_place(problem, file)}{reason}. {fix}") from problem


def _refuse_unfinished(registry: Registry[Any], base: ABCMeta) -> None:
    for entry in registry.entries():
        place = f"{entry.file}:{entry.line}: {registry.kind} '{entry.name}'"
        if not (isinstance(entry.value, ABCMeta) and issubclass(entry.value, base)):
            raise KdbenchError(f"{place} is not a class derived from kdbench.{base.__name__}. Derive it from that.")
        if registry is METHODS and not _takes_two(entry.value):
            raise KdbenchError(f"{place} has an __init__ of its own. Make its modules and buffers in build(self, pair) instead.")
        if missing := sorted(entry.value.__abstractmethods__):
            raise KdbenchError(f"{place} does not define {', '.join(missing)}. Define it: kdbench.{base.__name__} has it empty.")


def _takes_two(method: type[object]) -> bool:
    """Whether it can be made of parameters and a pair."""
    try:
        inspect.signature(method).bind(None, None)
    except TypeError:
        return False
    return True


def _refuse_unknown_points() -> None:
    points = [point.name for point in fields(Shapes)]
    for entry in METHODS.entries():
        if isinstance(entry.value.reads, str) or not set(entry.value.reads) <= set(points):
            raise KdbenchError(
                f"{entry.file}:{entry.line}: method '{entry.name}' has reads = {entry.value.reads!r}. Give a tuple of names among "
                f"{', '.join(points)}."
            )


def _place(problem: BaseException, file: Path | None) -> str:
    """Where in a plugin a problem arose, such as `mine.py:3: `; empty where no line of it was reached."""
    own = str(file.absolute()) if file else None
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(problem.__traceback__)]
    if isinstance(problem, SyntaxError):
        places = [(problem.filename or "", problem.lineno)]
    elif own:
        places = [place for place in places if place[0] == own]
    else:
        places = [place for place in places if not (place[0] == __file__ or _is_machinery(place[0]))]
    if not places:
        return ""
    name, line = places[-1]
    return f"{file if name == own else name}:{line}: "


def _is_machinery(file: str) -> bool:
    return file.startswith("<frozen importlib") or Path(importlib.util.__file__).parent in Path(file).parents
