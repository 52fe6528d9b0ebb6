"""Weights in files that other programs wrote."""

import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdbench.errors import KdbenchError, listed, nearest
from kdbench.models.weights import read_safetensors

WRAPPER = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch puts into the names of tensors, wherever it wraps a module."""


def read_foreign(file: Path, *, key: str = "") -> dict[str, Tensor]:
    """The tensors of a file that another program wrote, by name: safetensors, or what `torch.save` wrote, of which no code is run.

    The content decides which of them it is, not the file's name. A tensor in a mapping has the mapping's name before its own:
    `state_dict.conv1.weight`. Optimisers' tensors are left out, and wrappers such as `torch.compile`'s are no part of a name.

    Args:
        file: what to read.
        key: the mapping whose tensors are wanted, such as `state_dict_ema`, from the top or else from within another; all of them
            where it is empty.

    Raises:
        KdbenchError: a damaged file, one that only arbitrary code can read, one that holds no state dict, or none under the key.
    """
    with file.open("rb") as handle:
        is_safetensors = handle.read(9)[8:] == b"{"  # eight bytes of length, then JSON
    tensors = read_safetensors(file) if is_safetensors else _saved_by_torch(file)
    tensors = {WRAPPER.sub("", name): tensor for name, tensor in tensors.items()}
    if not key:
        return tensors
    within = {name: tensor for name, tensor in tensors.items() if f".{key}." in f".{name}"}
    if not within:
        known = list(dict.fromkeys(name.partition(".")[0] for name in tensors if "." in name))
        raise KdbenchError(f"{file} holds no '{key}'.{nearest(key, known)} It has: {listed(known)}.")
    return {name: tensor for name, tensor in within.items() if name.startswith(f"{key}.")} or within


def _saved_by_torch(file: Path) -> dict[str, Tensor]:
    try:
        tree = _tree(file)
        leaves = dict(_leaves(tree))
    except Exception as problem:  # a damaged file makes torch raise nearly anything
        if "TorchScript" in str(problem):
            raise _only_code_reads(file, "TorchScript") from None
        if isinstance(problem, pickle.UnpicklingError) and file.read_bytes().startswith((b"PK", b"\x80")):  # no text, say
            raise _only_code_reads(file, _refused(problem)[0]) from None
        raise KdbenchError(
            f"{file} is damaged or holds no weights. Give what `torch.save(model.state_dict(), file)` wrote."
        ) from None
    tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
    if any("." in name for name in tensors):
        return tensors
    unread = [type(leaf) for leaf in leaves.values() if isinstance(leaf, _StandIn)]
    if unread:
        raise _only_code_reads(file, f"{unread[0].__module__}.{unread[0].__qualname__}")
    text = f"its keys are {listed([*map(str, tree)])}" if isinstance(tree, Mapping) else f"it is a {type(tree).__name__}"
    raise KdbenchError(f"{file} holds no state dict ({text}). Give what `torch.save(model.state_dict(), file)` wrote.")


def _only_code_reads(file: Path, code: str) -> KdbenchError:
    return KdbenchError(
        f"{file} can only be read by running code{f' that it names ({code})' if code else ''}, which kdbench does not. "
        "Keep the weights alone: torch.save(model.state_dict(), file)."
    )


def _leaves(tree: object, name: str = "") -> Iterator[tuple[str, object]]:
    """What nested mappings hold, by dotted names, without the states of optimisers."""
    if not isinstance(tree, Mapping):
        yield name, tree
    elif not {"state", "param_groups"} <= tree.keys():
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))


class _StandIn:
    """Stands for an object that only code named in a file can make: it takes all that the file says of it, and keeps none.

    Attributes:
        holds: what it is instead, a mapping or a list, where the file fills it as one.
    """

    holds: ClassVar[type | None] = None

    def __new__(cls, *_: object) -> Any:
        return cls.holds() if cls.holds else super().__new__(cls)

    def __init__(self, *_: object) -> None:
        return

    def __setstate__(self, state: object) -> None:
        return


def _tree(file: Path) -> object:
    """What `torch.save` wrote, with stand-ins for what torch does not itself deem safe: NumPy's numbers, a script's options, paths.

    Which ones a file needs is known from torch's refusals only, one at a time.
    """
    needed: dict[str, type | None] = {}
    while True:
        stand_ins: list[Any] = [(_stand_in(name, holds), name) for name, holds in needed.items()]
        try:
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as problem:
            name, holds = _refused(problem)
            if not name or needed.get(name) or (name in needed) == (holds is None):
                raise
            needed[name] = holds


def _stand_in(name: str, holds: type | None) -> type:
    module, _, own = name.rpartition(".")
    return type(own, (_StandIn,), {"__module__": module, "__qualname__": own, "holds": holds})


def _refused(problem: Exception) -> tuple[str, type | None]:
    """The class or function that torch refuses, empty for other problems, and what a stand-in for it would have to be, if any."""
    found = re.search(r"GLOBAL (\S+)|Can only (SETITEM|append|extend).*got <class '([^']+)'>", str(problem))
    if not found:
        return "", None
    name = found[1] or found[3]
    holds = {None: None, "SETITEM": OrderedDict}.get(found[2], list)
    return name if "." in name else f"builtins.{name}", holds
