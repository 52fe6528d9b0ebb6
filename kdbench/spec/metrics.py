"""What a report can compare: a column of the frame, its words, its unit, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
"""A number, or a pandas object of numbers."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure of trials.

    Attributes:
        name: as `--metric` takes it.
        column: of the frame.
        noun: what sentences and axes call it.
        short: what headings call it, after `Teacher` or `Test`.
        unit: `%`, `nats`, or empty where it has none.
        points: the unit of a difference.
        lower_is_better: which way is better.
        complement: whether it is 100 minus the column.
        teacher_column: the teacher's own, where the frame has it.
    """

    name: str
    column: str
    noun: str
    short: str
    unit: str
    points: str
    lower_is_better: bool
    complement: bool = False
    teacher_column: str | None = None

    def of(self, stored: T) -> T:
        """The measure, where the column holds `stored`."""
        return 100 - stored if self.complement else stored  # type: ignore[operator, return-value]

    def gain(self, method: T, *, over: T) -> T:
        """How much better `method` is than `over`: positive is better, whichever way that is."""
        return over - method if self.lower_is_better else method - over  # type: ignore[operator, no-any-return]

    @property
    def best(self) -> str:
        """`lowest` or `highest`."""
        return "lowest" if self.lower_is_better else "highest"

    @property
    def worse(self) -> str:
        """`higher` or `lower`."""
        return "higher" if self.lower_is_better else "lower"

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↓" if self.lower_is_better else "↑"

    @property
    def title(self) -> str:
        """The noun, to begin a line with."""
        return self.noun[0].upper() + self.noun[1:]

    @property
    def heading(self) -> str:
        """`Test error (%, ↓)`."""
        unit = f"{self.unit}, " if self.unit else ""
        return f"{self.title} ({unit}{self.arrow})"

    @property
    def axis(self) -> str:
        """`test error (%)`."""
        return f"{self.noun} ({self.unit})" if self.unit else self.noun

    def text(self, value: float, *, decimals: int = 2) -> str:
        """`4.39 %`."""
        return f"{value:.{decimals}f} {self.unit}".rstrip()


_ERROR = Metric(
    name="error",
    column="test_error_pct",
    noun="test error",
    short="error",
    unit="%",
    points="points",
    lower_is_better=True,
    teacher_column="teacher_error_pct",
)
_ACCURACY = Metric(
    name="accuracy",
    column="test_error_pct",
    noun="test accuracy",
    short="accuracy",
    unit="%",
    points="points",
    lower_is_better=False,
    complement=True,
    teacher_column="teacher_error_pct",
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (_ERROR, _ACCURACY)}
"""By the name that `--metric` and the key `metric` take."""
