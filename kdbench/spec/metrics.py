"""What a report can compare: a column of the frame, its words, its unit, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
        decimals: with which it is printed.
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
    decimals: int = 2
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

    def number(self, value: float) -> str:
        """`4.39`."""
        return f"{value:.{self.decimals}f}"

    def text(self, value: float) -> str:
        """`4.39 %`."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def difference(self, value: float) -> str:
        """`+0.52`."""
        value = round(value, 9) + 0.0  # what is 0 but for the rounding of floating-point numbers has no minus
        return f"{value:+.{self.decimals}f}"

    def interval(self, bounds: tuple[float, float]) -> str:
        """Of a difference: `+0.21 to +0.83`."""
        return " to ".join(map(self.difference, bounds))


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
_TOP5_ERROR = replace(
    _ERROR,
    name="top5_error",
    column="test_top5_error_pct",
    noun="top-5 test error",
    short="top-5 error",
    teacher_column="teacher_top5_error_pct",
)
_ECE = replace(
    _ERROR,
    name="ece",
    column="test_ece_pct",
    noun="expected calibration error",
    short="calibration error",
    teacher_column="teacher_ece_pct",
)
_NLL = Metric(
    name="nll",
    column="test_nll",
    noun="negative log-likelihood",
    short="NLL",
    unit="nats",
    points="nats",
    lower_is_better=True,
    decimals=4,
    teacher_column="teacher_nll",
)

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _ERROR,
        replace(_ERROR, name="accuracy", noun="test accuracy", short="accuracy", lower_is_better=False, complement=True),
        _TOP5_ERROR,
        replace(
            _TOP5_ERROR,
            name="top5_accuracy",
            noun="top-5 test accuracy",
            short="top-5 accuracy",
            lower_is_better=False,
            complement=True,
        ),
        _NLL,
        _ECE,
        replace(
            _ECE,
            name="adaptive_ece",
            column="test_adaptive_ece_pct",
            noun="adaptive calibration error",
            teacher_column="teacher_adaptive_ece_pct",
        ),
        replace(
            _ERROR,
            name="agreement",
            column="teacher_agreement_pct",
            noun="agreement with the teacher",
            short="agreement",
            lower_is_better=False,
            teacher_column=None,
        ),
        replace(_NLL, name="kl", column="teacher_kl", noun="KL from the teacher", short="KL", teacher_column=None),
    )
}
"""By the name that `--metric` and the key `metric` take."""
