"""Numbers and parameters in messages, tables and notes: `1 trial`, `2 trials`, `k=2`."""


def counted(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`, `3 classes`."""
    return f"{number} {plural(noun, number)}"


def plural(noun: str, number: float) -> str:
    """The noun as it stands after the number."""
    return noun if number == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"


def assigned(name: str, value: object) -> str:
    """`k=2`: a parameter and its value, a whole number without a point."""
    return f"{name}={str(value).removesuffix('.0')}"
