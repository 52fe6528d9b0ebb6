"""One registry for methods, models and data sets."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Generic, TypeVar

from kdbench.errors import KdbenchError, nearest

T = TypeVar("T")

INTERFACE = 1
"""Of methods, models and data sets alike: raised when what was written for the one before would no longer work."""

OWN_FILES = "kdbench_plugin_"
"""Begins the name of the module of a file that a user gives as a plugin."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered thing and where its definition stands.

    Attributes:
        own: whether that is a file which a user gives as a plugin.
    """

    name: str
    value: T
    file: str
    line: int
    own: bool = False


def _alike(name: str) -> str:
    """The same for names that a reader of a table takes for one: tables call `kd` KD and `catkd` CAT-KD."""
    return re.sub("[-_]", "", name).casefold()


class Registry(Generic[T]):
    """Named things of one kind: `kind` is the word in messages, `listing` the argument of `kdbench list`."""

    def __init__(self, kind: str, listing: str) -> None:
        self.kind = kind
        self.listing = listing
        self._entries: dict[str, Entry[T]] = {}
        self._families: dict[str, Callable[[re.Match[str]], T]] = {}

    def register(self, name: str, *, interface: int = 1) -> Callable[[T], T]:
        """Decorator that registers a class or a function under a name.

        Args:
            name: what suites call it: letters, digits, underscores and hyphens.
            interface: the version of the interface that it is written for. This kdbench has version 1.

        Raises:
            KdbenchError: the name is taken or cannot be a name, or it is written for another interface. The message names the file
                and the line.
        """

        def add(value: T) -> T:
            caller = sys._getframe(1)
            file, line = caller.f_code.co_filename, caller.f_lineno
            if not re.fullmatch(r"\w[\w-]*", name):
                raise KdbenchError(
                    f"{file}:{line}: '{name}' cannot be a {self.kind}'s name. Make it of letters, digits, underscores and hyphens."
                )
            if interface != INTERFACE:
                raise KdbenchError(
                    f"{file}:{line}: the {self.kind} '{name}' is written for interface {interface} of kdbench, and this one has "
                    f"interface {INTERFACE}. Install a version of either that fits the other."
                )
            taken = self._entries.get(name)
            if taken and (Path(taken.file).resolve(), taken.line) == (Path(file).resolve(), line):
                raise KdbenchError(
                    f"{file}:{line}: the {self.kind} '{name}' is registered already, by this very line. Import the file or give it "
                    "as a plugin, not both; to use it as it is now, start Python anew."
                )
            taken = taken or next((entry for entry in self._entries.values() if _alike(entry.name) == _alike(name)), None)
            if taken:
                written = "" if taken.name == name else f", which writes it '{taken.name}'"
                raise KdbenchError(
                    f"{file}:{line}: the {self.kind} name '{name}' is taken by {taken.file}:{taken.line}{written}. "
                    "Choose another name."
                )
            if any(re.fullmatch(pattern, name) for pattern in self._families):
                raise KdbenchError(
                    f"{file}:{line}: the {self.kind} name '{name}' is taken by a family that kdbench has. Choose another name."
                )
            own = str(caller.f_globals.get("__name__")).startswith(OWN_FILES)
            self._entries[name] = Entry(name, value, file, line, own)
            return value

        return add

    def register_family(self, pattern: str, make: Callable[[re.Match[str]], T]) -> None:
        """Add every name that `pattern` matches in full, such as `wrn_(\\d+)_(\\d+)`; `make` gets the match."""
        self._families[pattern] = make

    def __len__(self) -> int:
        return len(self._entries) + len(self._families)

    def __contains__(self, name: str) -> bool:
        return name in self._entries or any(re.fullmatch(pattern, name) for pattern in self._families)

    def names(self) -> list[str]:
        """The registered names in alphabetical order; families are not listed."""
        return sorted(self._entries)

    def entry(self, name: str) -> Entry[T]:
        """The entry of an exactly registered name.

        Raises:
            KdbenchError: nothing of that name; the message gives the nearest one.
        """
        if name not in self._entries:
            near = nearest(name, self._entries)
            raise KdbenchError(
                f"unknown {self.kind} '{name}'.{near} See `kdbench list {self.listing}`. One of your own needs its file: "
                "--plugin FILE, `plugins: [FILE]` in the suite, or plugins=[FILE] in Python."
            )
        return self._entries[name]

    def require(self, name: str) -> None:
        """See that something is called `name`, without making what a family makes.

        Raises:
            KdbenchError: nothing of that name; the message gives the nearest one.
        """
        if name not in self:
            self.entry(name)

    def get(self, name: str) -> T:
        """What is registered under `name`, or made by the family that matches it.

        Raises:
            KdbenchError: nothing of that name; the message gives the nearest one.
        """
        if name not in self._entries:
            for pattern, make in self._families.items():
                if match := re.fullmatch(pattern, name):
                    return make(match)
        return self.entry(name).value

    def plugin_option(self, name: str) -> str:
        """What a command needs so that it knows a name: ` --plugin mine.py`; nothing where it knows it anyway."""
        entry = self._entries.get(name)
        if not entry or not entry.own:
            return ""
        file, here = Path(entry.file), Path.cwd()
        return f" --plugin {quote(str(file.relative_to(here) if file.is_relative_to(here) else file))}"

    def entries(self) -> list[Entry[T]]:
        """What is registered, in the order in which it was; families are not listed."""
        return list(self._entries.values())

    def snapshot(self) -> Callable[[], None]:
        """A function that forgets whatever is registered from now on."""
        entries, families = dict(self._entries), dict(self._families)

        def restore() -> None:
            self._entries, self._families = entries, families

        return restore
