"""Weights that a network starts from: what a suite's `weights` names, and where they come from.

A file is known by its hash, and so is what torchvision publishes. Of timm's, the few that lie at an address with a hash in it, or
in a pinned revision, have that in their name too. The others are known by their tag alone: what their configuration gives beside
it is the address of another file, which timm does not read. What a run fetched is bound by the records all the same, as a hash of
tensors: `weights_sha256` of a teacher that is used as it is, `teacher_weights_sha256` of each of its students, and
`start_weights_sha256` of a student that starts from weights. Tables note where one name stood for several.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from kdbench.errors import KdbenchError, first_line, nearest
from kdbench.models.foreign import AUXILIARY, timm, torchvision_models
from kdbench.models.foreign_weights import read_foreign
from kdbench.models.weights import METHOD, WEIGHTS
from kdbench.paths import expanded, from_folder
from kdbench.spec.trial import Weights, file_name
from kdbench.streams import streams_kept

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".t7", ".th", ".pkl")
"""How the names of files end: the word for what neither lies in the folder nor is published."""


def identify(weights: str, *, model: str, folder: Path) -> Weights:
    """What the `weights` of a suite are. Reads a file to its end, builds no network and downloads nothing.

    Args:
        weights: a file, from `folder`, from home (`~/`) or absolute, with `#key` after it where it holds several; a name of
            torchvision, with or without its enum (`IMAGENET1K_V1`, `ResNet34_Weights.IMAGENET1K_V1`); a tag of timm, with or
            without its model (`a1_in1k`, `resnet18.a1_in1k`). What lies in `folder` under such a name is a file all the same.
        model: whose weights they are.
        folder: where a relative path begins: the suite's folder.

    Raises:
        KdbenchError: there are none such; of published ones the message gives all.
    """
    place, key = weights, ""
    if "#" in weights and not os.path.isfile(folder / expanded(weights)):
        place, _, key = weights.rpartition("#")
    file = folder / expanded(place)
    if os.path.isfile(file) or "/" in place or file.suffix.lower() in SUFFIXES:
        return _of_file(from_folder(folder, Path(place)), key)
    library, _, name = model.partition("/")
    if library == "torchvision" and name:
        return _of_torchvision(weights, name, file)
    if library == "timm" and name:
        return _of_timm(weights, name, file)
    raise KdbenchError(
        f"there is no file {file}, and nobody publishes weights '{weights}' of {model}. Give a file, such as teacher.safetensors."
    )


def _of_file(file: Path, key: str) -> Weights:
    if file.is_dir():
        raise KdbenchError(f"{file} is a folder. Give a file in it, such as weights.safetensors.")
    if file.name == WEIGHTS and file.with_name(METHOD).exists():
        raise KdbenchError(
            f"{file} is not all of its network: the method predicts with {METHOD} beside it, as SimKD does with the teacher's "
            "classifier. Give the student of another method."
        )
    try:
        return Weights(name=file_name(file) + (f"#{key}" if key else ""), file=file)
    except OSError as problem:
        raise KdbenchError(f"{file} cannot be read ({problem.strerror}). Give a file of weights.") from None


def _of_torchvision(weights: str, model: str, file: Path) -> Weights:
    known = torchvision_models().get_model_weights(model)
    _, _, member = weights.rpartition(".")
    if weights not in (member, f"{known.__name__}.{member}") or member not in known.__members__:
        raise _unknown(f"torchvision/{model}", weights, known.__members__, file)
    found = known[member]  # its own name where DEFAULT is given
    return Weights(name=_with_hash(f"{known.__name__}.{found.name}", found.url))


def _of_timm(weights: str, model: str, file: Path) -> Weights:
    library, tag = timm(), weights.removeprefix(f"{model}.")
    tags = [name.partition(".")[2] for name in library.list_pretrained(f"{model}.*")]
    if tag not in tags:
        raise _unknown(f"timm/{model}", weights, tags, file)
    config = library.get_pretrained_cfg(f"{model}.{tag}")
    return Weights(name=_with_hash(f"{model}.{tag}", config.hf_hub_id or config.url or ""))  # timm asks the hub first


def _with_hash(name: str, place: str) -> str:
    """The name and, in parentheses, the hash in a file's address (`...-1a2b3c4d.pth`) or the revision (`...@1a2b3c4d`), if any."""
    digits = re.search(r"(?:-([0-9a-f]{8,})\.\w+|@([0-9a-f]{8,}))$", place)
    return f"{name} ({digits[1] or digits[2]})" if digits else name


def _unknown(model: str, weights: str, known: Iterable[str], file: Path) -> KdbenchError:
    text = f"It has: {', '.join(known)}." if known else "It has none: give a file."
    return KdbenchError(f"{model} has no weights '{weights}'.{nearest(weights, known)} {text} Nor is there a file {file}.")


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
        if _of_file(weights.file, weights.key) != weights:
            raise KdbenchError(f"{weights.file} has changed since the suite was read. Start again.")
        return read_foreign(weights.file, key=weights.key)
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
    network = models.get_model(name, weights=models.get_model_weights(name)[weights.rpartition(".")[2]], progress=False)
    if name in AUXILIARY:
        network.AuxLogits = None  # inception_v3 keeps it; googlenet has left its own out
    return network


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
