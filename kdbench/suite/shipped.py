"""What ships with kdbench: where it lies, and what its suites, recipes and examples are called."""

from difflib import get_close_matches
from pathlib import Path

from kdbench.errors import KdbenchError, nearest
from kdbench.paths import expanded, found

SUFFIXES = (".yaml", ".yml")
"""Of files that can be a suite."""


def shipped(folder: str) -> Path:
    """A folder that stands beside the package in a clone and inside it in an installed wheel: `methods`, `suites` or `examples`."""
    package = Path(__file__).parents[1]
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def is_shipped(suite: Path) -> bool:
    """Whether a suite's file is one of those that ship."""
    return suite.resolve().is_relative_to(shipped("suites").resolve())


def suite_names() -> list[str]:
    """Names of the shipped suites, such as `quick` and `ablations/ft-k`."""
    folder = shipped("suites")
    files = (file.relative_to(folder) for file in folder.rglob("*.yaml"))
    return sorted(file.with_suffix("").as_posix() for file in files if file.parts[0] != "recipes")


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(file.stem for file in (shipped("suites") / "recipes").glob("*.yaml"))


def example_names() -> list[str]:
    """Names of the files of the examples, such as `own_images.yaml`."""
    return sorted(file.name for file in shipped("examples").iterdir() if file.suffix in (".py", ".yaml"))


def find_suite(name: str) -> Path:
    """The file of a suite that ships or of one's own.

    Raises:
        KdbenchError: there is none.
    """
    path, names = expanded(name), suite_names()
    if is_file := path.suffix in SUFFIXES:
        if found(path):
            return path
    elif name in names:
        return shipped("suites") / f"{name}.yaml"
    stem = path.with_suffix("") if is_file else path
    there = [file for suffix in SUFFIXES if found(file := Path(f"{stem}{suffix}"))]
    if is_file and not there:
        beside = {file.stem: file for suffix in SUFFIXES for file in path.parent.glob(f"*{suffix}")}
        there = [beside[stem] for stem in get_close_matches(path.stem, beside, n=1)]
    near = f" Did you mean '{there[0]}'?" if there else "" if is_file else nearest(name, names)
    if is_file:
        raise KdbenchError(f"no suite file at {path}.{near} See `kdbench list suites` for those that ship with kdbench.")
    if not near and path.is_dir():
        raise KdbenchError(
            f"{name} is a folder, not a suite. Give a folder of results with --results, and a suite by its name or file."
        )
    raise KdbenchError(f"unknown suite '{name}'.{near} Give a path to a YAML file, or see `kdbench list suites`.")
