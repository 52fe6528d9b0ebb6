"""The reference pages say what the code says, and leave nothing out."""

import inspect
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import Field, PositiveFloat, PositiveInt, create_model

import kdbench
from kdbench import docs
from kdbench.catalogue.keys import keys
from kdbench.cli import app
from kdbench.conformance import CHECKS, described
from kdbench.data import DATASETS
from kdbench.docs import PAGES, markdown, networks
from kdbench.docs.interface import INTERFACE, REPORT
from kdbench.docs.methods import GOLDEN, golden, section, shipped_methods, stages
from kdbench.method.description import describe_method
from kdbench.models import MODELS
from kdbench.results.frames import COLUMNS, CURVES, frame
from kdbench.results.layout import FILES
from kdbench.runner.plan import Rerun, Status
from kdbench.spec.recipe import SGD, Recipe
from kdbench.spec.record import Record
from kdbench.suite.file import SuiteFile
from kdbench.suite.imports import is_core
from kdbench.suite.shipped import suite_names

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
COMMAND = "python -m kdbench.docs docs/reference"
FEW_NETWORKS = ("resnet8", "vgg8", "wrn_16_1")
"""To build all of them takes seconds."""


def text(name):
    return (REFERENCE / f"{name}.md").read_text()


# They are current


@pytest.mark.parametrize("name", [name for name in PAGES if name != "networks"])
def test_a_page_is_up_to_date(name):
    assert text(name) == PAGES[name](), f"write it anew: {COMMAND}"


def test_the_page_of_networks_is_up_to_date(monkeypatch):
    rows = [line.strip("| ").split(" | ") for line in text("networks").splitlines() if line.startswith("| `")]
    written, usual = {row[0].strip("`"): row for row in rows}, networks.row
    monkeypatch.setattr(networks, "row", lambda name: usual(name) if name in FEW_NETWORKS else written[name])
    assert text("networks") == networks.networks_page(), f"write it anew: {COMMAND}"


def test_every_page_is_generated():
    assert {file.stem for file in REFERENCE.glob("*.md")} == set(PAGES)


def test_the_command_in_their_first_line_writes_them(tmp_path, monkeypatch):
    assert COMMAND in markdown.GENERATED
    assert all(text(name).startswith(markdown.GENERATED) for name in PAGES)
    monkeypatch.setattr(docs, "PAGES", {"checks": PAGES["checks"]})
    monkeypatch.setattr(sys, "argv", ["docs", str(tmp_path)])
    runpy.run_module(docs.__name__, run_name="__main__")
    assert (tmp_path / "checks.md").read_text() == text("checks")


# They leave nothing out


def told(page):
    """The names that rows of a page's tables begin with, each with a meaning."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text(page).splitlines() if line.startswith(("| `", "| [`"))]
    return {row[0].split("`")[1] for row in rows if row[-1].strip()}


def every_key(*models, around=()):
    """Their keys, and those of the mappings that they hold; a mapping may hold others of its kind."""
    for model in models:
        for key in keys(model):
            yield key
            yield from every_key(*(inner for inner in key.inner if inner not in (*around, model)), around=(*around, model))


def names_of(*models):
    return [key.name for key in every_key(*models)]


def shipped_names(registry):
    """Without a user's own, which other tests register."""
    return [name for name in registry.names() if is_core(Path(registry.entry(name).file))]


DATASET_PARAMS = [DATASETS.get(name).Params for name in shipped_names(DATASETS)]


