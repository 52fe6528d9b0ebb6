"""The messages that the page on troubleshooting explains are those that kdbench gives."""

import ast
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


@pytest.fixture(scope="module")
def texts() -> str:
    files = [*(ROOT / "kdbench").rglob("*.py"), *(ROOT / "methods").glob("*.py")]
    trees = (ast.walk(ast.parse(file.read_text())) for file in files)
    return "\n".join(template(node) for tree in trees for node in tree if isinstance(node, ast.JoinedStr | ast.Constant))


@pytest.mark.parametrize("message", MESSAGES)
def test_kdbench_says_it(message: str, texts: str) -> None:
    said = [part.strip() for part in message.split("...") if len(part.strip()) > 3]
    assert said
    assert not [part for part in said if part not in texts]
