"""Whatever a lane does wrong is its own result: the others go on as if it had not been there."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from kdbench.training.fatal_errors import fatal_error, location
from kdbench.training.inputs import StepInputs
from kdbench.training.lane import Lane


def guarded(act: Callable[[], object], *lanes: Lane) -> None:
    """Do something with lanes that have not failed; an exception in it fails these and no others."""
    if any(lane.failure for lane in lanes):
        return
    try:
        act()
    except Exception as problem:  # isolation: whatever a method raises is its lane's result
        if fault := fatal_error(problem):
            raise fault from None
        text = f"{type(problem).__name__}: {problem}"
        if "modified by an inplace operation" in text:
            text = "it changed in place a tensor that a gradient needs, such as the student's outputs; clone it before"
        for lane in lanes:
            lane.fail(f"{text} ({location(problem)})", traceback="".join(traceback.format_exception(problem)))


def spoils(act: Callable[[], object], lane: Lane, shared: StepInputs) -> bool:
    """Do something with a lane that has not failed, and see whether it changed a tensor that all lanes are given: then it fails."""
    before = versions(shared)
    guarded(act, lane)
    if versions(shared) == before:
        return False
    lane.fail(lane.failure or "it changed in place a tensor that all lanes are given; clone it before", traceback=lane.traceback)
    return True


def versions(shared: StepInputs) -> list[tuple[int, bool]]:
    """Of every tensor that lanes share, the count that torch raises when it is changed, and whether it asks for a gradient."""
    return [(tensor._version, tensor.requires_grad) for tensor in shared.tensors()]
