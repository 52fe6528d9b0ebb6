"""The keys of a suite's section `report` as options of a command: one for each, with the text that stands under the key."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from kdbench.errors import KdbenchError
from kdbench.spec.figure_options import FigureOptions
from kdbench.spec.report_options import ReportOptions


def with_report_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes, for each key of a report and of its figures that it has no option for, one more option.

    Its parameter `report_keys` gets those that were given, by key, as a suite would hold them.
    """
    own = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in own.parameters.items() if name != "report_keys"]
    keys = [key for key in _FIELDS if key not in own.parameters]
    added = [_option(key, _FIELDS[key]) for key in keys]

    def command_with_options(**arguments: Any) -> None:
        given = {key: arguments.pop(key) for key in keys}
        read = {key: _read(key, value) for key, value in given.items() if value not in (None, [])}
        figures = {key: read.pop(key) for key in FigureOptions.model_fields if key in read}
        command(**arguments, report_keys={**read, "figures": figures} if figures else read)

    command_with_options.__doc__, command_with_options.__name__ = command.__doc__, command.__name__
    command_with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *added)}
    command_with_options.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return command_with_options


_FIELDS = {key: field for key, field in ReportOptions.model_fields.items() if key != "figures"} | FigureOptions.model_fields


def flag(key: str) -> str:
    """The option for a key: `--pair`, which may be repeated, for `pairs`; `--figure` for `only`, of the figures."""
    if key == "only":
        return "--figure"
    name = key.removesuffix("s") if _several(_FIELDS[key]) and key != "methods" else key
    return f"--{name.replace('_', '-')}"


def _option(key: str, field: FieldInfo) -> inspect.Parameter:
    """The option for a key; without a default, since the suite's value stands unless it is given."""
    name, about = flag(key), " ".join((field.description or "").split())
    kind: Any = field.annotation
    default: Any = None
    metavar = "|".join(get_args(kind)) if get_origin(kind) is Literal else _METAVARS.get(key, "TEXT")
    if kind is bool:
        name, metavar = f"{name}/--no-{name[2:]}", ""
    kind = _KINDS.get(key, kind)
    if get_origin(field.annotation) is dict:
        about = _EXAMPLE.sub(lambda found: f"`{found[1]}={found[2].replace(', ', ',')}`", about)
        about += f" {_IN_BRACKETS[key]}"
    if _several(field):
        kind, default, about = list[str], [], f"{about} Repeat the option for several."
    else:
        kind = kind | None
    option = typer.Option(name, metavar=metavar or None, help=about)
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


_METAVARS: Mapping[str, str] = {
    "metric": "NAME",
    "baseline": "NAME",
    "tables": "NAME",
    "decimals": "NUMBER",
    "only": "NAME",
    "columns": "1|2",
    "size": "WIDTHxHEIGHT",
    "font_size": "POINTS",
    "datasets": "NAME",
    "recipes": "TEXT",
    "pairs": "TEACHER->STUDENT",
    "names": "NAME=TEXT",
    "highlight": "NAME",
    "groups": "HEADING=NAMES",
}


_EXAMPLE = re.compile(r"`\{([^:`]+): \[?([^]}`]+)]?\}`")
"""`{kd: Hinton KD}` and `{logit-based: [kd, dkd]}`, as a suite has it."""

_IN_BRACKETS: Mapping[str, str] = {
    "names": "An = in brackets is part of the name: `FT (k=2)=Ours`.",
    "groups": "An = or a comma in brackets is part of a name: `Ours=FT (k=2),FT (k=3)`.",
}

_KINDS: Mapping[str, type] = {"columns": int, "size": str, "font_size": float}
"""What typer reads where the key takes less than all of that."""


def _several(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in (tuple, dict)


def _read(key: str, value: Any) -> Any:
    """What a suite would hold for it: `{kd: Hinton KD}` for `["kd=Hinton KD"]`."""
    if get_origin(_FIELDS[key].annotation) is not dict:
        return value
    read: dict[str, Any] = {}
    for text in value:
        name, *parts = _split(text, "=")
        rest = "=".join(parts)
        if not name.strip() or not rest.strip():
            raise KdbenchError(f"{flag(key)}: '{text}' is not {_METAVARS[key]}. Put = between the two, outside of brackets.")
        read[name.strip()] = [part.strip() for part in _split(rest, ",")] if key == "groups" else rest.strip()
    return read


def _split(text: str, sign: str) -> list[str]:
    """What stands between signs that are outside of brackets: a name may be `FT (k=2, beta=50)`."""
    depth, parts = 0, [""]
    for letter in text:
        depth = max(0, depth + (letter in "([{") - (letter in ")]}"))
        if letter == sign and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
