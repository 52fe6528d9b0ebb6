"""The pages of keys: what a suite's file, a recipe and a data set may hold, as their models declare it."""

from collections.abc import Sequence

from pydantic import BaseModel

from kdbench.catalogue.docs.markdown import code, docstring, first_sentence, page, plain, table
from kdbench.catalogue.keys import REQUIRED, Key, keys
from kdbench.data import DATASETS, SourceParams
from kdbench.spec.recipe import Recipe
from kdbench.suite.file import PairSpec, SuiteFile, TaughtSpec, TeacherSpec, read_mapping
from kdbench.suite.resolve import load_suite
from kdbench.suite.shipped import recipe_names, shipped, suite_names

SUITES = """\
A suite is a YAML file. `kdbench run FILE` trains what it asks for. [A first suite](../start/first-suite.md) shows one, and
[Suites](../how-to/suites.md) says how to do more with it. A key that is not known, or that stands twice, is an error."""

RECIPES = """\
A recipe says how a network is trained. It is a part of every trial, with every default written out. In a suite, `recipe: NAME`
takes a recipe that ships, and keys beside `base` change it: `recipe: {base: short, epochs: 30, schedule: {milestones: [15, 25]}}`.
A pair may change it for its student, and `teacher: {recipe: ...}` for the teachers."""

DATA = """\
In a suite, `dataset: NAME` takes a data set with its defaults, and `dataset: {name: NAME, ...}` sets its keys. All but paths and
`workers` are a part of the trial's identity: another value is another trial."""


def suite_page() -> str:
    """The page of what a suite's file may hold."""
    ships = [[code(name), plain(load_suite(name).title)] for name in suite_names()]
    return page(
        "Suite keys",
        SUITES,
        _table(keys(SuiteFile), {"dataset": "dataset-keys.md", "recipe": "recipe-keys.md", "teacher": "#teacher", "pairs": "#pairs"}),
        _section("teacher", TeacherSpec, {"recipe": "recipe-keys.md"}),
        _section("pairs", PairSpec, {"teacher": "#network", "student": "#network", "recipe": "recipe-keys.md"}),
        "## network",
        f"{docstring(TaughtSpec.__mro__[1].__doc__ or '')} A student has no `expected_error_pct`.",
        _table(keys(TaughtSpec), {}),
        "## Suites that ship",
        table(["name", "title"], ships),
    )


def recipe_page() -> str:
    """The page of what a recipe may hold, and of those that ship."""
    found = keys(Recipe)
    inner = [(key.name, key.inner) for key in found if key.inner]
    links = {name: f"#{name}" for name, _ in inner}
    sections = [_section(name, model, {"resized_crop": "#resized_crop"}) for name, model in inner]
    crop = next(key.inner for _, model in inner for key in keys(model) if key.inner)
    return page(
        "Recipe keys",
        RECIPES,
        _table(found, links),
        *sections,
        _section("resized_crop", crop, {}),
        "## Recipes that ship",
        *map(_recipe, recipe_names()),
    )


def _recipe(name: str) -> str:
    file = shipped("suites") / "recipes" / f"{name}.yaml"
    recipe = Recipe.model_validate(read_mapping(file))
    return f"### {name}\n\n{plain(recipe.summary.partition(' [')[0])}:\n\n```yaml\n{file.read_text()}```"


def dataset_page() -> str:
    """The page of every data set and its keys."""
    shared = keys(SourceParams)
    sections = []
    for name in DATASETS.names():
        source = DATASETS.get(name)
        own = [key for key in keys(source.Params) if key not in shared]
        sections += [f"## {name}", docstring(source.__doc__ or "")]
        sections.append(_table(own, {}) if own else "It has the shared keys alone.")
    overview = [[f"[{code(name)}](#{name})", first_sentence(DATASETS.get(name).__doc__ or "")] for name in DATASETS.names()]
    return page("Data set keys", DATA, table(["name", "what it is"], overview), "## Keys that all have", _table(shared, {}), *sections)


def _section(name: str, model: type[BaseModel], links: dict[str, str]) -> str:
    return "\n\n".join([f"## {name}", docstring(model.__doc__ or ""), _table(keys(model), links)])


def _table(found: Sequence[Key], links: dict[str, str]) -> str:
    """Of keys, those that hold more with a link to where that is described."""
    rows = []
    for key in found:
        name = f"[{code(key.name)}]({links[key.name]})" if key.name in links else code(key.name)
        default = key.default if key.default == REQUIRED else code(key.default)
        rows.append([name, plain(key.kind), default, plain(key.about)])
    return table(["key", "value", "default", "meaning"], rows)
