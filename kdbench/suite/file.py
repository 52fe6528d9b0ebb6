"""What the YAML of a suite may hold, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, TypeAdapter

from kdbench.errors import KdbenchError
from kdbench.spec.mistakes import shown
from kdbench.spec.recipe import Spec
from kdbench.spec.report_options import ReportOptions
from kdbench.spec.trial import RAW, Normalisation, Stages

Tree = dict[str, Any]
Seed = Annotated[int, Field(ge=0, strict=True)]


_TEXTS = TypeAdapter(dict[str, str])


def _short_for(key: str) -> BeforeValidator:
    """`kd` is short for `{key: kd}`."""

    def write_out(given: object) -> object:
        if not isinstance(given, str | dict):
            raise ValueError(f"must be a name, or a mapping of keys to values with the name under `{key}` (got {shown(given)})")
        return {key: given} if isinstance(given, str) else given

    return BeforeValidator(write_out)


def _named(key: str) -> AfterValidator:
    """What stands under the key, where it is given, is text."""

    def check(tree: Tree) -> Tree:
        _TEXTS.validate_python({name: tree[name] for name in (key,) if name in tree})
        return tree

    return AfterValidator(check)


def _method_entry(given: object) -> object:
    """`ft` and `ft:` with nothing after it are short for `{ft: {}}`."""
    if isinstance(given, str):
        return {given: {}}
    if isinstance(given, dict) and len(given) > 1:
        (first, params), (second, value) = list(given.items())[:2]
        if params is not None or value is None or isinstance(value, dict):
            raise ValueError(
                f"has {first} and {second} side by side. Write each method as an entry of its own with a hyphen before it, and "
                f"parameters in braces after the name, `- {first}: {{...}}`"
            )
        raise ValueError(
            f"has {first} and {second} side by side. Write parameters in braces after the name, `- {first}: {{{second}: ...}}`, "
            "and each method as an entry of its own"
        )
    if not isinstance(given, dict) or not given:
        raise ValueError(f"must be a name, or one name with its parameters, such as `- ft: {{k: 2}}` (got {shown(given)})")
    return given


def _seeds(given: object) -> object:
    """Numbers alone are told what a list of them looks like: whether `3` is a seed or a count, only the user knows."""
    if not isinstance(given, list | tuple):
        raise ValueError(f"must be a list of seeds, such as [0, 1, 2] (got {shown(given)})")
    return given


def _settings(given: object) -> object:
    """What to try of a method: values by parameter, or a list of settings."""
    if not isinstance(given, dict) and not (isinstance(given, list | tuple) and all(isinstance(one, dict) for one in given)):
        fix = "values by parameter, such as {temperature: [2, 8]}, or a list of settings, such as [{temperature: 2}]"
        raise ValueError(f"must be {fix} (got {shown(given)})")
    return given


def _changed_recipe(given: object) -> object:
    """A name alone is told how another recipe is named."""
    if isinstance(given, str):
        raise ValueError(f"must be a mapping of keys to values (got {shown(given)}). Write {{base: {given}}}")
    return given


RecipeChanges = Annotated[Tree, BeforeValidator(_changed_recipe)]
Parameters = Annotated[Tree, BeforeValidator(lambda given: {} if given is None else given)]
MethodEntry = Annotated[dict[str, Parameters], BeforeValidator(_method_entry)]
Settings = Annotated[Tree | tuple[Tree, ...], BeforeValidator(_settings)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_seeds)]


Hooks = Annotated[tuple[str, ...], BeforeValidator(lambda given: RAW if given == "raw" else given)]


class NetworkSpec(Spec):
    """A network of a pair. A name alone is short for `{model: NAME}`."""

    model: str
    """One of `kdbench list models`, `torchvision/NAME`, `timm/NAME`, or a network of your own."""
    hooks: Hooks = ()
    """Modules with which the groups of the network end, shallow to deep. `kdbench show model NAME --modules` lists them. Built-in
    networks and the usual families of torchvision and timm need none. `hooks: raw` keeps the usual groups and reads them before the
    norm and the activation that follow them."""
    weights: str = ""
    """Weights that the network starts from: a file (a relative path begins in the suite's folder), a name of torchvision's, or a
    tag of timm's. `file.pth#key` names one network of a file that holds several."""


def _one_or_several(given: object) -> object:
    """A teacher alone is short for a list of it."""
    return given if isinstance(given, list | tuple) else [given]


class TaughtSpec(NetworkSpec):
    """A pair's teacher. One with `weights` is used as it is and not trained."""

    method: MethodEntry = {}
    """The method that trains the teacher, written as an entry of `methods`. Without it the teacher is trained from scratch."""
    teacher: Teachers = ()
    """The teacher's own teacher, or a list of them, which are written as those of a pair. `method` learns from it."""
    normalise: Normalisation | None = None
    """What the teacher's images are normalised with, `{mean: [...], std: [...]}`: one number for each channel, of pixels scaled to
    0..1. Without it the teacher gets the images as the data set normalises them."""
    size: PositiveInt | None = None
    """Height and width in pixels to which the teacher's images are resized, bilinear and antialiased."""
    expected_error_pct: Annotated[float, Field(ge=0, le=100)] | None = None
    """The test error in percent that a teacher with `weights` ought to have. A run warns where the measured one is more than half a
    point off."""


Teachers = Annotated[tuple[Annotated[TaughtSpec, _short_for("model")], ...], BeforeValidator(_one_or_several)]
TaughtSpec.model_rebuild()


class PairSpec(Spec):
    """A teacher and a student, and what is particular to them."""

    teacher: Annotated[Teachers, Field(min_length=1)]
    """The network that is learnt from, or a list of them for methods that learn from several at once. It is trained first, once for
    all students, unless it has `weights`."""
    student: Annotated[NetworkSpec, _short_for("model")]
    """The network that is trained with each method."""
    recipe: RecipeChanges = {}
    """Keys of the recipe that differ for this student, such as `{optimiser: {lr: 0.01}}`. With `base` they change another recipe
    that ships."""
    methods: dict[str, Parameters] = {}
    """Parameters of methods that differ for this pair, by the method's name, such as `{ft: {beta: 200}}`."""
    without: tuple[str, ...] = ()
    """Methods of the suite that this pair leaves out."""


class TeacherSpec(Spec):
    """How the suite's teachers are trained."""

    seed: Seed = 0
    """The seed of the teachers."""
    recipe: RecipeChanges = {}
    """Keys of the recipe that differ for the teachers, such as `{epochs: 12}`. With `base` they change another recipe that
    ships."""


class TuneSpec(Spec):
    """How parameters are chosen on held-out training images before the reported trials."""

    validation: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Fraction of the training images that is held out while parameters are chosen. The reported trials train on all images."""
    budget: Annotated[int, Field(ge=2, strict=True)]
    """How many settings each method gets, the suite's own parameters of it among them."""
    seeds: Seeds = Field((1000,), min_length=1)
    """Seeds with which each setting is tried. None of them may be one of the suite's `seeds`."""
    grid: dict[str, Settings] = Field(min_length=1)
    """By the name of a method, the settings to try beside its own: lists of values, such as `{beta: [50, 200, 500]}`, of which
    every combination is tried; or a list of settings, such as `[{temperature: 2}, {temperature: 8}]`. Those of `at+kd` stand under
    the name of each part, as in `methods`."""
    unequal: bool = False
    """Whether methods may have other numbers of settings than `budget`. The report then says so."""


class SuiteFile(Spec):
    """What a suite's YAML may hold."""

    title: str
    """Heads the report."""
    plugins: tuple[str, ...] = ()
    """Files, or folders of them, with methods, networks and data sets of your own that the suite names. A relative path begins in
    the suite's folder."""
    dataset: Annotated[Tree, _short_for("name"), _named("name")]
    """The data set: its `name`, and its own keys beside it. A name alone is short for `{name: NAME}`."""
    recipe: Annotated[Tree, _short_for("base"), _named("base")]
    """How networks are trained. `base` names a recipe that ships; other keys of a recipe beside it override its own. A name alone
    is short for `{base: NAME}`. Without `base`, give the whole recipe."""
    teacher: TeacherSpec = TeacherSpec()
    """How the teachers are trained."""
    stages: Stages = "per-seed"
    """How often a stage that learns from the teacher alone is trained, such as FT's paraphraser. `per-seed` trains it once for each
    student seed, so that the spread over seeds includes it. `per-teacher` trains it once for all seeds."""
    seeds: Seeds = Field(min_length=1)
    """Seeds of the students: whole numbers from 0 up. Each method is trained once for each."""
    expected_spread: Annotated[float, Field(gt=0, le=100)] | None = None
    """How much the difference of two methods' test errors changes from seed to seed: its standard deviation over seeds, in
    percentage points. `kdbench plan` says from it which differences the seeds can show, where no finished trials tell."""
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    """Methods to compare. An entry is a name, such as `kd`; a sum, such as `ft+kd`; or either with parameters that differ from the
    defaults, such as `kd: {temperature: 2}` and `ft+kd: {ft: {k: 2}}`."""
    pairs: tuple[PairSpec, ...] = Field(min_length=1)
    """Teachers and students. Every method is tried on every pair."""
    tune: TuneSpec | None = None
    """How parameters of methods are chosen; those in `methods` stand as they are unless given."""
    report: ReportOptions = ReportOptions()
    """How the report looks, and what it compares with. It changes no trial."""
    keep_students: bool = False
    """Whether the trained weights of students are kept, for `kdbench.load_student`. Those of teachers always are."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML would silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, key in enumerate(keys):
            if key.value in (earlier.value for earlier in keys[:i]):
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark)
        return node


def read_mapping(file: Path) -> Tree:
    """The mapping that a YAML file holds.

    Raises:
        KdbenchError: it cannot be read, is no YAML, or holds none; the message names the file and the line.
    """
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        text = ", ".join(filter(None, (problem.context, problem.problem)))
        raise KdbenchError(f"{file}, line {line}: {text}. Correct the YAML.") from None
    except (UnicodeDecodeError, yaml.reader.ReaderError) as problem:
        raise KdbenchError(f"{file} is not YAML text ({problem.reason}). Save it as plain text in UTF-8.") from None
    except OSError as problem:
        raise KdbenchError(f"{file} cannot be read ({problem.strerror}). Give a file that can be read.") from None
    if not isinstance(tree, dict):
        raise KdbenchError(
            f"{file} holds no keys with values, such as `title: My suite`. `kdbench new suite NAME` writes a suite to start from."
        )
    return tree
