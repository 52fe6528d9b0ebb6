"""The one error that users see, and the sentence that finishes it."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class KdbenchError(ValueError):
    """A mistake that the user can mend. The command line prints its message alone and exits with 2."""


class DataError(KdbenchError):
    """An image cannot be read. It ends the run and is no method's failure, whatever lane asked for the image."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'dkd'?"` for a name that resembles a known one, else the empty string."""
    folded = {other.lower(): other for other in known}
    match = get_close_matches(name.lower(), list(folded), n=1, cutoff=0.5)
    return f" Did you mean '{folded[match[0]]}'?" if match else ""


def listed(items: Sequence[str], *, separator: str = ", ", most: int = 5) -> str:
    """The first `most` of them in one line, and how many more there are."""
    more = f"{separator}and {len(items) - most:,} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def first_line(problem: BaseException) -> str:
    """What another library's exception says, to stand inside a sentence of ours."""
    return (str(problem).strip() or type(problem).__name__).split("\n")[0].rstrip(".")
