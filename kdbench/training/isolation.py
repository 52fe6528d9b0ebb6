"""Whatever a lane does wrong is its own result: the others go on as if it had not been there."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from kdbench.training.divergence import check_of_own
from kdbench.training.fatal_errors import fatal_error, location, origin
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
        reason, trace = f"{text} ({location(problem)})", "".join(traceback.format_exception(problem))
        for lane in lanes:
            lane.fail(reason, traceback=trace, advice=check_of_own({origin(problem).filename}))


def spoils(act: Callable[[], object], lane: Lane, shared: StepInputs) -> bool:
    """Do something with a lane that has not failed, and see whether it changed a tensor that all lanes are given: then it fails."""
    before = versions(shared)
    guarded(act, lane)
    if versions(shared) == before:
        return False
    if not lane.failure:
        lane.fail("it changed in place a tensor that all lanes are given; clone it before")
    return True


def versions(shared: StepInputs) -> list[tuple[int, bool]]:
    """Of every tensor that lanes share, the count that torch raises when it is changed, and whether it asks for a gradient."""
    return [(tensor._version, tensor.requires_grad) for tensor in shared.tensors()]
