"""Whether weights fit a network: which tensors of a file are the network's, under whatever prefix and by whatever names."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

from torch import Tensor

from kdbench.errors import KdbenchError, listed
from kdbench.models.layouts import trap, usual_names
from kdbench.models.network import Network
from kdbench.models.weights import State, state_hash

COUNTERS = ("total_ops", "total_params", "n_averaged")
"""Last parts of names that profilers and averages leave in a network's state."""

AVERAGE = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?|shadow)(?:[._]|$)", re.IGNORECASE)
"""In the prefix of averaged weights."""

SHOWN = 3
"""How many names of each kind a message gives."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights for a network, under the network's own names.

    Attributes:
        state: what the network takes over.
        new_classifier: why its classifier is not among it, such as `have no classifier`; empty where it is.
        notes: what else there is to say of them, each to follow the words "the weights".
    """

    state: Mapping[str, Tensor]
    new_classifier: str
    notes: tuple[str, ...]


def fit(state: State, network: Network, *, whole: bool, model: str = "", image_size: int | None = None) -> Fit:
    """Find a network's tensors among others. Prefixes, such as `module.`, do not count on either side.

    Args:
        state: names and tensors.
        network: as it is now; only its names and shapes are read.
        whole: whether the classifier must fit too; otherwise one for another number of classes is left out.
        model: what the network is called; some have other names for their tensors in other programs.
        image_size: height of the images in pixels.

    Raises:
        KdbenchError: none fit, or several do; the message counts what is missing, unexpected and of another shape, with the first
            of each.
    """
    given = {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] not in COUNTERS}
    if text := trap(model, given, image_size=image_size):
        raise KdbenchError(f"{text}. Bring that network as a model of your own (--plugin), or give other weights.")
    own = network.state_dict()
    shared = _common_prefix(own)
    layouts = {"": {name.removeprefix(shared): name for name in own}, **usual_names(model, network)}
    readings = [
        _read(given, network, prefix=prefix, whose=whose, names=names, whole=whole)
        for whose, names in layouts.items()
        for prefix in _prefixes(given, names)
    ]
    fitting = [reading for reading in readings if reading.fits]
    if not fitting:
        raise _misfit(readings, whole=whole)
    found, *others = distinct = _distinct(sorted(fitting, key=lambda reading: reading.is_average))
    if others and others[0].is_average == found.is_average:
        keys = [reading.key for reading in distinct]
        raise KdbenchError(f"several networks in it fit: {', '.join(keys)}. Name one of them after the file: FILE#{keys[0]}.")
    prefixes = tuple(reading.prefix for reading in fitting)
    beside = [name for name in state if not name.startswith(prefixes) or name not in given]
    mine = {found.names[name]: tensor for name, tensor in found.inside.items()}
    return Fit(mine, found.new_classifier, tuple(_notes(found, others, beside)))


@dataclass(frozen=True, eq=False)
class _Reading:
    """The tensors under one prefix, taken for a network's by one set of names.

    Attributes:
        prefix: what stands before the names: `state_dict.module.`, or nothing.
        whose: the names are; empty where they are the network's own.
        names: the network's names by these.
        wanted: the network's tensors, by these names; without its classifier where that is to be a new one.
        inside: those under the prefix, by their names without it; likewise.
        classifier: names of its tensors.
        new_classifier: as in `Fit`.
    """

    prefix: str
    whose: str
    names: Mapping[str, str]
    wanted: State
    inside: State
    classifier: set[str]
    new_classifier: str

    @cached_property
    def missing(self) -> list[str]:
        return [name for name in self.wanted if name not in self.inside and not name.endswith("num_batches_tracked")]

    @cached_property
    def unexpected(self) -> list[str]:
        return [name for name in self.inside if name not in self.wanted]

    @cached_property
    def unequal(self) -> list[str]:
        return [name for name, tensor in self.wanted.items() if self.inside.get(name, tensor).shape != tensor.shape]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.unequal)

    @property
    def key(self) -> str:
        """What names these tensors in a file that holds others."""
        return self.prefix.rstrip(".")

    @property
    def is_average(self) -> bool:
        return bool(AVERAGE.search(self.prefix))


