"""How a report looks and what it compares with: the key `report` of a suite, and the options of `kdbench report`."""

from typing import Annotated

from pydantic import AfterValidator

from kdbench.errors import nearest
from kdbench.spec.metrics import METRICS, Metric
from kdbench.spec.recipe import Spec


def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"unknown metric '{name}'.{nearest(name, METRICS)} Choose one of {', '.join(METRICS)}")
    return name


class ReportOptions(Spec):
    """What a report shows. It is no part of a trial: another report of the same trials needs no training."""

    metric: Annotated[str, AfterValidator(_known_metric)] = "error"
    """What is compared: `error` or `accuracy`."""
    baseline: str = "scratch"
    """The method that gains are given over."""

    @property
    def compared(self) -> Metric:
        """The metric."""
        return METRICS[self.metric]


DEFAULT = ReportOptions()
"""What a report shows unless it is told."""
