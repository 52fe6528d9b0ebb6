"""Weights that a network starts from: what a suite's `weights` names, where they come from, and whether they fit.

A file is known by its hash, and so is what torchvision publishes. Of timm's, the few that lie at an address with a hash in it, or
in a pinned revision, have that in their name too. The others are known by their tag alone: what their configuration gives beside
it is the address of another file, which timm does not read. What a run fetched is bound by the records all the same, as a hash of
tensors: `weights_sha256` of a teacher that is used as it is, `teacher_weights_sha256` of each of its students, and
`start_weights_sha256` of a student that starts from weights. Tables note where one name stood for several.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kdbench.errors import KdbenchError, first_line, nearest
from kdbench.models.foreign import timm, torchvision_models
from kdbench.models.network import Network
from kdbench.paths import from_folder
from kdbench.streams import streams_kept
from kdbench.trial import Weights, file_name
from kdbench.weights import METHOD, WEIGHTS, State, read_foreign

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""How the names of files end; what has none of these and no folder is a published name."""

SHOWN = 3
"""How many names of each kind a message about misfits gives."""


def identify(weights: str, *, model: str, folder: Path) -> Weights:
    """What the `weights` of a suite are. Reads a file to its end, builds no network and downloads nothing.

    Args:
        weights: a file, from `folder` or absolute; a name of torchvision, with or without its enum (`IMAGENET1K_V1`,
            `ResNet34_Weights.IMAGENET1K_V1`); a tag of timm, with or without its model (`a1_in1k`, `resnet18.a1_in1k`).
        model: whose weights they are.
        folder: where a relative path begins: the suite's folder.

    Raises:
        KdbenchError: there are none such; of published ones the message gives all.
    """
    if "/" in weights or weights.lower().endswith(SUFFIXES):
        return _of_file(from_folder(folder, Path(weights)))
    library, _, name = model.partition("/")
    if library == "torchvision" and name:
        return _of_torchvision(weights, name)
    if library == "timm" and name:
        return _of_timm(weights, name)
    raise KdbenchError(f"nobody publishes weights '{weights}' of {model}. Give a file, such as teacher.safetensors.")


def _of_file(file: Path) -> Weights:
    if file.is_dir():
        raise KdbenchError(f"{file} is a folder. Give a file in it, such as weights.safetensors.")
    if file.name == WEIGHTS and file.with_name(METHOD).exists():
        raise KdbenchError(
            f"{file} is not all of its network: the method predicts with {METHOD} beside it, as SimKD does with the teacher's "
            "classifier. Give the student of another method."
        )
    try:
        return Weights(name=file_name(file), file=file)
    except OSError as problem:
        raise KdbenchError(f"{file} cannot be read ({problem.strerror}). Give a file of weights.") from None


def _of_torchvision(weights: str, model: str) -> Weights:
    known = torchvision_models().get_model_weights(model)
    _, _, member = weights.rpartition(".")
    if weights not in (member, f"{known.__name__}.{member}") or member not in known.__members__:
        raise _unknown(f"torchvision/{model}", weights, known.__members__)
    found = known[member]  # its own name where DEFAULT is given
    return Weights(name=_with_hash(f"{known.__name__}.{found.name}", found.url))


def _of_timm(weights: str, model: str) -> Weights:
    library, tag = timm(), weights.removeprefix(f"{model}.")
    tags = [name.partition(".")[2] for name in library.list_pretrained(f"{model}.*")]
    if tag not in tags:
        raise _unknown(f"timm/{model}", weights, tags)
    config = library.get_pretrained_cfg(f"{model}.{tag}")
    return Weights(name=_with_hash(f"{model}.{tag}", config.hf_hub_id or config.url or ""))  # timm asks the hub first


def _with_hash(name: str, place: str) -> str:
    """The name and, in parentheses, the hash in a file's address (`...-1a2b3c4d.pth`) or the revision (`...@1a2b3c4d`), if any."""
    digits = re.search(r"(?:-([0-9a-f]{8,})\.\w+|@([0-9a-f]{8,}))$", place)
    return f"{name} ({digits[1] or digits[2]})" if digits else name


def _unknown(model: str, weights: str, known: Iterable[str]) -> KdbenchError:
    told = f"It has: {', '.join(known)}." if known else "It has none: give a file."
    return KdbenchError(f"{model} has no weights '{weights}'.{nearest(weights, known)} {told}")


