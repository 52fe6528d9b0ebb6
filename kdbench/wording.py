"""Numbers, times and parameters in messages, tables and notes: `1 trial`, `2 trials`, `2:03`, `k=2`."""

import re

NO_BREAK = "\N{NO-BREAK SPACE}"

_TOGETHER = re.compile(
    r"(?<=\bn) = (?=\d)|(?<=\d) (?=[%±])|(?<=±) (?=\d)|(?<=\bprotocol) (?=\d)|"
    r"(?<=\bkdbench) (?=\d)|(?<=\bPython) (?=\d)|(?<=\btorch) (?=\d)"
)
"""Spaces at which no line may end."""


def unbroken(text: str) -> str:
    """With no-break spaces in `n = 3`, `95 %`, `1.2 ± 0.3`, `protocol 3` and `Python 3.11`."""
    return _TOGETHER.sub(lambda found: found[0].replace(" ", NO_BREAK), text)


def counted(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`, `3 classes`."""
    return f"{number} {plural(noun, number)}"


def plural(noun: str, number: float) -> str:
    """The noun as it stands after the number."""
    return noun if number == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"


def assigned(name: str, value: object) -> str:
    """`k=2`: a parameter and its value, a whole number without a point."""
    return f"{name}={str(value).removesuffix('.0')}"


def clock(seconds: float | None) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
