"""Where a text in a figure is broken into lines."""

import re
from textwrap import wrap

from kdbench.wording import NO_BREAK, unbroken

_BRACKETS = re.compile(r"\((?:[^()]|\([^()]*\))*\)")


def broken(text: str, letters: int) -> list[str]:
    """Lines of so many letters at most.

    They end between words, and outside of brackets where what these hold fits a line. A word that fits no line is broken, at its
    hyphens if it has some.
    """

    def joined(found: re.Match[str]) -> str:
        return found[0].replace(" ", NO_BREAK) if len(found[0]) <= letters else found[0]

    text = _BRACKETS.sub(joined, unbroken(text))
    too_long = any(len(word) > letters for word in text.split(" "))
    return [line.replace(NO_BREAK, " ") for line in wrap(text, letters, break_on_hyphens=too_long)]
