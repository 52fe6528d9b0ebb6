"""What the YAML of a suite may hold, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field

from kdbench.errors import KdbenchError
from kdbench.spec.recipe import Spec
from kdbench.spec.trial import Stages

Tree = dict[str, Any]
Seed = Annotated[int, Field(ge=0, strict=True)]


def _short_for(key: str) -> BeforeValidator:
    """`kd` is short for `{key: kd}`."""

    def write_out(given: object) -> object:
        if not isinstance(given, str | dict):
            raise ValueError("give a name, or a mapping of keys to values")
        return {key: given} if isinstance(given, str) else given

    return BeforeValidator(write_out)


def _method_entry(given: object) -> object:
    """`ft` and `ft:` with nothing after it are short for `{ft: {}}`."""
    if isinstance(given, str):
        return {given: {}}
    if not isinstance(given, dict) or len(given) != 1:
        raise ValueError("give a name, or one name with its parameters: `- ft: {k: 2}`")
    return given


Parameters = Annotated[Tree, BeforeValidator(lambda given: {} if given is None else given)]
MethodEntry = Annotated[dict[str, Parameters], BeforeValidator(_method_entry)]


class NetworkSpec(Spec):
    """A network of a pair. A name is short for its `model`.

    `hooks` names the modules with which its groups end, shallow to deep, where the model has no groups of its own or others are
    wanted. `weights` is what it starts from: a file, from the suite's folder, or what torchvision or timm publish; `file#key` where
    a file holds several.
    """

    model: str
    hooks: tuple[str, ...] = ()
    weights: str = ""


class TaughtSpec(NetworkSpec):
    """A pair's teacher. One with `weights` is used as it is and not trained.

    `expected_error_pct` is the test error that it ought to have: a run says when the measured one is more than half a point off.
    """

    expected_error_pct: Annotated[float, Field(ge=0, le=100)] | None = None


class PairSpec(Spec):
    """A teacher and a student, and what is particular to them.

    `recipe` overrides fields of the suite's for the student; `methods` overrides parameters of a method by its name; `without`
    leaves methods of the suite out.
    """

    teacher: Annotated[TaughtSpec, _short_for("model")]
    student: Annotated[NetworkSpec, _short_for("model")]
    recipe: Tree = {}
    methods: dict[str, Parameters] = {}
    without: tuple[str, ...] = ()


class TeacherSpec(Spec):
    """How the suite's teachers are trained: their seed, and fields of the recipe that differ from the students'."""

    seed: Seed = 0
    recipe: Tree = {}


class SuiteFile(Spec):
    """What a suite's YAML may hold.

    `plugins` are files, or folders of them, with the methods, models and data sets of one's own that it names. `stages` says how
    often a stage that learns from the teacher alone is trained, such as FT's paraphraser: `per-seed`, so that the spread over seeds
    holds its draw, or `per-teacher`, once for all seeds.
    """

    title: str
    plugins: tuple[str, ...] = ()
    dataset: Annotated[Tree, _short_for("name")]
    recipe: Annotated[Tree, _short_for("base")]
    teacher: TeacherSpec = TeacherSpec()
    stages: Stages = "per-seed"
    seeds: tuple[Seed, ...] = Field(min_length=1)
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    pairs: tuple[PairSpec, ...] = Field(min_length=1)
    keep_students: bool = False


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML would silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, key in enumerate(keys):
            if key.value in (earlier.value for earlier in keys[:i]):
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
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
        told = ", ".join(filter(None, (problem.context, problem.problem)))
        raise KdbenchError(f"{file}, line {line}: {told}. Mend the YAML.") from None
    except (UnicodeDecodeError, yaml.reader.ReaderError) as problem:
        raise KdbenchError(f"{file} is no text of YAML ({problem.reason}). Save it as plain text in UTF-8.") from None
    except OSError as problem:
        raise KdbenchError(f"{file} cannot be read ({problem.strerror}). Give a file that can.") from None
    if not isinstance(tree, dict):
        raise KdbenchError(f"{file} holds no mapping of keys to values. See the shipped suites for examples.")
    return tree
