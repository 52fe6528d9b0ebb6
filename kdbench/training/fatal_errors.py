"""Whose fault an exception is: the machine's, which ends the run and is no trial's result, or a method's or network's, which is."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kdbench.errors import DataError, KdbenchError, first_line, system_error
from kdbench.method.interface import METHODS
from kdbench.models import MODELS

_OF_THE_MACHINE = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError, DataError)

_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What a file system or a process has run out of, or a broken disk, whoever met it."""

_FULL = ("DefaultCPUAllocator", "_STATUS_ALLOC_FAILED")
"""What a plain RuntimeError of torch says where memory is full: of the CPU, or of a library of CUDA's."""


def fatal_error(problem: Exception) -> Exception | None:
    """What is to be raised in its place where it says nothing about a method; None where it does.

    That is a full disk, full memory (of torch's always as torch.OutOfMemoryError), a device in a bad state, a damaged image.
    """
    if isinstance(problem, RuntimeError) and any(sign in str(problem) for sign in _FULL):
        return torch.OutOfMemoryError(str(problem))
    if isinstance(problem, OSError):
        return problem if problem.errno in _ERRNOS or not _in_written(problem) else None
    return problem if isinstance(problem, _OF_THE_MACHINE) else None


def location(problem: BaseException) -> str:
    """Where it arose, such as `mine.py:12`: in the file of a method or network, where it went through one."""
    frame = origin(problem)
    return f"{Path(frame.filename).name}:{frame.lineno}"


def origin(problem: BaseException) -> traceback.FrameSummary:
    """The same, as Python has it."""
    return (_in_written(problem) or traceback.extract_tb(problem.__traceback__))[-1]


def _in_written(problem: BaseException) -> list[traceback.FrameSummary]:
    """The frames in files of methods, and of networks that are not our own."""
    package = Path(__file__).parents[1]
    networks = {entry.file for entry in MODELS.entries() if not Path(entry.file).is_relative_to(package)}
    written = networks | {entry.file for entry in METHODS.entries()}
    return [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename in written]


@contextmanager
def fatal_errors_explained() -> Iterator[None]:
    """One sentence with the way out for the machine's faults in the block.

    Raises:
        KdbenchError: in the place of such a fault.
    """
    try:
        yield
    except KdbenchError:
        raise
    except Exception as problem:  # a fault of the machine has no type of its own: `fatal_error` tells
        if not fatal_error(problem):
            raise
        if isinstance(problem, OSError):
            text = f"{system_error(problem)} Then the same command continues; what is finished is kept."
        elif isinstance(problem, torch.AcceleratorError):
            text = (
                f"the device is in a bad state ({first_line(problem)}), which a method may have caused. With --lanes 1, the same "
                "command shows which was training; what is finished is kept."
            )
        else:
            text = "the memory is full. Train fewer students at once, such as --lanes 4; what is finished is kept."
        raise KdbenchError(text) from problem
