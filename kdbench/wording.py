"""Numbers, times and parameters in messages, tables and notes: `1 trial`, `2 trials`, `2:03`, `k=2`."""


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
