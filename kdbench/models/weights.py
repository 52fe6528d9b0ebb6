"""Tensors on disk: weights as safetensors, checkpoints as torch archives read with `weights_only`."""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kdbench.errors import KdbenchError, first_line
from kdbench.files import set_aside, write_bytes

State = Mapping[str, Tensor]

WEIGHTS, METHOD = "weights.safetensors", "method.safetensors"
"""Files of a trial: its student, and those parts of its method that predict, if any."""


def write_weights(file: Path, state: State, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict as safetensors, and what else stands in the head of the file."""
    # Cloned, because safetensors refuses tensors that share memory, as those of a layer with two names do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    write_bytes(file, save(tensors, dict(metadata) if metadata else None))


def read_weights(file: Path, *, sha256: str, look_only: bool = False) -> dict[str, Tensor] | None:
    """A state dict whose hash is `sha256`; None where there is no file or a broken one, which is set aside but for `look_only`."""
    try:
        state = load(file.read_bytes())
    except FileNotFoundError:
        return None
    except SafetensorError as problem:
        reason = str(problem)
    else:
        if (found := state_hash(state)) == sha256:
            return state
        reason = f"its tensors hash to {found}, the record says {sha256}"
    if not look_only:
        set_aside(file, reason)
    return None


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """A state dict of whatever hash.

    Raises:
        KdbenchError: a damaged file.
    """
    try:
        return load(file.read_bytes())
    except SafetensorError as problem:
        raise KdbenchError(f"{file} is damaged or no safetensors file ({first_line(problem)}). Give a whole copy.") from None


def state_hash(state: State) -> str:
    """Hash over names, shapes, types and bytes of a state dict: 16 hexadecimal characters."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        total.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()[:16]


def write_checkpoint(file: Path, state: Mapping[str, Any]) -> None:
    """Write nested containers of tensors and plain values, whole or not at all, with a hash that detects damage."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getvalue()
    write_bytes(file, hashlib.sha256(data).digest() + data)


def read_checkpoint(file: Path) -> dict[str, Any] | None:
    """What `write_checkpoint` wrote, on the CPU; None where there is no file or a broken one, which is set aside."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    digest, body = data[:32], data[32:]
    if hashlib.sha256(body).digest() != digest:
        set_aside(file, "its bytes do not match their hash")
        return None
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as problem:
        set_aside(file, first_line(problem))
        return None
    return state
