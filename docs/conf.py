"""How Sphinx builds the site from the pages in this folder, which read well as Markdown, too: `tox -e docs`."""

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
