"""The page as one HTML file that needs nothing else, and in which nothing but the page's own scripts can run."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

import kdbench
from kdbench.report.page.view import Page
from kdbench.wording import unbroken

_PARTS = files("kdbench.report.page")


def to_html(page: Page) -> str:
    """The text of `report.html`.

    What the results hold reaches the page in two ways: as escaped text, and as compressed data that the script shows as text. A
    Content-Security-Policy names the hashes of the page's own scripts and styles, so that a browser runs no other and loads
    nothing.
    """
    css = _part("page.css")
    scripts = [_part("vega.js"), _part("page.js")]
    environment = Environment(
        loader=FunctionLoader(_part), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"parts_of_prose": _parts_of_prose, "minus": _minus, "unbroken": unbroken}
    return environment.get_template("page.html").render(
        page=page,
        version=kdbench.__version__,
        policy=_policy(css, scripts),
        css=Markup(css),
        scripts=[Markup(script) for script in scripts],
        data=_packed(page.data),
    )


def _parts_of_prose(text: str) -> Iterator[tuple[str, str]]:
    """The text in pieces, each a `link`, `code` or `text`."""
    for part in re.split(r"(https://[^\s,;)]*[^\s,;).]|`[^`]+`)", text):
        if part.startswith("https://"):
            yield "link", part
        elif part.startswith("`"):
            yield "code", part.strip("`")
        else:
            yield "text", unbroken(part)


def _minus(text: str) -> str:
    """With a minus for the hyphen before a number that stands alone, or in parentheses."""
    return re.sub(r"(?<![^\s(])-(?=\d)", "\N{MINUS SIGN}", text)


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _policy(css: str, scripts: list[str]) -> str:
    hashes = [f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in (css, *scripts)]
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {hashes[0]}",
            f"script-src {' '.join(hashes[1:])}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _packed(data: Mapping[str, Any]) -> str:
    """JSON, compressed, in base64: digits and letters that no browser takes for HTML."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
