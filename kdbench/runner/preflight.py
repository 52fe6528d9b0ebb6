"""What keeps a suite from running, all of it at once, before images are read and before anything trains."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from kdbench.data import Dataset, blank
from kdbench.errors import KdbenchError
from kdbench.runner.plan import Plan, Planned
from kdbench.training.builder import Builder
from kdbench.training.fatal_errors import fatal_errors_explained


def preflight(plan: Plan, todo: Iterable[Planned], *, cache: Path, device: torch.device, download: bool) -> Dataset | None:
    """See that the device, the data set, every network, its weights and every pair can be.

    A data set that cannot tell its images without being loaded is loaded.

    Args:
        plan: of the suite.
        todo: the students that are to be trained.
        cache: where data sets keep what is slow to compute.
        device: that they are to be trained on.
        download: whether published weights may be fetched; they are not looked at otherwise.

    Returns:
        The data set, where it had to be loaded.

    Raises:
        KdbenchError: the message gives every problem with its fix.
    """
    todo = list(todo)
    specs = [planned.spec for planned in (*todo, *(t for t in plan.teachers_of(todo) if not t.record))]
    kind, params = plan.suite.source
    found = []
    if device.type == "cpu" and any(spec.recipe.precision == "tf32" for spec in specs):
        found.append(KdbenchError("precision tf32 has no effect on the CPU. Choose fp32 or bf16, or a CUDA device."))
    source = kind(params, cache=cache)
    try:
        with fatal_errors_explained():
            source.check()
            contents = source.contents()
            dataset = blank(contents) if contents else source.load()
    except KdbenchError as problem:  # without the images' size and classes no network can be looked at
        found.append(problem)
    else:
        found += Builder(dataset, params, torch.device("cpu")).misfits(specs, download=download)
    if len(found) == 1:
        raise found[0]
    if found:
        listed = "".join(f"\n* {problem}" for problem in found)
        raise KdbenchError(f"{plan.suite.name} cannot run, for {len(found)} reasons:{listed}")
    return None if contents else dataset
