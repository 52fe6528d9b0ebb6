"""The pages of the method interface and of all public names, from their docstrings."""

import dataclasses
import inspect
from collections.abc import Iterable
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any

import kdbench
from kdbench import report
from kdbench.catalogue.keys import keys
from kdbench.docs.markdown import (
    attributes,
    code,
    docstring,
    first_sentence,
    key_table,
    page,
    plain,
    signature,
    table,
    texts_under,
)
from kdbench.method import interface, stages

METHOD = """\
A method is a class in one file: adapters built from the shapes of a pair of networks, and named loss terms.
[Your own method](../how-to/own-method.md) shows how to write one, and the [glossary](../start/glossary.md) says what a lane, a
stage and a hook point are. In shapes, B is the number of images in a batch, K of classes and D of pooled features; C, H and W are a
map's channels, height and width."""

API = """\
These names can be imported from `kdbench`; those for tables and reports from `kdbench.report`, and those for figures from
`kdbench.report.figures`. They stay the same from one version to the next. Everything else may change.
`kdbench.report.figures` is a module to import by its own name, since its libraries are slow to import.
[Figures for a paper](../how-to/paper-figures.md) shows its use."""

INTERFACE = (
    *("Method", "MethodParams", "Outputs", "Shapes", "Batch", "View", "Pair", "TeacherParts"),
    *("Stage", "Survey", "ParameterGroup", "Losses", "UnitInterval"),
    *("SGD", "AdamW", "PairError", "register", "Composition"),
)
"""The names that an author of a method meets, in the order in which they are read."""

HELPERS = (
    *("kd_divergence", "sample_divergences", "standardized_logits", "masked_log_softmax", "decoupled"),
    *("hint_regressor", "factor_convolutions", "deepest_pairs", "middle", "pool_to", "pool_to_smaller"),
    *("full_precision", "pairing_notes", "pooling_notes", "spatial_notes", "batch_norm_needs", "refuse_memory"),
    "refuse_unclassified_maps",
)
GROUPS = {
    "Run and load": ("run_suite", "load_results", "load_outcomes", "Outcomes", "load_student"),
    "Build": ("build_model", "build_method", "train_stages", "outputs_of", "rotations"),
    "Networks of your own": ("Network", "register_model"),
    "Data sets of your own": ("Source", "SourceParams", "Dataset", "Split", "register_dataset"),
    "Terms and adapters that methods share": HELPERS,
    "Errors": ("KdbenchError",),
}
"""The rest of the public names."""

REPORT = (
    *("compare", "Comparison", "ReportOptions", "result_table", "gain_table", "selection_table", "cost_table", "best_epoch_table"),
    *("ranks_table", "pairwise_table", "win_tie_loss_table", "profile_table"),
    *("shared_errors_table", "beside_teacher_table", "class_errors_table", "confusions_table"),
    *("Table", "to_latex", "to_markdown", "to_csv", "claims", "write_report"),
)
"""The names of `kdbench.report`, in the order in which they are used."""


def interface_page() -> str:
    """The page of what an author of a method reads."""
    return page("Method interface", METHOD, _overview(INTERFACE, "#"), *(_section(name) for name in INTERFACE))


def api_page() -> str:
    """The page of every public name."""
    parts = []
    for title, names in GROUPS.items():
        parts += [f"## {title}", _overview(names, "#"), *(_section(name, level=3) for name in names)]
    reports = [_overview(REPORT, "#", of=report), *(_section(name, level=3, of=report) for name in REPORT)]
    parts += ["## Tables and figures", *reports]
    interface = _overview(INTERFACE, "method-interface.md#")
    version = f"`kdbench.__version__` is the version, such as `{kdbench.__version__}`."
    return page("Public API", API, version, *parts, "## The method interface", interface)


def _overview(names: Iterable[str], to: str, of: ModuleType = kdbench) -> str:
    rows = [[f"[{code(name)}]({to}{name.lower()})", first_sentence(_text(name, of))] for name in names]
    return table(["name", "what it is"], rows)


def _text(name: str, of: ModuleType) -> str:
    """What a public name says of itself."""
    value = getattr(of, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        return value.__doc__ or ""
    return (texts_under(interface) | texts_under(stages))[name]


def _section(name: str, level: int = 2, of: ModuleType = kdbench) -> str:
    value, sharps = getattr(of, name), "#" * level
    if inspect.isroutine(value):
        return f"{sharps} {name}\n\n```py\n{signature(f'{of.__name__}.{name}', value)}\n```\n\n{docstring(value.__doc__ or '')}"
    if not inspect.isclass(value):
        return f"{sharps} {name}\n\n{plain(_text(name, of))}"
    members = [(key, member) for key, member in vars(value).items() if _is_told(key, member)]
    return "\n\n".join([f"{sharps} {name}", *_class(value), *(_member(name, key, member) for key, member in members)])


def _is_told(name: str, member: Any) -> bool:
    """Whether it is public, and no field, which stands in a table."""
    return not name.startswith("_") and isinstance(member, FunctionType | property | cached_property) and bool(member.__doc__)


def _class(value: Any) -> list[str]:
    """What a class says of itself, its fields as a table."""
    if hasattr(value, "model_fields"):
        return [docstring(value.__doc__), *([key_table(found)] if (found := keys(value)) else [])]
    meanings = attributes(value.__doc__)
    if not dataclasses.is_dataclass(value) or not meanings:
        return [docstring(value.__doc__)]
    rows = [[code(field.name), code(str(field.type)), plain(meanings[field.name])] for field in dataclasses.fields(value)]
    return [docstring(_without_attributes(value.__doc__ or "")), table(["attribute", "type", "meaning"], rows)]


def _without_attributes(text: str) -> str:
    return "\n\n".join(part for part in inspect.cleandoc(text).split("\n\n") if not part.startswith("Attributes:"))


def _member(owner: str, name: str, member: Any) -> str:
    text = signature(f"{owner}.{name}", member) if inspect.isfunction(member) else f"{owner}.{name}"
    return f"```py\n{text}\n```\n\n{docstring(member.__doc__)}"
