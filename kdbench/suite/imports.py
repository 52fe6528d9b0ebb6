"""Which files the code of a plugin stands in: its own, and those that it imports, one after the other.

The standard library, kdbench itself, what it is built on and installed packages are not followed, except by a file of the same
package: records hold the versions of what computes.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import PathFinder
from itertools import pairwise
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.suite.shipped import shipped

_PACKAGE = Path(__file__).parents[1]
_INSTALLED = {"site-packages", "dist-packages"}
_BUILT_ON = {
    *("PIL", "jinja2", "matplotlib", "numpy", "pandas", "pydantic", "rich", "safetensors", "scipy", "sklearn"),
    *("torch", "torchvision", "typer", "yaml"),
}
"""What kdbench needs, wherever it lies. Of torch in a source checkout, following the imports would take minutes."""

_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
_CONSTRUCTED = {"import_module", "__import__", "spec_from_file_location", "run_path", "run_module", "exec"}
"""What imports by a name that need not stand in the source."""


def followed(files: Iterable[Path]) -> list[Path]:
    """The files and every file that their code imports, at once or later, as far as the source tells.

    Where a module is imported by a name that the source does not hold, all files of the folder, or of the package, count.

    Raises:
        KdbenchError: code that stands in no file, or another module of the same name was imported in the place of one.
    """
    found: dict[Path, Path] = {}  # by the file itself, which may have several paths through links
    whole: set[Path] = set()
    queue = [file.absolute() for file in files]
    seen = set(queue)
    while queue:
        file = queue.pop()
        if file.resolve() in found:
            continue
        found[file.resolve()] = file
        for imported in _imported(file, whole):
            if imported not in seen and belongs(imported, file):
                seen.add(imported)
                queue.append(imported)
    return list(found.values())


def is_core(file: Path) -> bool:
    """Whether a file is kdbench's own; shipped methods and examples are plugins like any other."""
    return file.is_relative_to(_PACKAGE) and not any(file.is_relative_to(shipped(name)) for name in ("methods", "examples"))


def belongs(imported: Path, file: Path) -> bool:
    """Whether what a plugin's file imports counts as code of the plugin."""
    if _distribution(imported):
        return _distribution(imported) == _distribution(file) and not is_core(imported)
    if imported.is_relative_to(_STANDARD_LIBRARY) or is_core(imported):
        return False
    name = _package(imported).partition(".")[0]
    return name not in _BUILT_ON or name == _package(file).partition(".")[0]


def _distribution(file: Path) -> Path | None:
    """The folder or module of an installed package, right below where packages are installed; None of what is not installed."""
    for top, place in pairwise([file, *file.parents]):
        if place.name in _INSTALLED or (str(place) in sys.path and top.name in _installed(place)):
            return top
    return None


@cache
def _installed(folder: Path) -> set[str]:
    """What packages have put right below a folder of any name, as by `pip install --target`; beside it, one's own files may lie."""
    lines = (line for record in folder.glob("*.dist-info/RECORD") for line in record.read_text(encoding="utf-8").splitlines())
    return {line.partition(",")[0].partition("/")[0] for line in lines}


def _imported(file: Path, whole: set[Path]) -> Iterator[Path]:
    """What a file imports; `whole` is kept of the folders that are given whole, so that each is read once."""
    if file.suffix != ".py":
        return  # a compiled module
    package = _package(file)
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and _called(node) in _CONSTRUCTED:
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if not isinstance(name, str) or _called(node) not in ("import_module", "__import__"):
                folder = _top(file, package) if package else file.parent
                if folder not in whole:
                    whole.add(folder)
                    yield from _whole(folder.rglob("*.py") if package else folder.glob("*.py"))
                continue
            names = [f"{package}{name}" if name.startswith(".") else name]
        else:
            continue
        for name in names:
            yield from _files_of(name, file)


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr if node.func.attr != "exec" else ""  # a method of anything
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _whole(files: Iterable[Path]) -> Iterator[Path]:
    """Those that Python could import: of files that lie about, some may be of another Python, or none at all."""
    for file in sorted(files):
        try:
            parsed(file)
        except (SyntaxError, ValueError):
            continue
        yield file


def _package(file: Path) -> str:
    """The dotted name of the package that a file is part of; empty where it is in none."""
    parts: list[str] = []
    folder = file.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def _top(file: Path, package: str) -> Path:
    """The folder of the outermost package that a file is part of."""
    return file.parents[len(package.split(".")) - 1]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *filter(None, [node.module])])


def _files_of(name: str, importer: Path) -> Iterator[Path]:
    """The files of a module and of the packages around it, as Python imported them or would; none of what is no module."""
    parts = name.split(".")
    places = [str(importer.parent), *sys.path]
    for count in range(1, len(parts) + 1):
        dotted = ".".join(parts[:count])
        module = sys.modules.get(dotted)
        loaded = Path(module.__file__) if module and getattr(module, "__file__", None) else None  # type: ignore[arg-type]
        if module and not (hasattr(module, "__path__") if loaded is None else belongs(loaded, importer)):
            return  # most imports: nothing is searched for
        spec = PathFinder.find_spec(dotted, places)
        own = Path(spec.origin) if spec and spec.origin else None
        beside = own and own.parent.resolve() == importer.parent.resolve()
        if own and loaded and beside and own.resolve() != loaded.resolve():
            raise KdbenchError(
                f"{importer} imports '{dotted}', which is {own}, and {loaded} was imported under this name before it. Rename one "
                "of the two."
            )
        if file := loaded or own:
            yield file
        if module and hasattr(module, "__path__"):
            places = list(module.__path__)
        elif spec and spec.submodule_search_locations is not None:
            places = list(spec.submodule_search_locations)
        else:
            return


def parsed(file: Path) -> ast.Module:
    """The syntax tree of a source file.

    Raises:
        KdbenchError: it stands in no file, as what is typed into a notebook does.
        SyntaxError: it is no Python.
    """
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except OSError:
        raise KdbenchError(
            f"the code in {file} cannot be read, and a record must say which code made its result. Write the code into a file and "
            "give that file as a plugin."
        ) from None
