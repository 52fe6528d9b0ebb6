"""The pages of keys: what a suite's file, a recipe and a data set may hold, as their models declare it."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from kdbench.catalogue.images import normalisation_of, normalisation_text
from kdbench.catalogue.keys import keys
from kdbench.data import DATASETS, SourceParams
from kdbench.docs.markdown import code, docstring, first_sentence, key_table, page, plain, table
from kdbench.spec.figure_options import FigureOptions
from kdbench.spec.recipe import Recipe
from kdbench.spec.report_options import ReportOptions
from kdbench.spec.trial import Normalisation
from kdbench.suite.file import PairSpec, SuiteFile, TaughtSpec, TeacherSpec, TuneSpec, read_mapping
from kdbench.suite.imports import is_core
from kdbench.suite.recipes import recipe_file
from kdbench.suite.shipped import recipe_names, shipped, suite_names

SUITES = """\
A suite is a YAML file. `kdbench run FILE` trains what it asks for. [A first suite](../start/first-suite.md) shows one, and
[Suites](../how-to/suites.md) says how to do more with it. A key that is not known, or that is given twice, is an error."""

RECIPES = """\
A recipe says how a network is trained. It is a part of every trial, with every default written out. In a suite, `recipe: NAME`
takes a recipe that ships, and keys beside `base` change it: `recipe: {base: short, epochs: 30, schedule: {milestones: [15, 25]}}`.
A pair may change it for its student, and `teacher: {recipe: ...}` for the teachers."""

DATA = """\
In a suite, `dataset: NAME` takes a data set with its defaults, and `dataset: {name: NAME, ...}` sets its keys. All but paths and
`workers` are a part of the trial's identity: another value is another trial.

Networks see pixels that are scaled to 0..1, less a mean and divided by a standard deviation, one for each channel. This page says
which. [A teacher that was trained with others](../how-to/pretrained-weights.md#normalise-as-the-weights-expect) can be given its
own."""


def suite_page() -> str:
    """The page of what a suite's file may hold."""
    ships = [[code(name), plain(read_mapping(shipped("suites") / f"{name}.yaml")["title"])] for name in suite_names()]
    return page(
        "Suite keys",
        SUITES,
        key_table(
            keys(SuiteFile),
            {
                "dataset": "dataset-keys.md",
                "recipe": "recipe-keys.md",
                "teacher": "#teacher",
                "pairs": "#pairs",
                "tune": "#tune",
                "report": "#report",
            },
        ),
        _section("teacher", TeacherSpec, {"recipe": "recipe-keys.md"}),
        _section("pairs", PairSpec, {"teacher": "#network", "student": "#network", "recipe": "recipe-keys.md"}),
        "## network",
        f"{docstring(TaughtSpec.__mro__[1].__doc__ or '')} Those from `method` on are a teacher's.",
        key_table(keys(TaughtSpec), {"teacher": "#network", "normalise": "#normalise"}),
        _section("normalise", Normalisation),
        _section("tune", TuneSpec),
        _section("report", ReportOptions, {"figures": "#figures"}),
        _section("figures", FigureOptions),
        "## Suites that ship",
        table(["name", "title"], ships),
    )


def recipe_page() -> str:
    """The page of what a recipe may hold, and of those that ship."""
    return page(
        "Recipe keys",
        RECIPES,
        key_table(keys(Recipe), _links(Recipe)),
        *_sections(Recipe),
        "## Recipes that ship",
        *map(_recipe, recipe_names()),
    )


def _recipe(name: str) -> str:
    file = recipe_file(name)
    recipe = Recipe.model_validate(read_mapping(file))
    text = file.read_text(encoding="utf-8")
    return f"### {name}\n\n{plain(recipe.summary.partition(' [')[0])}:\n\n```yaml\n{text}```"


def dataset_page() -> str:
    """The page of every data set that ships, and its keys."""
    shared = keys(SourceParams)
    sources = {name: DATASETS.get(name) for name in DATASETS.names() if is_core(Path(DATASETS.entry(name).file))}
    overview = [[f"[{code(name)}](#{name})", first_sentence(source.__doc__ or "")] for name, source in sources.items()]
    sections = []
    for name, source in sources.items():
        own = [key for key in keys(source.Params) if key not in shared]
        normalisation = normalisation_of(source)
        pixels = [f"{normalisation_text(normalisation).capitalize()}."] if normalisation else []
        about = [f"## {name}", docstring(source.__doc__ or ""), *pixels]
        sections += [*about, key_table(own) if own else "It has the shared keys alone."]
    return page(
        "Data set keys", DATA, table(["name", "what it is"], overview), "## Keys that all have", key_table(shared), *sections
    )


def _links(model: type[BaseModel]) -> dict[str, str]:
    return {key.name: f"#{key.name}" for key in keys(model) if key.inner}


def _sections(model: type[BaseModel]) -> list[str]:
    """A section for each model inside of this one, once: its own keys first, then those inside of them."""
    found: dict[type[BaseModel], str] = {}
    inside = [model]
    while inside:
        outer = inside.pop(0)
        for key in keys(outer):
            for number, inner in enumerate(key.inner):
                if inner not in found:
                    found[inner] = f"{key.name}: {inner.model_fields['name'].default}" if number else key.name
                    inside.append(inner)
    return [_section(name, inner, _links(inner)) for inner, name in found.items()]


def _section(name: str, model: type[BaseModel], links: Mapping[str, str] = {}) -> str:
    return "\n\n".join([f"## {name}", docstring(model.__doc__ or ""), key_table(keys(model), links)])
