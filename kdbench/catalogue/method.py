"""What `kdbench show method` prints."""

from kdbench.catalogue.text import Value
from kdbench.method.description import LABELS


def method_as_text(described: Value) -> str:
    """The description for a terminal."""
    lines = [described["name"], "", described["formula"], ""]
    for part in described["text"]:
        lines += [part, ""]
    for label in map(str.lower, LABELS):
        family = f" ({described['family']})" if label == "transfers" and described["family"] else ""
        if described[label]:
            lines.append(f"{label + ':':<12}{described[label]}{family}")
    lines.append(f"{'reads:':<12}{', '.join(described['reads']) or 'no teacher'}")
    if described["needs"]:
        lines.append(f"{'needs:':<12}{', '.join(described['needs'])}")
    lines.append(f"{'file:':<12}{described['file']}")
    lines.append("parameters:" if described["params"] else "no parameters")
    lines += [f"  {key} = {value}" for key, value in described["params"].items()]
    return "\n".join(lines)
