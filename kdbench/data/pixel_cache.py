"""Decoded images of both splits in one file, so that they are decoded once."""

import hashlib
import os
import socket
import warnings
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdbench.errors import KdbenchError, first_line
from kdbench.files import written

Images = tuple[Tensor, Tensor]
"""(N, H, W, C), uint8, of the training and the test images."""


def write_images(path: Path, images: Images) -> None:
    """Keep the images under `path`, which never holds half a file.

    Raises:
        KdbenchError: it cannot be written.
    """
    try:
        with written(path, writer=f"{socket.gethostname()}-{os.getpid()}") as partial:
            save_file(dict(zip(("train", "test"), images, strict=True)), partial, metadata={"sha256": _checksum(images)})
    except (OSError, SafetensorError) as problem:
        reason = getattr(problem, "strerror", None) or first_line(problem)
        raise KdbenchError(
            f"{path} cannot be written ({reason}). Make room and see that you may write there, or choose another --results."
        ) from None


def read_images(path: Path) -> Images | None:
    """The images kept under `path`, or None; a damaged file is set aside.

    Raises:
        KdbenchError: it is there and cannot be read.
    """
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise KdbenchError(
            f"{path} cannot be read ({problem.strerror}). Ask its owner for `chmod a+r`, or choose another --results."
        ) from None
    try:
        with safe_open(path, "pt") as kept:
            images = kept.get_tensor("train"), kept.get_tensor("test")
            if kept.metadata() == {"sha256": _checksum(images)}:
                return images
    except SafetensorError:
        pass  # its header is damaged; otherwise its pixels are
    aside = path.with_suffix(".broken")
    os.replace(path, aside)
    warnings.warn(f"{path} is damaged: set aside as {aside.name}; the images are decoded again", stacklevel=4)
    return None


def _checksum(images: Images) -> str:
    digest = hashlib.sha256()
    for tensor in images:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
