"""What methods find out of a teacher in one pass over the training set, before any training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from kdbench.method.stages import Survey
from kdbench.streams import derive, reseed
from kdbench.training.fatal_errors import fatal_error, location
from kdbench.training.frozen_teacher import FrozenTeacher


def survey_together(
    surveys: Sequence[Survey], batches: Iterable[Callable[[], tuple[Tensor, Tensor]]], teacher: FrozenTeacher
) -> list[str | None]:
    """Show the teacher's outputs for all batches to all surveys; the teacher is asked once for each.

    Args:
        surveys: with their modules on the teacher's device.
        batches: images (B, C, H, W) and labels (B,), not augmented, in order.
        teacher: whose outputs are shown.

    Returns:
        For each survey why it failed, None where it did not.
    """
    failures: list[str | None] = [None] * len(surveys)

    def guarded(number: int, act: Callable[[], object]) -> None:
        if failures[number] is None:
            try:
                act()
            except Exception as problem:  # isolation: the trials that need this survey fail
                if fault := fatal_error(problem):
                    raise fault from None
                failures[number] = f"{type(problem).__name__}: {problem} ({location(problem)})"

    with torch.no_grad():
        for place, load in enumerate(batches):
            images, labels = load()
            reseed(derive(0, "survey", place), images.device)
            outputs = teacher(images)
            for number, survey in enumerate(surveys):
                guarded(number, partial(survey.see, outputs, labels))
        for number, survey in enumerate(surveys):
            guarded(number, survey.finish)
            if broken := [name for name, value in survey.module.state_dict().items() if not value.isfinite().all()]:
                failures[number] = failures[number] or f"not finite after the survey: {', '.join(broken)}"
    return failures
