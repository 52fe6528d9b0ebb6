"""Where a report lies: each suite and each selection has a folder, in which nobody else's report and no older file is."""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.files import written

LIST = ".kdbench-report.json"
"""In the folder of a report: what it is of, and the files that kdbench wrote there."""

SELECTION_LENGTH = 60
"""Bytes of the part of a folder's name that tells a selection."""


@dataclass(frozen=True)
class ReportIdentity:
    """Which suite and which selection a report is of.

    Attributes:
        name: of the suite, and of the folder where no other has it.
        suite: the suite's file, or what else tells it from others of its name.
        place: a word that tells people the two apart: the folder of the file.
        content: a hash of the suite's text; empty where there is none.
        selection: the methods, seeds and options that were chosen, in words; empty for the suite as it is.
    """

    name: str
    suite: str
    place: str
    content: str = ""
    selection: str = ""

    def is_suite_of(self, listed: dict[str, Any]) -> bool:
        """Whether a list is of this suite, before or after it was edited or moved."""
        return self.suite == listed["suite"] or (bool(self.content) and self.content == listed["content"])

    def is_of(self, listed: dict[str, Any]) -> bool:
        """Whether a list is of this suite and this selection."""
        return self.is_suite_of(listed) and self.selection == listed["selection"]

    @property
    def folders(self) -> list[str]:
        """Names of folders that it may have, the best first."""
        chosen = re.sub(r"-*[^\w.+=-]-*", "-", self.selection.replace(", ", "_").replace("; ", "-").replace(" ", "-"))
        if len(chosen.encode()) > SELECTION_LENGTH:
            chosen = f"{chosen.encode()[: SELECTION_LENGTH - 7].decode(errors='ignore')}-{_hash(chosen)}"
        name = f"{self.name}-{chosen}" if chosen else self.name
        return [name, f"{name}-{self.place}", f"{name}-{_hash(self.suite + self.selection)}"]


def choose_folder(reports: Path, identity: ReportIdentity) -> tuple[Path, str]:
    """The folder of a report below `reports`, and a sentence where it is not the one of its name, which another has."""
    lists = {name: _read(reports / name) for name in identity.folders}
    own = [name for name, listed in lists.items() if listed and identity.is_of(listed)]
    free = [name for name, listed in lists.items() if not listed]
    name = (own or free or identity.folders)[0]
    first = lists[identity.folders[0]]
    usual, folder = reports / identity.folders[0], reports / name
    if not first or folder == usual:
        return folder, ""
    return folder, f"{usual} already holds the report of {first['suite']}. So this report is in {folder}."


def write_into(
    directory: Path, identity: ReportIdentity, write: Callable[[Path], Sequence[Path]], *, results: str, chosen_by_user: bool
) -> tuple[list[Path], list[Path]]:
    """Write a report, and remove those files of the one before it that it does not have, unless both are of the same results.

    Args:
        directory: of the report; made where it does not exist.
        identity: what the report is of.
        write: writes all files into the empty folder that it is given, and returns them.
        results: a hash of what the report shows. Files of other formats that were made of the same results stay.
        chosen_by_user: whether the directory may hold what is not kdbench's, or another suite's report.

    Returns:
        The files, and those that were removed.

    Raises:
        KdbenchError: the user's directory holds another suite's report, or a file of such a name that kdbench did not write.
        OSError: it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="kdbench-") as staged:
        made = {file.name: file.read_bytes() for file in write(Path(staged))}
    listed = _read(directory)
    before = listed["files"] if listed else []
    if chosen_by_user:
        if listed and not identity.is_suite_of(listed):
            raise KdbenchError(f"{directory} holds the report of {listed['suite']}. Choose another --output.")
        for name in made:
            if name not in before and (directory / name).exists():
                raise KdbenchError(
                    f"{directory / name} exists already, and kdbench did not write it. Move it away, or choose another --output."
                )
    same = listed is not None and listed["results"] == results and identity.is_of(listed)
    _write(directory, identity, [*before, *made], "")
    for name, data in made.items():
        _put(directory / name, data)
    old = [] if same else [directory / name for name in before if name not in made and (directory / name).exists()]
    for file in old:
        file.unlink(missing_ok=True)
    _write(directory, identity, [*(before if same else ()), *made], results)
    return [directory / name for name in made], old


def _read(directory: Path) -> dict[str, Any] | None:
    """The list of a folder; None where there is none that can be used."""
    try:
        listed = json.loads((directory / LIST).read_bytes())
        files = [name for name in listed["files"] if Path(name).name == name]  # of this folder alone
        about = {key: str(listed[key]) for key in ("suite", "content", "selection")}
        return {**about, "results": str(listed.get("results", "")), "files": files}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _write(directory: Path, identity: ReportIdentity, files: Sequence[str], results: str) -> None:
    about = {"suite": identity.suite, "content": identity.content, "selection": identity.selection, "results": results}
    _put(directory / LIST, json.dumps({**about, "files": sorted({*files})}, indent=1).encode())


def _put(file: Path, data: bytes) -> None:
    """Write a file that another process, which has come to the end of the suite as well, may write at the same time."""
    with written(file, writer=f"{socket.gethostname()}-{os.getpid()}") as partial:
        partial.write_bytes(data)


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:6]
