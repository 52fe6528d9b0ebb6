"""What to try where a training gave numbers that are not finite."""

from collections.abc import Sequence

from kdbench.method.composition import Composition
from kdbench.training.balance import weights_of, with_values
from kdbench.training.segments import MAIN, Segment


def what_to_try(method: Composition, segment: Segment, terms: Sequence[str] = ()) -> str:
    """The end of a sentence on a segment that diverged; in these `terms`, such as `kd.divergence`, where that is known."""
    if segment.phase != MAIN:
        return "lower the learning rate of this stage"
    known = {term.partition(".")[0] for term in terms} & method.parts.keys()
    weights = {name: value for name, value in weights_of(method, known).items() if value}
    lower = f"lower the learning rate{f' or {with_values(weights)}' if weights else ''}"
    return lower if segment.gradient_clipping else f"{lower}, or set `gradient_clipping` in the recipe"
