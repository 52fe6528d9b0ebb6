"""What the text of an option means: lists of names and of seeds, a time, the shape of images."""

import re

from kdbench.errors import KdbenchError

MOST_SEEDS = 100_000
"""More in one range is a slip of the finger, and a plan of them would fill the memory."""

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_TIME = re.compile("".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?){unit})?" for unit in _UNITS))


def method_names(text: str) -> list[str]:
    """The methods of `kd,ft+at`, in this order.

    Raises:
        KdbenchError: an empty name, or a space where a comma belongs.
    """
    text = re.sub(r"\s*\+\s*", "+", text)
    names = [name.strip() for name in text.split(",")]
    if len(text.split()) > 1 and "," not in text:
        raise KdbenchError(f"--methods: '{text}' has no comma between its names. Write {','.join(text.split())}.")
    if not all(names):
        raise KdbenchError(f"--methods: '{text}' has an empty name. Put one comma and no space between two names, as in kd,ft.")
    return names


def seed_numbers(text: str) -> list[int]:
    """The seeds of `0,1,2`, `0-3` or `0-2,5`, in this order; a range has both of its ends.

    Raises:
        KdbenchError: anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(-?[0-9]{1,40})|([0-9]{1,40})-([0-9]{1,40})", part.strip())
        if not match:
            raise KdbenchError(f"--seeds: '{text}' is not a list of seeds. Write whole numbers without spaces, as in 0,1,2 or 0-2.")
        single, *ends = match.groups()
        first, last = map(int, (single, single) if single else ends)
        if not 0 <= last - first < MOST_SEEDS:
            fix = f"{last}-{first}" if last < first else f"fewer than {MOST_SEEDS:,}"
            raise KdbenchError(f"--seeds: '{part.strip()}' is not a range of seeds. Give {fix}.")
        seeds += range(first, last + 1)
    return seeds


def seconds(text: str, option: str = "--stop-after") -> float:
    """Seconds of `90s`, `9m`, `1.5h`, `1h30m` or `2d`.

    Raises:
        KdbenchError: anything else.
    """
    match = _TIME.fullmatch(text)
    if not match or not text:
        raise KdbenchError(f"{option}: '{text}' is not a time. Give it with its unit, such as 90s, 9m, 2h or 1h30m.")
    return sum(float(amount) * _UNITS[unit] for unit, amount in match.groupdict().items() if amount)


def image_shape(text: str) -> tuple[int, int, int]:
    """(C, H, W) of `3x224x224`.

    Raises:
        KdbenchError: anything else.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise KdbenchError(f"--input: '{text}' is not the shape of an image. Give channels, height and width, such as 3x224x224.")
    return int(match[1]), int(match[2]), int(match[3])
