"""Ids of trials and hashes of methods are what records hold: a change here makes finished trials missing or stale.

Write the file anew with `python tests/test_identity.py`, and say in the changelog which records are concerned.
"""

import json
from pathlib import Path

import kdbench
from kdbench.method.interface import METHODS
from kdbench.method.specs import resolve_methods
from kdbench.spec.trial import digest
from kdbench.suite.code_hash import core_code, method_code
from kdbench.suite.plugins import load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.suite.shipped import shipped, suite_names

FILE = Path(__file__).with_name("identity.json")
WINGS = ("data", "method", "models", "training")


def identity() -> dict[str, dict[str, str]]:
    """The code of every method that ships, and one hash over the ids of every suite's trials."""
    load_shipped()
    names = [name for name in METHODS.names() if Path(METHODS.entry(name).file).parent == shipped("methods")]
    methods = {name: method_code(resolve_methods(name, {})) for name in names}
    suites = {name: digest([trial.id for trial in load_suite(name).trials]) for name in suite_names()}
    return {"methods": methods, "suites": suites}


def test_methods_and_suites_are_those_of_the_records():
    assert identity() == json.loads(FILE.read_text())


def test_the_core_is_all_that_can_change_a_number(monkeypatch):
    package = Path(kdbench.__file__).parent
    hashed: set[str] = set()
    monkeypatch.setattr("kdbench.suite.code_hash._hash", lambda files: hashed.update(str(f.relative_to(package)) for f in files))
    core_code.__wrapped__()
    every = {str(file.relative_to(package)) for wing in WINGS for file in (package / wing).rglob("*.py")}
    assert "training/lane.py" in every
    settings = (f"spec/{name}.py" for name in ("base", "optimiser", "augmentation", "recipe"))
    outside = {"method/description.py", "training/own_loop.py"}
    assert hashed == every - outside | {"streams.py", *settings, "suite/teacher_stages.py"}


if __name__ == "__main__":
    FILE.write_text(json.dumps(identity(), indent=1) + "\n")
