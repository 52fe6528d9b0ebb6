"""How Sphinx builds the site from the pages in this folder, which read well as Markdown, too: `tox -e docs`."""

import re
from pathlib import Path

from sphinx.application import Sphinx

from kdbench import __version__

project = "kdbench"
author = "the kdbench authors"
copyright = "2026, the kdbench authors"
version = release = __version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]

myst_heading_anchors = 4
"""Headings down to this level can be linked to as `page.md#heading`, by the names that a forge gives them."""

html_theme = "furo"
html_title = f"kdbench {release}"
html_show_sphinx = False
html_copy_source = False

LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[\w./-]+\.md)\)")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", offer_pages_outside)


def offer_pages_outside(app: Sphinx, name: str, source: list[str]) -> None:
    """Turn links to Markdown outside this folder, of which the site has no pages, into links to the files."""
    folder, site = Path(app.env.doc2path(name)).parent, Path(app.srcdir)

    def offered(link: re.Match[str]) -> str:
        inside = (folder / link[2]).resolve().is_relative_to(site)
        return link[0] if inside else f"{{download}}`{link[1]} <{link[2]}>`"

    source[0] = LINK.sub(offered, source[0])
