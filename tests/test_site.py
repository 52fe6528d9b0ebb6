"""What the pages for people say holds: their links lead somewhere, and their code is that of the examples, or runs."""

import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer
import yaml
from markdown_it import MarkdownIt

from kdbench.cli import app
from kdbench.data import DATASETS
from kdbench.method.interface import METHODS
from kdbench.models import MODELS
from kdbench.spec.recipe import Recipe
from kdbench.suite.plugins import load_path, load_shipped
from kdbench.suite.resolve import load_suite
from kdbench.suite.shipped import suite_names

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    file
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "results/reference/**/*.md", "suites/**/*.md")
    for file in ROOT.glob(pattern)
    if "_build" not in file.parts
)
MARKDOWN = MarkdownIt().enable("table")
COMMANDS = typer.main.get_command(app).commands
COMMANDS |= {f"trials {name}": command for name, command in COMMANDS["trials"].commands.items()}


def told(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Links


def links(page: Path) -> Iterator[str]:
    """The targets of links and images on a page that do not leave it for the web."""
    for block in MARKDOWN.parse(page.read_text()):
        for part in block.children or []:
            target = str(part.attrs.get("href") or part.attrs.get("src") or "")
            if target and not re.match(r"[a-z]+:", target):
                yield unquote(target)


@cache
def anchors(page: Path) -> set[str]:
    """The names that a forge gives the headings of a page."""
    parts = MARKDOWN.parse(page.read_text())
    headings = [after.content for part, after in pairwise(parts) if part.type == "heading_open"]
    found: Counter[str] = Counter()
    names = set()
    for heading in headings:
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


@pytest.mark.parametrize("page", PAGES, ids=told)
def test_every_link_leads_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{told(page)}: there is no {target}"
        assert file.is_file() or "docs" not in page.parts, f"{told(page)}: {target} is a folder, to which the site cannot link"
        assert not anchor or anchor in anchors(file), f"{told(page)}: {told(file)} has no heading #{anchor}"


# Blocks of code


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        kind: the word after the fence; empty where there is none.
        file: the example that it shows; empty where it shows none.
    """

    page: Path
    line: int
    kind: str
    code: str
    file: str

    def __str__(self) -> str:
        return f"{told(self.page)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    parts = MARKDOWN.parse(page.read_text())
    for before, part in pairwise([parts[0], *parts] if parts else []):
        if part.type == "fence":
            shown = re.match(r"<!-- file: (\S+) -->", before.content) if before.type == "html_block" else None
            yield Block(page, part.map[0] + 1, part.info.partition(" ")[0], part.content, shown[1] if shown else "")


WRITTEN = [page for page in PAGES if page.name != "CHANGELOG.md" and "results" not in page.parts]
BLOCKS = [block for page in WRITTEN for block in blocks(page)]
KINDS = {"python", "yaml", "console", "bash", "", "text", "py", "{toctree}", "{include}"}
"""Of blocks that are checked, then of those that are shown alone: outputs, signatures, and what makes the site."""


def of_kind(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "block", [block for block in BLOCKS if block.kind.split(" ")[0] in kinds and not block.file], ids=str
    )


def test_there_are_blocks_of_known_kinds_alone():
    assert not [str(block) for block in BLOCKS if block.kind not in KINDS]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.file], ids=str)
def test_an_example_is_shown_as_it_is(block):
    assert block.code == (ROOT / block.file).read_text()


def test_every_example_of_python_is_shown():
    assert {file.name for file in ROOT.glob("examples/*.py")} <= {Path(block.file).name for block in BLOCKS}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working folder with the examples and the reference results, as a clone has them; what is registered there is forgotten."""
    for folder in (tmp_path / "examples", tmp_path):
        shutil.copytree(ROOT / "examples", folder, dirs_exist_ok=True)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    monkeypatch.chdir(tmp_path)
    load_shipped()
    undo = [registry.snapshot() for registry in (METHODS, MODELS, DATASETS)]
    yield tmp_path
    for restore in undo:
        restore()


@of_kind("python")
def test_a_block_of_python_runs(block, clone):
    file = clone / "block.py"
    file.write_text(block.code)
    exec(compile(block.code, str(file), "exec"), {"__name__": "__main__"})


@of_kind("yaml")
def test_a_block_of_yaml_is_a_suite_or_a_part_of_one(block, clone):
    """A part, such as `pairs`, is put into a suite; a recipe stands for itself."""
    given = yaml.safe_load(block.code)
    for name in re.findall(r"\b[\w.-]+\.(?:pth|pt|safetensors)\b", block.code):
        (clone / name).write_bytes(b"weights")
    if "plugins" not in given:
        for plugin in ("cosine", "own_model", "own_dataset"):
            load_path(clone / "examples" / f"{plugin}.py")
    if "epochs" in given:
        Recipe.model_validate(given)
        return
    usual = {"title": "t", "dataset": "digits", "recipe": "digits-quick", "seeds": [0], "methods": ["scratch", "kd", "ft"]}
    whole = given if "title" in given else {**usual, "pairs": [{"teacher": "resnet20", "student": "resnet8"}], **given}
    (clone / "suite.yaml").write_text(yaml.safe_dump(whole))
    assert load_suite(clone / "suite.yaml").trials


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command `kdbench ...` in a block, without comments."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if match := re.match(r"(?:\$ )?(?:srun )?(?:\S*/)?kdbench\s+(.*)", line.split("&&")[-1].strip()):
            yield shlex.split(match[1], comments=True)


def check_command(words: list[str], *, whole: bool) -> None:
    """See that there is such a command with such options and, where it is `whole`, that it can be started."""
    if not words or words[0].startswith("-") or words[0].isupper():
        return
    if words[0] == "trials":
        assert words[1] in COMMANDS["trials"].commands, f"there is no command trials {words[1]}"
        words = [f"trials {words[1]}", *words[2:]]
    assert words[0] in COMMANDS, f"there is no command {words[0]}"
    known = {option for parameter in COMMANDS[words[0]].params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }
    for word in words[1:]:
        assert not word.startswith("--") or word.partition("=")[0] in known, f"{words[0]} has no option {word}"
    if whole:
        COMMANDS[words[0]].make_context(words[0], words[1:])
        if words[0] in ("run", "plan", "report") and not (words[1].isupper() or words[1].endswith((".yaml", ".csv"))):
            assert words[1] in (*suite_names(), "results"), f"there is no suite {words[1]}"
        for word in (word for word in words if word.startswith("examples/")):
            assert (ROOT / word).exists(), f"there is no {word}"


@of_kind("", "console", "bash", "text")
def test_commands_in_a_block_can_be_started(block):
    for words in commands(block.code):
        check_command(words, whole=block.kind != "text")


@pytest.mark.parametrize("page", WRITTEN, ids=told)
def test_commands_in_a_line_have_the_options_that_they_name(page):
    for part in MARKDOWN.parse(page.read_text()):
        for code in (child.content for child in part.children or [] if child.type == "code_inline"):
            for words in commands(code):
                check_command(words, whole=False)
