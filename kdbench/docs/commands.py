"""The page of the command line: every command with its arguments and options, as they are declared to typer."""

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typer import Typer
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from kdbench.cli import app, version
from kdbench.cli.options import AS_IT_IS
from kdbench.docs.markdown import code, page, plain, table

INTRODUCTION = "`kdbench COMMAND --help` prints the same in a terminal. What stands in brackets may be left out."


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command.

    Attributes:
        name: as it is written: `SUITE`, `--results`.
        value: what follows an option, such as `DIR`; empty where nothing does, and for arguments.
        default: empty where there is none to tell.
        meaning: its help.
    """

    name: str
    value: str
    default: str
    meaning: str


def commands_page() -> str:
    """The page as Markdown."""
    commands = list(_commands(app))
    links = [[f"[`kdbench {name}`](#kdbench-{name.replace(' ', '-')})", _paragraphs(command)[0]] for name, command in commands]
    return page(
        "Command line",
        INTRODUCTION,
        table(["command", "what it does"], links),
        plain(app.info.epilog or ""),
        _options(list(parameters(version))),
        *(_section(name, command) for name, command in commands),
    )


def _commands(commands: Typer, before: str = "") -> Iterator[tuple[str, CommandInfo]]:
    """Each command with its name, those of a group behind the group's."""
    for command in commands.registered_commands:
        if command.callback:
            yield f"{before}{command.name or command.callback.__name__}", command
    for group in commands.registered_groups:
        assert group.typer_instance
        yield from _commands(group.typer_instance, f"{before}{group.name} ")


def _section(name: str, command: CommandInfo) -> str:
    found = list(parameters(command.callback))
    arguments = [parameter for parameter in found if not parameter.name.startswith("-")]
    options = [parameter for parameter in found if parameter.name.startswith("-")]
    usage = " ".join(["kdbench", name, *(argument.name for argument in arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"## kdbench {name}", *_paragraphs(command), f"```text\n{usage}\n```"]
    if arguments:
        parts.append(table(["argument", "meaning"], [[code(argument.name), plain(argument.meaning)] for argument in arguments]))
    if options:
        parts.append(_options(options))
    if command.epilog:
        title, _, lines = command.epilog.removeprefix(AS_IT_IS).partition("\n")
        parts.append(f"{title}\n\n```\n{textwrap.dedent(lines)}\n```")
    return "\n\n".join(parts)


def _paragraphs(command: CommandInfo) -> list[str]:
    return [plain(part) for part in inspect.cleandoc(command.help or command.callback.__doc__ or "").split("\n\n")]


def _options(options: Sequence[Parameter]) -> str:
    rows = []
    for option in options:
        rows.append([code(f"{option.name} {option.value}".strip()), code(option.default), plain(option.meaning)])
    return table(["option", "default", "meaning"], rows)


def parameters(command: Any) -> Iterator[Parameter]:
    """The arguments and options of a command, in its order."""
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if get_origin(hints[name]) is not Annotated:
            continue  # the context
        kind, declared = get_args(hints[name])
        assert isinstance(declared, ArgumentInfo | OptionInfo)
        kind = get_args(kind)[0] if NoneType in get_args(kind) else kind
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        value = declared.metavar or "|".join(choices) or ("NUMBER" if kind is int else name.upper())
        meaning = " ".join((declared.help or "").split())
        if choices and declared.metavar:
            meaning += f" One of {', '.join(choices)}."
        if isinstance(declared, ArgumentInfo):
            yield Parameter(value if parameter.default is parameter.empty else f"[{value}]", "", "", meaning)
        else:
            default = "" if parameter.default in (None, "", [], parameter.empty) or kind is bool else str(parameter.default)
            # In Annotated, the first name stands where a default stands otherwise.
            names = [text for text in (declared.default, *(declared.param_decls or ())) if isinstance(text, str)]
            written = ", ".join(names or [f"--{name.replace('_', '-')}"]).replace("/", " / ")
            yield Parameter(written, "" if kind is bool else value, default, meaning)
