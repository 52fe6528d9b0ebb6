"""Where methods come from: the folder that ships with kdbench, installed packages, and a user's own files."""

import importlib.util
import sys
import traceback
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.method import METHODS


def shipped(folder: str) -> Path:
    """A folder that stands beside the package in a clone and inside it in an installed wheel: `methods` or `suites`."""
    package = Path(__file__).parent
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


@cache
def load_shipped() -> tuple[str, ...]:
    """Import every shipped method and every installed plugin once.

    Returns:
        One message for each file that could not be imported; the other methods are usable all the same.
    """
    problems = []
    for file in sorted(shipped("methods").glob("*.py")):
        try:
            _load_file(file)
        except KdbenchError as problem:
            problems.append(str(problem))
    for point in entry_points(group="kdbench.methods"):
        try:
            point.load()
        except Exception as problem:  # whatever another package raises must not take ours down
            problems.append(f"plugin '{point.name}' ({point.value}): {type(problem).__name__}: {problem}")
    return tuple(problems)


def load_path(path: Path) -> None:
    """Import a user's method file, or every file of a folder.

    Raises:
        KdbenchError: nothing there, or a file that fails to import; the message names the file and the line.
    """
    if not path.exists():
        raise KdbenchError(f"no plugin at {path}. Give a Python file or a folder of them.")
    load_shipped()
    for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
        _load_file(file.resolve())


def _load_file(file: Path) -> None:
    name = f"kdbench_plugin_{file.stem}_{abs(hash(file)):x}"
    if any(
        getattr(module, "__file__", None) == str(file) for key, module in sys.modules.items() if key.startswith("kdbench_plugin_")
    ):
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise KdbenchError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic resolves annotations through it
    try:
        spec.loader.exec_module(module)
    except KdbenchError:
        _forget(name, file)
        raise
    except SyntaxError as problem:
        _forget(name, file)
        raise KdbenchError(f"{problem.filename}:{problem.lineno}: {problem.msg}. Mend the file or take it out.") from problem
    except Exception as problem:
        _forget(name, file)
        frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == str(file)]
        line = frames[-1].lineno if frames else 1
        raise KdbenchError(f"{file}:{line}: {type(problem).__name__}: {problem}. Mend the file or take it out.") from problem


def _forget(name: str, file: Path) -> None:
    del sys.modules[name]
    METHODS.discard(str(file))
