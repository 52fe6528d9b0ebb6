"""What to try where a training gave numbers that are not finite, or a method of the user's own raised."""

from collections.abc import Container, Sequence
from pathlib import Path

from kdbench.method.composition import Composition
from kdbench.method.interface import METHODS
from kdbench.training.balance import weights_of, with_values
from kdbench.training.segments import MAIN, Segment


def what_to_try(method: Composition, segment: Segment, terms: Sequence[str] = ()) -> str:
    """The end of a sentence on a segment that diverged; in these `terms`, such as `kd.divergence`, where that is known."""
    known = {term.partition(".")[0] for term in terms} & method.parts.keys()
    files = {entry.file for entry in METHODS.entries() if entry.name in (known or method.parts)}
    return "; ".join(filter(None, (_settings_to_try(method, segment, known), check_of_own(files))))


def check_of_own(files: Container[str]) -> str:
    """The end of a sentence on methods in these files, for the author of one; empty where kdbench or a package has them all."""
    own = next((Path(entry.file).name for entry in METHODS.entries() if entry.own and entry.file in files), None)
    return f"`kdbench check {own}` tries the method without training" if own else ""


def _settings_to_try(method: Composition, segment: Segment, known: set[str]) -> str:
    if segment.phase != MAIN:
        return "lower the learning rate of this stage"
    weights = {name: value for name, value in weights_of(method, known).items() if value}
    lower = f"lower the learning rate{f' or {with_values(weights)}' if weights else ''}"
    return lower if segment.gradient_clipping else f"{lower}, or set `gradient_clipping` in the recipe"
