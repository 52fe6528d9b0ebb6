"""What the pages for people say holds: their links lead somewhere, and their code is that of the examples, or runs."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    file
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "results/reference/**/*.md", "suites/**/*.md")
    for file in ROOT.glob(pattern)
    if "_build" not in file.parts
)
MARKDOWN = MarkdownIt().enable("table")


def told(page: Path) -> str:
    return str(page.relative_to(ROOT))


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
        assert not anchor or anchor in anchors(file), f"{told(page)}: {told(file)} has no heading #{anchor}"
