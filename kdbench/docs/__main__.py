"""Writes the reference pages anew into a folder."""

import sys
from pathlib import Path

from kdbench.docs import PAGES
from kdbench.suite.plugins import load_shipped

if __name__ == "__main__":
    load_shipped()
    for name, page in PAGES.items():
        (Path(sys.argv[1]) / f"{name}.md").write_text(page(), encoding="utf-8")