@pytest.mark.parametrize(
    ("page", "names"),
    {
        "suite-keys": [*names_of(SuiteFile), *suite_names()],
        "recipe-keys": names_of(Recipe),
        "dataset-keys": [*shipped_names(DATASETS), *names_of(*DATASET_PARAMS)],
        "results-folder": [*COLUMNS, *CURVES, *FILES, *Status, *Rerun, *names_of(Record)],
        "api": {*kdbench.__all__, *REPORT} - {"__version__"},
        "networks": shipped_names(MODELS),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_name_stands_in_a_table_with_its_meaning(page, names):
    assert set(names) <= told(page)


def test_the_frame_has_the_columns_that_are_told():
    assert list(frame([])) == list(COLUMNS)


def test_a_results_folder_holds_what_is_told(undisturbed):
    root = undisturbed.store.root
    files = [re.sub("^trials/[^/]+", "trials/TRIAL", str(file.relative_to(root))) for file in root.rglob("*") if file.is_file()]
    files = [re.sub(r"^runs/[^/]+\.json$", "runs/RUN.json", file) for file in files]
    folders = tuple(name for name in FILES if name.endswith("/") and name != "trials/TRIAL/")
    assert "trials/TRIAL/record.json" in files
    assert not [file for file in files if file not in FILES and not file.startswith(folders)]
    rows = [json.loads(line) for file in root.glob("trials/*/curves.jsonl") for line in file.read_text().splitlines()]
    assert set().union(*rows) <= set(CURVES)


def test_every_command_and_every_option_is_told():
    found = typer.main.get_command(app).commands
    inner = {f"{group} {name}": command for group in ("trials",) for name, command in found.pop(group).commands.items()}
    for name, command in {**found, **inner}.items():
        section = text("command-line").partition(f"\n## kdbench {name}\n")[2].partition("\n## ")[0]
        for option in (option for parameter in command.params for option in parameter.opts if option.startswith("-")):
            row = re.search(rf"^\| `{option}[ `].* \|.*\| (.*) \|$", section, flags=re.MULTILINE)
            assert row and row[1], f"{name} {option}"


def test_every_check_says_what_it_is_for_and_what_to_do():
    for test in CHECKS:
        check = described(test)
        assert f"\n## {check['name']}\n" in text("checks")
        assert all(re.fullmatch(r"[A-Z`].+\.", check[part]) for part in ("promise", "why", "fix")), check


@pytest.mark.parametrize("name", INTERFACE)
def test_every_part_of_the_interface_is_told(name):
    section = text("method-interface").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    value = getattr(kdbench, name)
    own = vars(value) if inspect.isclass(value) else {}
    names = [*(key for key, member in own.items() if inspect.isfunction(member)), *own.get("__annotations__", {})]
    assert section
    assert not [member for member in names if not member.startswith(("_", "model_")) and member not in section]


def test_every_key_says_what_it_means():
    """Pages and `kdbench show` have no other source."""
    assert not [key for key in every_key(Record, SuiteFile, Recipe, *DATASET_PARAMS) if not key.about]


@pytest.mark.parametrize(
    ("kind", "default", "told"),
    [
        (PositiveInt, ..., ("whole number, above 0", "required")),
        (Annotated[float, Field(ge=0, lt=1)], 0.90, ("number, from 0, below 1", "0.9")),
        (bool, True, ("true or false", "true")),
        (Path | None, None, ("path", "")),
        (float | Literal["auto"], "auto", ("number or auto", "auto")),
        (tuple[PositiveFloat, ...], (), ("list of numbers", "")),
        (tuple[int, int], (1, 2), ("list of 2 whole numbers", "[1, 2]")),
        (tuple[int, str], (1, "a"), ("list of 2 values", "[1, a]")),
        (list[dict[str, int]], [{"a": 1}], ("list of mappings", "[{a: 1}]")),
        (SGD, SGD(lr=1), ("mapping", "")),
        (Status, Status.DONE, ("Status", "done")),  # what a plugin may have
    ],
    ids=str,
)
def test_a_key_is_told_in_the_words_of_yaml(kind, default, told):
    (key,) = keys(create_model("Params", key=(kind, default)))
    assert (key.kind, key.default) == told


# Methods


def test_it_tells_a_methods_formula_paper_stages_defaults_and_golden_numbers() -> None:
    text = section("ft")
    for part in (
        "## ft\n```\nCE(z_s, y) + beta mean |n(translator(f_s)) - n(factor(f_t))|",
        '* Paper: Kim, Park and Kwak, "Paraphrasing complex network: network compression via factor transfer"',
        "* Code: https://github.com/Jangho-Kim/Factor-Transfer-pytorch\n* Deviations: none where",
        "* Reads: features\n",
        "* Stages before the main training: paraphraser, 6 epochs, from the teacher alone, learning rate 0.1\n",
        "* Parameters and defaults: `k` 0.5, `beta` 500, `paraphraser_epochs` 6,",
        "* Golden numbers: `ft` (the code of Kim et al.)\n",
    ):
        assert part in text
    assert list(stages("ab")) == ["boundaries, 30 epochs, of the student"]
    assert "* Reads: no teacher\n" in section("scratch")


def test_every_method_names_the_code_that_it_follows() -> None:
    assert {name for name in shipped_methods() if not describe_method(name)["code"]} == {"scratch"}


def test_the_page_of_a_method_stands_alone() -> None:
    names = shipped_methods()
    for name in names:
        told = describe_method(name)
        said = " ".join([told["formula"], *told["text"], told["deviations"]])
        assert not re.findall(rf"\b(?:loss|those|terms) of ({'|'.join(names)})\b", said), name


def test_every_file_of_golden_numbers_has_a_source_and_a_method() -> None:
    assert GOLDEN.keys() == {file.stem for file in (ROOT / "tests" / "golden").glob("*.safetensors")}
    told = [entry for name in shipped_methods() for entry in golden(name)]
    assert sorted(told) == sorted(f"`{file}` ({source})" for file, source in GOLDEN.items())


def test_only_these_methods_have_no_golden_numbers() -> None:
    without = {name for name in shipped_methods() if not list(golden(name))}
    baselines = {"scratch", "label_smoothing", "pskd", "byot", "ffl"}
    assert without == baselines | {"deit", "dml", "mlkd_noaug", "fitnets", "norm", "dgkd"}


def test_every_method_says_in_a_few_words_what_it_transfers() -> None:
    described = {name: describe_method(name) for name in shipped_methods()}
    assert all(1 <= len(method["transfers"].split()) <= 6 for method in described.values())
    assert {method["family"] for method in described.values()} == {"baseline", "logits", "features", "relations"}
    assert len({method["transfers"] for method in described.values()}) == len(described), "no two say the same"
    without = {name for name, method in described.items() if not method["published"]}
    assert without == {name for name, method in described.items() if method["paper"].startswith("none")}
    ft = described["ft"]
    assert (ft["transfers"], ft["family"], ft["published"]) == ("factors of the last maps", "features", "NeurIPS 2018")
    assert "| features | [ft](#ft) | factors of the last maps | NeurIPS 2018 |\n" in text("methods")


def test_pages_count_the_methods_as_the_registry_does():
    methods = shipped_methods()
    compared = sum(any(golden(name)) for name in methods)
    for page, told in {
        "README.md": f"For {compared} of {len(methods)} methods",
        "docs/background/comparison.md": f"| transfer methods | {len(methods)} listed, and compositions |",
        "results/reference/README.md": f"of the other {len(methods) - 1} methods of the registry",
    }.items():
        assert told in " ".join((ROOT / page).read_text().split()), page
    assert f"Losses of {compared} methods are compared with other code" in (ROOT / "docs/background/comparison.md").read_text()
