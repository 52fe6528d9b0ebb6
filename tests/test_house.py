"""The map in CONTRIBUTING is the order of imports that lint keeps, and what it names is there."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAP = (ROOT / "CONTRIBUTING.md").read_text().split("## Map")[1].split("## Rules of the code")[0]
NAMES = 37
"""Characters of a line of the picture that name folders and modules."""


def names(line: str) -> set[str]:
    return set(re.findall(r"\w+", line))


def test_the_picture_is_the_contract():
    (contract, *_) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    picture = MAP.split("```text\n")[1].split("```")[0].splitlines()
    floors = [names(line[:NAMES]) for line in picture]
    ground = next(i for i, floor in enumerate(floors) if "files" in floor)
    assert [*floors[:ground], floors[ground] | floors[ground + 1], *floors[ground + 2 :]] == [
        names(layer) for layer in contract["layers"]
    ]


def test_what_the_map_names_is_there():
    told = MAP.split("```")[2]
    named = {name for name in re.findall(r"`([^`]+)`", told) if "/" in name and " " not in name}
    tests = set(re.findall(r"tests/[\w/]+\.py", told))
    assert len(named) > 10 and len(tests) > 10
    assert [name for name in sorted(named | tests) if not (ROOT / name).exists()] == []


def test_every_folder_is_told_what_it_is():
    wings = {file.parent.name for file in (ROOT / "kdbench").glob("*/__init__.py")}
    assert wings <= names(MAP.split("```text\n")[1].split("```")[0])