def fetch(weights: Weights, *, model: str, in_channels: int) -> dict[str, Tensor]:
    """The tensors: of a file, or of torchvision or timm, which download them once and keep them.

    Args:
        weights: what they are.
        model: whose they are.
        in_channels: of the images; timm's first convolution is made to fit them, as timm does it.

    Raises:
        KdbenchError: a file that cannot be read or has changed, or nothing to be had from the network.
    """
    if weights.file:
        if _of_file(weights.file) != weights:
            raise KdbenchError(f"{weights.file} has changed since the suite was read. Start again.")
        return read_foreign(weights.file)
    library, _, name = model.partition("/")
    try:
        with streams_kept():
            whole = _published(library, name, weights.name.split(" ")[0], in_channels)
            state: dict[str, Tensor] = whole.state_dict()
            return state
    except Exception as problem:  # whatever the libraries raise without a network
        raise KdbenchError(
            f"the weights {weights.name} of {model} cannot be fetched ({first_line(problem)}). Fetch them once where there is a "
            "network, or give them as a file: `weights: path`."
        ) from problem


def _published(library: str, name: str, weights: str, in_channels: int) -> Any:
    """The library's own network with its weights in it, because some need translation on the way."""
    if library == "timm":
        timm().models.set_pretrained_check_hash(True)  # of addresses with one; timm's default is not to look
        return timm().create_model(weights, pretrained=True, in_chans=in_channels)
    models = torchvision_models()
    return models.get_model(name, weights=models.get_model_weights(name)[weights.rpartition(".")[2]], progress=False)


def normalisation(weights: Weights, *, model: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation, on the scale 0..1, of the images that published weights are meant for; None of a file."""
    library, _, name = model.partition("/")
    if weights.file:
        return None
    published = weights.name.split(" ")[0]
    if library == "timm":
        meant = timm().get_pretrained_cfg(published)
    else:
        meant = torchvision_models().get_model_weights(name)[published.rpartition(".")[2]].transforms()
    return tuple(meant.mean), tuple(meant.std)


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights for a network, under the network's own names.

    Attributes:
        state: what the network takes over.
        new_classifier: why its classifier is not among it, such as `have no classifier`; empty where it is.
    """

    state: Mapping[str, Tensor]
    new_classifier: str


def fit(state: State, network: Network, *, whole: bool) -> Fit:
    """See that weights fit a network. Prefixes that all names share, such as `module.`, do not count on either side.

    Args:
        state: names and tensors.
        network: as it is now; only its names and shapes are read.
        whole: whether the classifier must fit too; otherwise one for another number of classes is left out.

    Raises:
        KdbenchError: they do not fit; the message counts what is missing, unexpected and of another shape, with the first of each.
    """
    wanted, given = _bare(network.state_dict()), _bare(state)
    head = network.classifier
    heads = {own for own, value in network.named_parameters(remove_duplicate=False) if value is head.weight or value is head.bias}
    ours = [name for name, (own, _) in wanted.items() if own in heads]
    rows = {len(given[name][1]) if name in given else 0 for name in ours}
    other = "" if rows == {head.out_features} else _other_classes(max(rows), head.out_features)
    if other and not whole:
        for name in ours:
            del wanted[name]
            given.pop(name, None)
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in wanted]
    unequal = {
        name: f"{name}: {_told(given[name][1])} instead of {_told(tensor)}"
        for name, (_, tensor) in wanted.items()
        if name in given and given[name][1].shape != tensor.shape
    }
    if whole and other and not missing and not unexpected and unequal.keys() <= set(ours):
        raise KdbenchError(
            f"they {other}. A teacher is used as it is: train it on the data set first, as a student that starts from these "
            "weights, with `keep_students: true`, and give the weights that it leaves."
        )
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": list(unequal.values())}
    if told := [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]:
        raise KdbenchError(f"they do not fit the network: {'; '.join(told)}. Give weights of this architecture.")
    learnt = {own for own, _ in network.named_parameters(remove_duplicate=False)}  # a buffer may hold infinity, as masks do
    if broken := [
        name for name, (own, _) in wanted.items() if own in learnt and name in given and not given[name][1].isfinite().all()
    ]:
        raise KdbenchError(f"they hold NaN or infinity ({_some(broken)}). Give weights of a training that did not diverge.")
    return Fit({own: given[name][1] for name, (own, _) in wanted.items() if name in given}, other)


def _other_classes(theirs: int, ours: int) -> str:
    return f"are for {theirs:,} classes and the data set has {ours:,}" if theirs else "have no classifier"


def _bare(state: State) -> dict[str, tuple[str, Tensor]]:
    """Name and tensor by the name without the prefix that all names share."""
    names = {name: name for name in state}
    while len(prefixes := {bare.partition(".")[0] for bare in names}) == 1 and all("." in bare for bare in names):
        names = {bare.removeprefix(f"{next(iter(prefixes))}."): name for bare, name in names.items()}
    return {bare: (name, state[name]) for bare, name in names.items()}


def _some(names: Sequence[str]) -> str:
    return ", ".join((*names[:SHOWN], *(["..."] if len(names) > SHOWN else [])))


def _told(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
