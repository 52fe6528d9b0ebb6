"""The device: which one, and exactly repeatable."""

import ctypes
import os
import platform
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.deterministic
from torch._functorch import config as functorch_config

import kdbench
from kdbench.errors import KdbenchError
from kdbench.spec.record import Environment
from kdbench.streams import streams_kept
from kdbench.training.arithmetic import float32_as
from kdbench.training.norms import norms_without_cudnn
from kdbench.wording import counted

_determinism: Any = torch.utils.deterministic  # a module whose attributes are properties
_backends: Any = torch.backends  # of which some attributes have no types


def choose_device(name: str) -> torch.device:
    """The device of `auto`, `cpu`, `cuda` or `cuda:1`.

    Raises:
        KdbenchError: another name, or CUDA asked for and absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = named_device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise KdbenchError(f"device '{name}' was asked for and this machine has no usable CUDA device. Choose --device cpu.")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise KdbenchError(f"device '{name}' was asked for and this machine has {counted(count, 'CUDA device')}. Choose cuda:0.")
    return device


def named_device(name: str) -> torch.device:
    """The device of `cpu`, `cuda` or `cuda:1`, which need not be there.

    Raises:
        KdbenchError: another name.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise KdbenchError(f"unknown device '{name}'. Choose auto, all, cpu, cpu:2, cuda or cuda:INDEX.")
    return device


def at_hand(device: torch.device) -> torch.device:
    """The device, or the CPU where this machine has no such one."""
    return device if device.type == "cpu" or torch.cuda.is_available() else torch.device("cpu")


def try_out(device: torch.device) -> None:
    """See that the device computes.

    Raises:
        RuntimeError: it does not.
    """
    _products_repeat()
    ones = torch.ones(64, 64, device=device)
    if not torch.equal((ones @ ones).cpu(), torch.full((64, 64), 64.0)):
        raise RuntimeError(f"{device} computes wrongly: a product of ones is not what it ought to be")


SMALL_IMAGE = 16 * 16
"""Pixels up to which the layers of the CIFAR networks are too small for a second CPU thread to help."""


def refused_allocations(device: torch.device) -> int:
    """How often this process has found the device's memory too full; 0 on the CPU.

    Not each of them is told: a convolution whose workspace does not fit is done by another kernel, which rounds differently, and by
    that kernel for the rest of the process.
    """
    return int(torch.cuda.memory_stats(device).get("num_ooms", 0)) if device.type == "cuda" else 0


def reserved_bytes(device: torch.device) -> int:
    """What torch has taken of the device's memory, in use or not; 0 on the CPU."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


@contextmanager
def out_of_memory_raised() -> Iterator[None]:
    """Raise torch.OutOfMemoryError where the driver, and not torch's allocator, finds the memory full inside the block."""
    try:
        yield
    except torch.AcceleratorError as problem:
        if "out of memory" in str(problem):
            raise torch.OutOfMemoryError(str(problem)) from problem
        raise


@contextmanager
def exact(device: torch.device, *, precision: str, image_shape: tuple[int, int, int]) -> Iterator[None]:
    """Deterministic kernels and the arithmetic of `precision` inside the block; the process's own settings after it.

    The last bits of a result depend on the number of CPU threads, so that it is a function of the images (C, H, W) and of the
    process, never of the lanes: one for small images, else as many as torch has.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        keep_freed_memory()
        if image_shape[1] * image_shape[2] <= SMALL_IMAGE:
            torch.set_num_threads(1)
    before = (
        torch.are_deterministic_algorithms_enabled(),
        _determinism.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    _products_repeat()
    _set(True, False, False)
    try:
        # Events, seeds and the caching allocator speak of the current device.
        # The loss balance goes backward twice through a compiled pass, which must keep its buffers for that.
        current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
        kept = functorch_config.patch(donated_buffer=False)
        with current, streams_kept(), float32_as(precision), norms_without_cudnn(device), kept:
            yield
    finally:
        _set(*before)
        torch.set_num_threads(threads)


@cache
def keep_freed_memory() -> None:
    """Let the process keep what tensors free: else each step asks the kernel for the same pages again, which must zero them.

    It concerns glibc, and stays for the life of the process.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 32 << 20)  # the largest that glibc takes
        mallopt(trim_threshold, (1 << 31) - 1)


def _products_repeat() -> None:
    """Let matrix products on CUDA have scratch memory with which they repeat; the first product of a process decides its size."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _set(deterministic: bool, fill: bool, benchmark: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    _determinism.fill_uninitialized_memory = fill  # filling costs time and changes no result of ours
    torch.backends.cudnn.benchmark = benchmark


def random_states(device: torch.device) -> list[torch.Tensor]:
    """States of the global random streams: torch's, Python's and NumPy's."""
    on_cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    numpy = np.random.get_state(legacy=False)["state"]
    words = torch.tensor([*numpy["key"].tolist(), numpy["pos"]])
    return [torch.get_rng_state(), torch.tensor(random.getstate()[1]), words, *on_cuda]


@contextmanager
def without_waiting(device: torch.device) -> Iterator[None]:
    """Raise RuntimeError where the host waits for CUDA inside the block; the process's own setting after it."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(action="ignore"):  # torch says once that it does not find every wait
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def environment(device: torch.device) -> Environment:
    """What this process runs on."""
    return Environment(
        kdbench=kdbench.__version__,
        torch=torch.__version__,
        torchvision=_version("torchvision"),
        timm=_version("timm") if find_spec("timm") else None,
        python=platform.python_version(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        cudnn=_backends.cudnn.version() if device.type == "cuda" else None,
    )


_version = cache(version)  # it reads the package's metadata, and every lane and every record asks


def _processor() -> str:
    """Its name, cores and widest instructions, which choose torch's kernels: processors of one name may differ in them."""
    return f"{_model_name()} ({os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()})"


@cache
def _model_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform == "linux" and cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
