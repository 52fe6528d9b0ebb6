"""The page of the checks that `kdbench check` makes."""

from kdbench.conformance import CHECKS, described
from kdbench.docs.markdown import page, plain, table

INTRODUCTION = """\
`kdbench check NAME` tries a method on two small networks in seconds, and `kdbench check FILE.py` every method of a file. A method
that passes keeps the promises that a comparison rests on: it trains on any pair or refuses it in advance, its result does not
depend on what runs beside it, and a stopped run continues to the same bits.

A check passes, fails, or is refused: the method says in advance that it does not do such a pair, which is its right. Exit status 1
says that a check failed."""


def checks_page() -> str:
    """The page as Markdown."""
    found = [described(test) for test in CHECKS]
    overview = [[f"[{check['name']}](#{check['name'].replace(' ', '-')})", plain(check["promise"])] for check in found]
    sections = [
        f"## {check['name']}\n\n{plain(check['promise'])}\n\n* **Why:** {plain(check['why'])}\n* **Fix:** {plain(check['fix'])}"
        for check in found
    ]
    return page("Checks", INTRODUCTION, table(["check", "what holds where it passes"], overview), *sections)
