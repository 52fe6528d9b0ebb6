"""The messages that the page on troubleshooting explains are those that kdbench gives."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "help" / "troubleshooting.md").read_text()
MESSAGES = [row.split(" | ")[0].removeprefix("| ") for row in PAGE.splitlines() if row.startswith("| ") and row[2:5] != "---"]
MESSAGES = [message for message in MESSAGES if message != "message"]


def template(node: ast.expr) -> str:
    """A text in the code, with `...` where it names something."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "..."


MADE_OF_SEVERAL = {
    "unknown ... Did you mean '...'?",
    "they do not fit the network: ... missing; ... unexpected",
    "are for ... classes and the data set has ... A teacher is used as it is",
    "warning: ... the transfer terms are ... the cross-entropy in ...",
    "warning: ... no transfer term reaches the student",
    "FAILED ... not finite after ...",
    "... was set aside as ....broken",
}
"""Messages that the code puts together from texts in different places: their parts are looked for one by one."""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    files = [*(ROOT / "kdbench").rglob("*.py"), *(ROOT / "methods").glob("*.py")]
    trees = (ast.walk(ast.parse(file.read_text())) for file in files)
    return [template(node) for tree in trees for node in tree if isinstance(node, ast.JoinedStr | ast.Constant)]


@pytest.mark.parametrize("message", MESSAGES)
def test_kdbench_says_it(message: str, texts: list[str]) -> None:
    said = [re.escape(part.strip()) for part in message.split("...") if len(part.strip()) > 3]
    assert said
    wanted = said if message in MADE_OF_SEVERAL else [".*".join(said)]
    assert [part for part in wanted if not any(re.search(part, text, re.DOTALL) for text in texts)] == []


def test_what_is_put_together_is_on_the_page():
    assert set(MESSAGES) >= MADE_OF_SEVERAL


def test_messages_name_what_users_import(texts: list[str]) -> None:
    """`kdbench.Network`, never the module that it stands in."""
    assert [text for text in texts if re.search(r"kdbench\.[a-z_]+\.[A-Z]", text)] == []