def _read(given: State, network: Network, *, prefix: str, whose: str, names: Mapping[str, str], whole: bool) -> _Reading:
    own = network.state_dict()
    inside = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
    of_heads = {id(parameter) for head in network.heads for parameter in head.parameters()}
    heads = {mine for mine, value in network.named_parameters(remove_duplicate=False) if id(value) in of_heads}
    classes = {len(head.weight) for head in network.heads}
    classifier = {name for name, mine in names.items() if mine in heads}
    rows = {next(iter(inside[name].shape), 0) if name in inside else 0 for name in classifier}
    other = "" if rows == classes else _other_classes(max(rows), max(classes))
    left_out = classifier if other and not whole else set()
    wanted = {name: own[mine] for name, mine in names.items() if name not in left_out}
    inside = {name: tensor for name, tensor in inside.items() if name not in left_out}
    return _Reading(prefix, whose, names, wanted, inside, classifier, other)


def _other_classes(theirs: int, ours: int) -> str:
    return f"are for {theirs:,} classes and the data set has {ours:,}" if theirs else "have no classifier"


def _prefixes(given: Collection[str], names: Mapping[str, str]) -> list[str]:
    """What all the given names begin with, then whatever stands before one of the network's."""
    found = {_common_prefix(given): None}
    for name in given:
        parts = name.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in names:
                found["".join(f"{part}." for part in parts[:i])] = None
    return list(found)


def _common_prefix(names: Collection[str]) -> str:
    """Whole parts, each with the dot after it."""
    first, last = (end(names, default="").split(".")[:-1] for end in (min, max))
    return "".join(f"{part}." for part, _ in takewhile(lambda parts: parts[0] == parts[1], zip(first, last, strict=False)))


def _distinct(readings: Sequence[_Reading]) -> list[_Reading]:
    """Without those that came to the same tensors as one before them."""
    first = {state_hash(reading.inside): reading for reading in reversed(readings)}
    return [reading for reading in readings if reading in first.values()]


def _misfit(readings: Iterable[_Reading], *, whole: bool) -> KdbenchError:
    """What is wrong with the reading that comes nearest."""

    def known(reading: _Reading) -> int:
        count = len(reading.wanted.keys() & reading.inside.keys())
        return count if 2 * count >= len(reading.wanted) else 0  # some names are in many networks

    best = max(readings, key=known)
    missing, unexpected, unequal = best.missing, best.unexpected, best.unequal
    if whole and best.new_classifier and not missing and not unexpected and best.classifier >= set(unequal):
        return KdbenchError(
            f"they {best.new_classifier}. A teacher is used as it is: train it on the data set first, as a student that starts "
            "from these weights, with `keep_students: true`, and give the weights that it leaves."
        )
    shapes = [f"{name}: {_as_text(best.inside[name])} instead of {_as_text(best.wanted[name])}" for name in unequal]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    text = "; ".join(f"{len(names)} {kind} ({listed(names, most=SHOWN)})" for kind, names in kinds.items() if names)
    lacking = Counter(best.wanted[name].shape for name in missing) - Counter(best.inside[name].shape for name in unexpected)
    way = "Give weights of this architecture."
    if missing and not lacking and not unequal:
        way = (
            "Their shapes are the network's, and their names differ: rename them if it is the same network, or bring theirs as a "
            "model of your own (--plugin)."
        )
    by = f", by the names of {best.whose}" if best.whose else ""
    return KdbenchError(f"they do not fit the network: {text}{by}. {way}")


def _notes(found: _Reading, others: Sequence[_Reading], beside: Sequence[str]) -> Iterator[str]:
    if found.whose:
        yield f"have their names as in {found.whose}"
    if others:
        yield f"are '{found.key}' of the file; '{others[0].key}' fits, too: FILE#{others[0].key} would take that"
    elif found.is_average:
        yield f"are '{found.key}' of the file"
    if beside:
        yield f"leave out {len(beside)} of the file's tensors as no part of the network: {listed(beside, most=SHOWN)}"


def _as_text(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
