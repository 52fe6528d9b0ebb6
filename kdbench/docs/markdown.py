"""Markdown of tables, signatures and docstrings."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from kdbench.catalogue.keys import REQUIRED, Key

GENERATED = "<!-- This page is generated: python -m kdbench.docs docs/reference -->"

_SECTIONS = ("Args", "Attributes", "Class attributes", "Raises", "Returns")
_WIDTH = 100


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, whose cells are Markdown."""
    lines = [" | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in (" | ".join(heads), " | ".join("---" for _ in heads), *lines))


def key_table(found: Iterable[Key], links: Mapping[str, str] = {}) -> str:
    """A table of keys; `links` leads from a key to where what it holds is described."""
    rows = []
    for key in found:
        name = f"[{code(key.name)}]({links[key.name]})" if key.name in links else code(key.name)
        default = key.default if key.default == REQUIRED else code(key.default)
        rows.append([name, plain(key.kind), default, plain(key.about)])
    return table(["key", "value", "default", "meaning"], rows)


def code(text: str) -> str:
    """Text as code; empty where it is empty."""
    return f"`{text}`" if text else ""


def page(title: str, *parts: str) -> str:
    """A page: its title, then its parts, each after an empty line."""
    return "\n\n".join([GENERATED, f"# {title}", *parts]) + "\n"


def first_sentence(text: str) -> str:
    """Of a docstring."""
    return plain(re.split(r"(?<=\.)\s", inspect.cleandoc(text).split("\n\n")[0].replace("\n", " "), maxsplit=1)[0])


def plain(text: str) -> str:
    """Text in which signs that Markdown or HTML would take for their own stand for themselves; code stays as it is."""
    parts = re.split(r"(``.*?``|`[^`]*`)", text)
    return "".join(part if i % 2 else re.sub(r"([<*])", r"\\\1", part) for i, part in enumerate(parts))


def docstring(text: str) -> str:
    """A docstring as Markdown: its paragraphs, and a list for each of its sections."""
    parts = []
    for block in re.split(r"\n\n(?=\S)", inspect.cleandoc(text)):
        title, _, body = block.partition("\n")
        if title.removesuffix(":") in _SECTIONS and body:
            parts.append(f"**{title.removesuffix(':')}**\n\n{_entries(textwrap.dedent(body))}")
        else:
            parts.append(plain(block))
    return "\n\n".join(parts)


def attributes(text: str, section: str = "Attributes") -> dict[str, str]:
    """The entries of a section of a docstring, by name."""
    match = re.search(rf"^{section}:\n((?:[ ]+\S.*\n?)+)", inspect.cleandoc(text), flags=re.MULTILINE)
    return dict(_split(entry) for entry in _items(textwrap.dedent(match[1]))) if match else {}


def _entries(body: str) -> str:
    """`name: text` as list items; a text without names as it is."""
    items = _items(body)
    if not all(re.match(r"\*{0,2}[\w.]+(, \w+)*: ", item) for item in items):
        return plain(body)
    return "\n".join(f"* {code(name)}: {plain(text)}" for name, text in map(_split, items))


def _items(body: str) -> list[str]:
    return [" ".join(item.split()) for item in re.split(r"\n(?=\S)", body.strip("\n"))]


def _split(item: str) -> tuple[str, str]:
    name, _, text = item.partition(": ")
    return name, text[:1].upper() + text[1:]


def signature(name: str, function: Any) -> str:
    """`name(arguments) -> result`, as the source has it; over several lines where it is long."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    given.posonlyargs = [arg for arg in given.posonlyargs if arg.arg not in ("self", "cls")]
    given.args = [arg for arg in given.args if arg.arg not in ("self", "cls")]
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{name}({', '.join(_arguments(given))}){result}"
    if len(line) <= _WIDTH:
        return line
    arguments = "".join(f"    {argument},\n" for argument in _arguments(given))
    return f"{name}(\n{arguments}){result}"


def _arguments(given: ast.arguments) -> list[str]:
    """Each argument by itself, with its type and default."""
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    arguments = [_argument(arg, default) for arg, default in zip(positional, defaults, strict=True)]
    if given.vararg:
        arguments.append(f"*{ast.unparse(given.vararg)}")
    elif given.kwonlyargs:
        arguments.append("*")
    arguments += [_argument(arg, default) for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*arguments, *([f"**{ast.unparse(given.kwarg)}"] if given.kwarg else [])]


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(arg) + (f" = {ast.unparse(default)}" if default else "")


def texts_under(owner: Any) -> dict[str, str]:
    """The text under each name that a class or a module assigns."""
    tree: Any = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    found: dict[str, str] = {}
    for node, after in pairwise(tree.body[0].body if inspect.isclass(owner) else tree.body):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            found |= {target.id: inspect.cleandoc(after.value.value) for target in targets if isinstance(target, ast.Name)}
    return found
