"""The one error that users see, and the sentence that finishes it."""

import errno
import re
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class KdbenchError(ValueError):
    """A mistake that the user can correct. The message ends with the fix. The command line prints it and exits with status 2."""


class DataError(KdbenchError):
    """An image cannot be read. It ends the run and is no method's failure, whatever lane asked for the image."""


class UntrainedStages(KdbenchError, UserWarning):
    """The losses of a method were asked for before its stages were trained, so that they would compare with what is random.

    It is raised, unless the process has a filter of warnings for it that says otherwise.
    """


warnings.filterwarnings("error", category=UntrainedStages)


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'dkd'?"` for a name that resembles a known one, else the empty string.

    Of those that differ from it in their numbers alone it is the one with the nearest: `resnet20` for `resnet21`, where similar
    letters would give `resnet32`. One that has the name and then something in brackets comes first: `ft (beta=5)` for `ft`.
    """
    name, folded = name.lower(), {other.lower(): other for other in known}
    if longer := [other for other in folded if other.startswith(f"{name} (")]:
        return f" Did you mean '{folded[longer[0]]}'?"
    alike = [other for other in folded if _NUMBER.sub("#", other) == _NUMBER.sub("#", name)]
    if alike and name[:-1] not in folded:  # `resnet200` has a digit too many
        match = [min(alike, key=lambda other: _distance(name, other))]
    else:
        match = get_close_matches(name, list(folded), n=1, cutoff=0.5)
    return f" Did you mean '{folded[match[0]]}'?" if match else ""


_NUMBER = re.compile(r"\d+")


def _distance(name: str, other: str) -> int:
    """How far apart the numbers in two names are that have the same letters."""
    return sum(abs(int(a) - int(b)) for a, b in zip(_NUMBER.findall(name), _NUMBER.findall(other), strict=True))


def listed(items: Sequence[str], *, separator: str = ", ", most: int = 5) -> str:
    """The first `most` of them in one line, and how many more there are."""
    more = f"{separator}and {len(items) - most:,} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


_MENDED = {
    errno.EACCES: "Ask its owner for access, such as chmod g+rwX.",
    errno.EPERM: "Ask its owner for access, such as chmod g+rwX.",
    errno.EROFS: "Choose a place that can be written.",
    errno.ENOSPC: "Make room there.",
    errno.EDQUOT: "Make room there.",
    errno.EMFILE: "Raise the limit, such as with ulimit -n 4096.",
}


def system_error(problem: OSError) -> str:
    """Which file the system refused, why, and what mends that: `r/record.json: Permission denied. Ask its owner for ...`."""
    file = f"{problem.filename}: " if problem.filename is not None else ""
    return f"{file}{problem.strerror or problem}. {_MENDED.get(problem.errno or 0, 'Repair it, or give another path.')}"


def refuse(suite: str, problems: Sequence[KdbenchError]) -> None:
    """See that nothing keeps a suite from running.

    Raises:
        KdbenchError: something does; the message gives every problem with its fix.
    """
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listing = "".join(f"\n* {problem}" for problem in problems)
        raise KdbenchError(f"{suite} cannot run, for {len(problems)} reasons:{listing}")


def refuse_no_list(name: str, given: object, *, example: Sequence[object]) -> None:
    """See that an argument is a list, and not one text, which Python would take for a list of letters.

    Raises:
        KdbenchError: it is not; the message gives the example.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise KdbenchError(f"{name}: {given!r} is no list. Write {name}={list(example)!r}.")


def first_line(problem: BaseException) -> str:
    """What another library's exception says, to stand inside a sentence of ours."""
    return (str(problem).strip() or type(problem).__name__).split("\n")[0].rstrip(".")
