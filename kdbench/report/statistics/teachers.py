"""Where students of a pair learnt from several trainings of its teacher: how much of the spread is the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdbench.report.statistics.comparisons import largest_block
from kdbench.report.statistics.quantiles import FloatArray


@dataclass(frozen=True)
class TeacherShares:
    """What the choice of the teacher's training adds to the spread of errors and of differences between methods.

    Attributes:
        teachers: how many trainings.
        seeds: how many seeds of students in all.
        of_errors: share of the variance of a method's errors over seeds that is the teacher's, 0 to 1; of which `of_differences` is
            a part.
        of_differences: share of the variance of a method's effect that is the teacher's, 0 to 1; None where every seed has a
            teacher of its own, since then the two cannot be told apart.
    """

    teachers: int
    seeds: int
    of_errors: float | None
    of_differences: float | None

    @property
    def sentence(self) -> str:
        """What stands under a table, in plain words."""
        said = f"{self.seeds} seeds learnt from {self.teachers} trainings of the teacher."
        if self.of_errors is None or self.of_differences is None:
            return f"{said} Each seed has a teacher of its own, so intervals are over new teachers, too."
        return (
            f"{said} The teacher's training makes {100 * self.of_errors:.0f} % of the variance of a method's errors over seeds, "
            f"and {100 * self.of_differences:.0f} % of that of differences between methods. Intervals count every seed as "
            "independent. So, if that second share is above 0, they are wider than new students of these teachers need, and too "
            "narrow for new teachers."
        )


def teacher_shares(values: pd.DataFrame, teachers: pd.Series[str]) -> TeacherShares | None:
    """Split the spread over seeds into the teacher's part and the rest: seeds nested in teachers, crossed with methods.

    The estimates are those of analysis of variance, negative ones counted as 0.

    Args:
        values: one row for each seed and one column for each method that has a teacher.
        teachers: which training of the teacher a seed's students learnt from.

    Returns:
        None where all seeds have one teacher, or no two methods share two seeds.
    """
    block = largest_block(values)
    of = teachers.loc[block.index].astype("category").cat.codes.to_numpy()
    count, (seeds, methods) = len(np.unique(of)), block.shape
    if count < 2 or methods < 2:
        return None
    if count == seeds:
        return TeacherShares(count, seeds, None, None)
    errors = block.to_numpy(float)
    level = errors.mean(1, keepdims=True)
    of_level, rest_of_level = _components(level, of, 1)
    of_effects, rest_of_effects = _components(errors - level, of, methods - 1)
    # A method's error is its seed's level, and an effect whose variance is this part of that of an effect beside many methods.
    part = (methods - 1) / methods
    of_errors, rest_of_errors = of_level + part * of_effects, rest_of_level + part * rest_of_effects
    return TeacherShares(count, seeds, _share(of_errors, rest_of_errors), _share(of_effects, rest_of_effects))


def _components(values: FloatArray, teachers: NDArray[np.integer], columns: int) -> tuple[float, float]:
    """The variances of values (S, K) between teachers (S,) and within, where so many of the columns are free."""
    _, sizes = np.unique(teachers, return_counts=True)
    means = np.array([values[teachers == teacher].mean(0) for teacher in range(len(sizes))])
    within = ((values - means[teachers]) ** 2).sum() / ((len(values) - len(sizes)) * columns)
    between = (sizes[:, None] * (means - values.mean(0)) ** 2).sum() / ((len(sizes) - 1) * columns)
    usual_size = (len(values) - (sizes**2).sum() / len(values)) / (len(sizes) - 1)
    return max(0.0, float(between - within) / float(usual_size)), float(within)


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part + rest else 0.0
